#!lua name=carillon_VERSION
-- The functions of Carillon on Redis. What is decided is decided in Go, once for every store; here stands only what has to
-- happen in one step: reading several keys at one moment, and changing them if they still are what was read.
--
-- A call is FCALL name n key... now probe unit...: in a cluster the keys of its units one after the other, otherwise none, as each unit has
-- its own; the clock to go by in tests (empty: this server's own), a key of no name in a cluster (see standing), and units as encode.go packs
-- them. It returns {lineage, now, {answer...}}: the first 15 digits of the primary's replication id, by which a client tells one history of the data from another, and milliseconds
-- since 1970. A unit's answer is the list of its commands' replies, without those that nobody reads; 1 if all of it is done and there is nothing
-- to say; 0 if what it was made from is no longer so; or the text of an error. One unit's error is not the others'.



-- some returns n values out of u from i on, each of one format, and where they end. Taking one apart costs as much as taking many. (The libraries are
-- there only once a function runs.)
local at_once = 128
local formats = {I2 = {}, I4c0 = {}}
local function some(kind, u, i, n)
  if n <= at_once then
    local f = formats[kind][n]
    if not f then
      f = '<' .. string.rep(kind, n)
      formats[kind][n] = f
    end
    local all = {struct.unpack(f, u, i)}
    return all, all[n + 1]
  end
  local all = {}
  while #all < n do
    local from, few = #all, nil
    few, i = some(kind, u, i, math.min(n - from, at_once))
    for k = 1, math.min(n - from, at_once) do
      all[from + k] = few[k]
    end
  end
  return all, i
end

-- Units of one kind have the same numbers, so those of the last few kinds are kept apart already.
local shapes, shapes_known = {}, 0
local shapes_most = 1000

-- parts returns the numbers of a unit and its strings.
local function parts(u)
  local n, s = struct.unpack('<I4I4', u)
  local head = string.sub(u, 9, 8 + 2 * n)
  local numbers = shapes[head]
  if not numbers then
    if shapes_known == shapes_most then
      shapes, shapes_known = {}, 0
    end
    numbers = some('I2', u, 9, n)
    shapes[head], shapes_known = numbers, shapes_known + 1
  end
  return numbers, (some('I4c0', u, 9 + 2 * n, s))
end

-- standing returns lineage and clock, or what to answer instead. A replica answers nothing: what it has seen may be old, or of another history.
-- Nothing is changed in a slot that is leaving this node of a cluster: a key that does not exist here may exist there, and a
-- function that made it anew would stop in the middle. That is so if a key that is nowhere is not ours.
local function standing(now, probe)
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    return nil, redis.error_reply('READONLY carillon: this node is a replica')
  end
  if probe ~= '' then
    local r = redis.pcall('EXISTS', probe)
    if type(r) == 'table' then
      return nil, redis.error_reply('TRYAGAIN carillon: the slot is leaving this node')
    end
  end
  if now == '' then
    local t = redis.call('TIME')
    now = string.format('%d%03d', t[1], math.floor(tonumber(t[2]) / 1000))
  end
  return string.sub(string.match(info, 'master_replid:(%x+)'), 1, 15), now
end

-- A log of changes is a list of the newest changes in a shard, numbered without a gap; before them stands 'first:origin', the number of the first one
-- that is kept and of the first that there ever was. Numbers are made from the time at which the log began, so that those of two logs differ.
local per_ms = 16

-- note adds an entry to a log. That it keeps no more than it should, and does not expire, is seen to now and then.
local function note(key, entry, kept, idle, now)
  local n = redis.pcall('RPUSH', key, entry)
  if type(n) == 'table' then
    return n
  end
  if n == 1 then
    local first = string.format('%d', tonumber(now) * per_ms + 1)
    redis.call('LPUSH', key, first .. ':' .. first)
    redis.call('PEXPIRE', key, 2 * idle)
  elseif n % 64 == 0 then
    redis.call('PEXPIRE', key, 2 * idle)
    local over = n - 1 - kept
    if over > 0 then
      local first, origin = string.match(redis.call('LINDEX', key, 0), '(%d+):(%d+)')
      redis.call('LTRIM', key, over + 1, -1)
      redis.call('LPUSH', key, string.format('%d', tonumber(first) + over) .. ':' .. origin)
    end
  end
end

-- announce notes a change of a user's slot if the user has a session, and returns the rooms that hold one, or nothing if none does. Of each of a
-- user's sessions there is its length in two bytes, the length of its room's name in one, and the name; an entry of the log is the number of rooms, those, each behind its length, and the change.
local function announce(sessions_key, log, kept, idle, user, change, now)
  local sessions = redis.pcall('HGET', sessions_key, user)
  if not sessions then
    return nil
  elseif type(sessions) == 'table' then
    return sessions
  end
  local rooms, seen, names, from = {}, {}, '', 1
  while from < #sessions and #rooms < 255 do
    local high, low, n = string.byte(sessions, from, from + 2)
    local room = string.sub(sessions, from + 2, from + 2 + n)
    from = from + 2 + high * 256 + low
    if not seen[room] then
      seen[room] = true
      rooms[#rooms + 1] = string.sub(room, 2)
      names = names .. room
    end
  end
  if #rooms > 0 then
    local failed = note(log, string.char(#rooms) .. names .. change, kept, idle, now)
    if failed then
      return failed
    end
  end
  return rooms
end

-- since returns {next, trimmed, entries} of a log after a number: all that is kept if that is 0, or not of this log. A log that is not there
-- had nothing to tell since a point that is young enough: had it been there it still would be.
local function since(key, kept, idle, of, after, lineage, now)
  after = tonumber(after)
  local all = of == 0 and after == 0
  local ours = of == tonumber(string.sub(lineage, 12, 15), 16) % 32768 + 32768
  local header = redis.call('LINDEX', key, 0)
  if not header then
    local present = tonumber(now) * per_ms
    if all or not ours or after > present or after < present - idle * per_ms then
      return {string.format('%d', present), (all and 0) or 1, {}}
    elseif after < present - idle * per_ms / 2 then
      after = present
    end
    return {string.format('%d', after), 0, {}}
  end
  local first, origin = string.match(header, '(%d+):(%d+)')
  first, origin = tonumber(first), tonumber(origin)
  local last = first + redis.call('LLEN', key) - 2
  local oldest, from, trimmed = math.max(first, last - kept + 1), 0, 0
  if all then
    from = oldest
    trimmed = (oldest > origin and 1) or 0
  elseif ours and after >= oldest - 1 and after <= last then
    from = after + 1
  elseif ours and oldest == origin and after < origin and after >= origin - idle * per_ms then
    from = oldest
  else
    from, trimmed = oldest, 1
  end
  local entries = {}
  if from <= last then
    entries = redis.call('LRANGE', key, from - first + 1, last - first + 1)
  end
  return {string.format('%d', last), trimmed, entries}
end

-- nothing returns a list of n empty replies.
local function nothing(n)
  local list = {}
  for i = 1, n do
    list[i] = false
  end
  return list
end

-- run runs commands: how many stands at numbers[n], and their texts begin at texts[s]. The unit's keys are those behind the base-th. It returns
-- the replies that are asked for, 1 if there is nothing in them, or the text of the first error.
local function run(keys, base, numbers, texts, n, s, lineage, now)
  local replies, asked, call = nil, 0, redis.pcall
  local commands = numbers[n]
  n = n + 1
  for _ = 1, commands do
    local kind, key, r = numbers[n], keys[base + numbers[n + 1]]
    if kind == 0 or kind == 3 then
      local args = numbers[n + 2]
      if args == 1 then
        r = call(texts[s], key, texts[s + 1])
      elseif args == 2 then
        r = call(texts[s], key, texts[s + 1], texts[s + 2])
      else
        r = call(texts[s], key, unpack(texts, s + 1, s + args))
      end
      n, s = n + 3, s + 1 + args
    elseif kind == 1 then
      r = announce(key, keys[base + numbers[n + 2]], numbers[n + 3], numbers[n + 4] * 1000, texts[s], texts[s + 1], now)
      n, s = n + 5, s + 2
    else
      r = since(key, numbers[n + 2], numbers[n + 3] * 1000, numbers[n + 4], texts[s], lineage, now)
      n, s = n + 5, s + 1
    end
    if type(r) == 'table' and r.err then
      return r.err
    end
    if kind ~= 3 then
      asked = asked + 1
      if r then
        replies = replies or nothing(asked - 1)
        replies[asked] = r
      elseif replies then
        replies[asked] = false
      end
    end
  end
  return replies or 1
end

-- read: a unit is its number of keys and its commands.
local function read(keys, args)
  local lineage, now = standing(args[1], '')
  if not lineage then
    return now
  end
  local answers, base, named = {}, 0, #keys > 0
  for a = 3, #args do
    local numbers, texts = parts(args[a])
    local first = 1
    if not named then
      keys, first = texts, numbers[1] + 1
    end
    answers[a - 2] = run(keys, base, numbers, texts, 2, first, lineage, now)
    if named then
      base = base + numbers[1]
    end
  end
  return {lineage, now, answers}
end

-- differs reports whether a value is another than the one that is told: whether there is one, and which.
local function differs(is, there, was)
  if there == 0 then
    return is and true
  end
  return is ~= was
end

-- holds reports whether all conditions hold: the string at a key, fields of a hash, or how many it has. How many conditions there are stands at numbers[n], and
-- their texts begin at texts[s]. It returns where commands and their texts begin, or the text of an error if it cannot tell.
local function holds(keys, base, numbers, texts, n, s)
  local conditions = numbers[n]
  n = n + 1
  for _ = 1, conditions do
    local key, fields = keys[base + numbers[n]], numbers[n + 1]
    if fields <= 1 or fields == 65535 then
      local is
      if fields == 0 then
        is = redis.pcall('GET', key)
      elseif fields == 1 then
        is = redis.pcall('HGET', key, texts[s])
        s = s + 1
      else
        is = redis.pcall('HLEN', key)
        is = type(is) == 'number' and string.format('%d', is) or is
      end
      if type(is) == 'table' then
        return false, is.err
      end
      local there = numbers[n + 2]
      if differs(is, there, texts[s]) then
        return false
      end
      n, s = n + 3, s + there
    else
      local is = redis.pcall('HMGET', key, unpack(texts, s, s + fields - 1))
      if is.err then
        return false, is.err
      end
      s = s + fields
      for f = 1, fields do
        local there = numbers[n + 1 + f]
        if differs(is[f], there, texts[s]) then
          return false
        end
        s = s + there
      end
      n = n + 2 + fields
    end
  end
  return true, n, s
end

-- write: a unit is its number of keys, whether it was made under a lineage and which, its conditions, and its commands. It is applied whole or
-- not at all.
local function write(keys, args)
  local lineage, now = standing(args[1], args[2])
  if not lineage then
    return now
  end
  local answers, base, named = {}, 0, #keys > 0
  for a = 3, #args do
    local numbers, texts = parts(args[a])
    local answer, under, first = 0, numbers[2], 1
    if not named then
      keys, first = texts, numbers[1] + 1
    end
    if under == 0 or texts[first] == lineage then
      local ok, n, s = holds(keys, base, numbers, texts, 3, first + under)
      if ok then
        answer = run(keys, base, numbers, texts, n, s, lineage, now)
      elseif n then
        answer = n
      end
    end
    answers[a - 2] = answer
    if named then
      base = base + numbers[1]
    end
  end
  return {lineage, now, answers}
end

redis.register_function{function_name = 'carillon_read_VERSION', callback = read, flags = {'no-writes'}}
redis.register_function{function_name = 'carillon_write_VERSION', callback = write}
-- The same for what only overwrites or frees, and has to go on when memory is full.
redis.register_function{function_name = 'carillon_free_VERSION', callback = write, flags = {'allow-oom'}}

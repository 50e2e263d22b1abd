#!lua name=carillon_VERSION
-- The functions of Carillon on Redis. What is decided is decided in Go, once for every store; here stands only what has to
-- happen in one step: reading several keys at one moment, and changing them if they still are what was read.
--
-- A call is FCALL name n key... now probe unit...: the keys of its units one after the other, the clock to go by in tests (empty: this
-- server's own), a key of no name in a cluster (see standing), and units as encode.go packs them. It returns {lineage, now, {answer...}}: the
-- first 15 digits of the primary's replication id, by which a client tells one history of the data from another, and milliseconds
-- since 1970. A unit's answer is the list of its commands' replies, 0 if what it was made from is no longer so, or the text of an error; one
-- unit's error is not the others'.



-- strings returns the format of n strings, each behind its length. (The libraries are there only once a function runs.)
local formats = {}
local function strings(n)
  local f = formats[n]
  if not f then
    f = '<' .. string.rep('I4c0', n)
    formats[n] = f
  end
  return f
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

-- announce notes a change of a user's slot if the user has a session, and returns the rooms that hold one. Of each of a user's sessions there is its length in
-- two bytes, the length of its room's name in one, and the name; an entry of the log is the number of rooms, those, each behind its length, and the change.
local function announce(keys, base, u, i, now)
  local all, log, kept, idle, user, change, at = struct.unpack('<I2I2I4I4I4c0I4c0', u, i)
  local sessions = redis.pcall('HGET', keys[base + all], user)
  local rooms = {}
  if not sessions then
    return at, rooms
  elseif type(sessions) == 'table' then
    return at, sessions
  end
  local seen, names, from = {}, '', 1
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
    local failed = note(keys[base + log], string.char(#rooms) .. names .. change, kept, idle, now)
    if failed then
      return at, failed
    end
  end
  return at, rooms
end

-- since returns {next, trimmed, entries} of a log after a number: all that is kept if that is 0, or not of this log. A log that is not there
-- had nothing to tell since a point that is young enough: had it been there it still would be.
local function since(keys, base, u, i, lineage, now)
  local log, kept, idle, of, after, at = struct.unpack('<I2I4I4I2Bc0', u, i)
  local key = keys[base + log]
  after = tonumber(after)
  local all = of == 0 and after == 0
  local ours = of == tonumber(string.sub(lineage, 12, 15), 16) % 32768 + 32768
  local header = redis.call('LINDEX', key, 0)
  if not header then
    local present = tonumber(now) * per_ms
    if all or not ours or after > present or after < present - idle * per_ms then
      return at, {string.format('%d', present), (all and 0) or 1, {}}
    elseif after < present - idle * per_ms / 2 then
      after = present
    end
    return at, {string.format('%d', after), 0, {}}
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
  return at, {string.format('%d', last), trimmed, entries}
end

-- command runs the command at u[i], whose unit's keys are those of the call behind the base-th, and returns where the next one begins, and the reply.
local function command(keys, base, u, i, lineage, now)
  local name, at = struct.unpack('<Bc0', u, i)
  if name == '!' then
    return announce(keys, base, u, at, now)
  elseif name == '?' then
    return since(keys, base, u, at, lineage, now)
  end
  local key, n
  key, n, at = struct.unpack('<I2I2', u, at)
  key = keys[base + key]
  if n == 0 then
    return at, redis.pcall(name, key)
  elseif n == 1 then
    local a, e = struct.unpack('<I4c0', u, at)
    return e, redis.pcall(name, key, a)
  elseif n == 2 then
    local a, b, e = struct.unpack('<I4c0I4c0', u, at)
    return e, redis.pcall(name, key, a, b)
  elseif n <= 32 then
    local list = {struct.unpack(strings(n), u, at)}
    return list[n + 1], redis.pcall(name, key, unpack(list, 1, n))
  end
  local list = {}
  for a = 1, n do
    list[a], at = struct.unpack('<I4c0', u, at)
  end
  return at, redis.pcall(name, key, unpack(list, 1, n))
end

-- run runs n commands from u[i] on and returns their replies, or the text of the first error.
local function run(keys, base, u, i, n, lineage, now)
  local replies = {}
  for c = 1, n do
    local r
    i, r = command(keys, base, u, i, lineage, now)
    if type(r) == 'table' and r.err then
      return r.err
    end
    replies[c] = r
  end
  return replies
end

-- read: a unit is its number of keys, its number of commands, and those.
local function read(keys, args)
  local lineage, now = standing(args[1], '')
  if not lineage then
    return now
  end
  local answers, base = {}, 0
  for a = 3, #args do
    local u = args[a]
    local nkeys, n, i = struct.unpack('<I2I2', u)
    answers[a - 2] = run(keys, base, u, i, n, lineage, now)
    base = base + nkeys
  end
  return {lineage, now, answers}
end

-- holds reports whether n values from u[i] on still are so: the string at a key, fields of a hash, or how many it has. A value is behind its length and a byte that says
-- whether there is one at all. It returns where the rest of the unit begins, and the text of an error if it cannot tell.
local function holds(keys, base, u, i, n)
  for _ = 1, n do
    local key, fields, at = struct.unpack('<I2I2', u, i)
    key = keys[base + key]
    if fields <= 1 or fields == 65535 then
      local is
      if fields == 0 then
        is = redis.pcall('GET', key)
      elseif fields == 1 then
        local f
        f, at = struct.unpack('<I4c0', u, at)
        is = redis.pcall('HGET', key, f)
      else
        is = redis.pcall('HLEN', key)
        is = type(is) == 'number' and string.format('%d', is) or is
      end
      if type(is) == 'table' then
        return false, at, is.err
      end
      local there, was
      there, was, i = struct.unpack('<BI4c0', u, at)
      if there == 0 and is or there == 1 and is ~= was then
        return false
      end
    else
      local names = {}
      for f = 1, fields do
        names[f], at = struct.unpack('<I4c0', u, at)
      end
      local is = redis.pcall('HMGET', key, unpack(names, 1, fields))
      if is.err then
        return false, at, is.err
      end
      for f = 1, fields do
        local there, was
        there, was, at = struct.unpack('<BI4c0', u, at)
        if there == 0 and is[f] or there == 1 and is[f] ~= was then
          return false
        end
      end
      i = at
    end
  end
  return true, i
end

-- write: a unit is its number of keys, the lineage that it was made under (empty for any), the number of its conditions and those, the number of its
-- commands and those. It is applied whole or not at all.
local function write(keys, args)
  local lineage, now = standing(args[1], args[2])
  if not lineage then
    return now
  end
  local answers, base = {}, 0
  for a = 3, #args do
    local u = args[a]
    local answer = 0
    local nkeys, under, conditions, i = struct.unpack('<I2Bc0I2', u)
    if under == '' or under == lineage then
      local ok, at, err = holds(keys, base, u, i, conditions)
      if err then
        answer = err
      elseif ok then
        local n
        n, at = struct.unpack('<I2', u, at)
        answer = run(keys, base, u, at, n, lineage, now)
      end
    end
    answers[a - 2] = answer
    base = base + nkeys
  end
  return {lineage, now, answers}
end

redis.register_function{function_name = 'carillon_read_VERSION', callback = read, flags = {'no-writes'}}
redis.register_function{function_name = 'carillon_write_VERSION', callback = write}
-- The same for what only overwrites or frees, and has to go on when memory is full.
redis.register_function{function_name = 'carillon_free_VERSION', callback = write, flags = {'allow-oom'}}

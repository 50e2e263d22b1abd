#!lua name=carillon
-- The functions of Carillon on Redis. What is decided is decided in Go, once for every store; here stands only what has to
-- happen in one step: reading several keys at one moment, and changing them if they still are what was read.
--
-- Keys of one call carry the same hash tag. Arguments are flat; numbers are decimal. Every call returns
-- {lineage, now, ...}: the first 15 digits of the primary's replication id, by which a client tells one history of the data
-- from another, and milliseconds since 1970 by the clock of this server (or the one that the call brought, in tests).

-- standing returns lineage and clock. A replica answers nothing: what it has seen may be old, or of another history.
local function standing(now)
  local info = redis.call('INFO', 'replication')
  if not string.find(info, 'role:master', 1, true) then
    return nil
  end
  if now == '' then
    local t = redis.call('TIME')
    now = string.format('%d%03d', t[1], math.floor(tonumber(t[2]) / 1000))
  end
  return string.sub(string.match(info, 'master_replid:(%x+)'), 1, 15), now
end

local function replica()
  return redis.error_reply('READONLY carillon: this node is a replica')
end

-- command runs one command whose name, key and arguments begin at args[i]: name, index of its key, number of further
-- arguments, those. It returns the reply and where the next one begins.
local function command(keys, args, i)
  local name, key, n = args[i], keys[tonumber(args[i + 1])], tonumber(args[i + 2])
  return redis.call(name, key, unpack(args, i + 3, i + 2 + n)), i + 3 + n
end

-- announce tells rooms that a user's slot grew: it appends the change to the log of each room that holds a session of the
-- user and follows this shard, and returns those rooms. args[i..]: index of the key of the user's sessions, prefix of logs, most entries a
-- log keeps, how long a log nobody reads is kept (ms), the change.
-- A session begins with the length of its room's name in one byte, then the name.
local function announce(keys, args, i)
  local sessions = redis.call('HVALS', keys[tonumber(args[i])])
  local rooms, seen = {}, {}
  for _, s in ipairs(sessions) do
    local room = string.sub(s, 2, 1 + string.byte(s, 1))
    if not seen[room] then
      seen[room] = true
      rooms[#rooms + 1] = room
      local log = args[i + 1] .. room
      local number = redis.call('HINCRBY', log .. ':n', 'next', 1)
      redis.call('RPUSH', log, args[i + 4])
      if number % 64 == 0 then
        redis.call('LTRIM', log, -tonumber(args[i + 2]), -1)
      end
      redis.call('PEXPIRE', log, args[i + 3])
      redis.call('PEXPIRE', log .. ':n', args[i + 3])
    end
  end
  return rooms, i + 5
end

-- read: ARGV = now, number of commands, commands. Returns {lineage, now, {reply...}}.
local function read(keys, args)
  local lineage, now = standing(args[1])
  if not lineage then
    return replica()
  end
  local replies, i = {}, 3
  for n = 1, tonumber(args[2]) do
    replies[n], i = command(keys, args, i)
  end
  return {lineage, now, replies}
end

-- holds reports whether what a unit was made from is still so. args[i..]: number of conditions; each: index of key, field ('' for the
-- key's own string value), '0' for "absent" or '1', and the value then.
local function holds(keys, args, i)
  local ok, n = true, tonumber(args[i])
  i = i + 1
  for _ = 1, n do
    local key, field, is = keys[tonumber(args[i])], args[i + 1], false
    if field == '' then
      is = redis.call('GET', key)
    else
      is = redis.call('HGET', key, string.sub(field, 2))
    end
    if args[i + 2] == '0' then
      ok = ok and not is
      i = i + 3
    else
      ok = ok and is == args[i + 3]
      i = i + 4
    end
  end
  return ok, i
end

-- write: ARGV = now, number of units, units. A unit: lineage that it was made under ('' for any), where the next unit begins (relative), conditions,
-- number of commands, commands; a command named '!' is an announcement. A unit is applied whole or not at all. Returns {lineage, now, {unit...}}: a unit is
-- 0 if it was not applied, else its commands' replies.
local function write(keys, args)
  local lineage, now = standing(args[1])
  if not lineage then
    return replica()
  end
  local units, i = {}, 3
  for u = 1, tonumber(args[2]) do
    local under, next_unit = args[i], i + tonumber(args[i + 1])
    units[u] = 0
    if under == '' or under == lineage then
      local ok, at = holds(keys, args, i + 2)
      if ok then
        local replies, n = {}, tonumber(args[at])
        at = at + 1
        for c = 1, n do
          if args[at] == '!' then
            replies[c], at = announce(keys, args, at + 1)
          else
            replies[c], at = command(keys, args, at)
          end
        end
        units[u] = replies
      end
    end
    i = next_unit
  end
  return {lineage, now, units}
end

redis.register_function{function_name = 'carillon_read', callback = read, flags = {'no-writes'}}
redis.register_function{function_name = 'carillon_write', callback = write}
-- The same for what only overwrites or frees, and has to go on when memory is full.
redis.register_function{function_name = 'carillon_free', callback = write, flags = {'allow-oom'}}

-- A replica's heartbeat: it lives; what changed since it looked last?
--
-- KEYS[1..6]  as in control_put.lua
-- KEYS[7]     replicas (sorted set by last heartbeat, epoch seconds)
-- KEYS[8]     name of this store's data: lost with it
-- KEYS[9]     highest version among tombstones that were thrown away
-- KEYS[10]    schema of this store's data: "<written by> <oldest version that reads it>"
-- ARGV        1 replica, 2 seconds until a silent replica is gone, 3 changes since this
--             version, 4 seconds that tombstones are kept, 5 a name for new data, 6 most changes,
--             7 schema to write down where there is none, or an older one
-- Reply       [seconds, microseconds, data name, live documents, checksum, replicas,
--              highest thrown away, last version told, schema, records...]
--
-- Where the store takes no writes the heartbeat is lost, the answer isn't.

local time = redis.call('TIME')
local now = tonumber(time[1])
local beat = redis.pcall('ZADD', KEYS[7], now, ARGV[1])
local writable = type(beat) ~= 'table'
local data = redis.call('GET', KEYS[8])
if writable then
  redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now - tonumber(ARGV[2]))
  if not data then redis.call('SET', KEYS[8], ARGV[5]) end
end
data = data or ARGV[5]

local schema = redis.call('GET', KEYS[10])
if not schema or tonumber(string.match(schema, '^%d+')) < tonumber(string.match(ARGV[7], '^%d+')) then
  if writable then redis.call('SET', KEYS[10], ARGV[7]) end
  schema = ARGV[7]
end

local checksum = tonumber(redis.call('GET', KEYS[6]) or '0')
local expired = not writable and {} or redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'LIMIT', 0, 500)
for _, name in ipairs(expired) do
  local version = redis.call('ZSCORE', KEYS[3], name)
  if version and redis.call('HDEL', KEYS[1], name) == 1 then
    checksum = bit.bxor(checksum, tonumber(version) % 4294967296)
  end
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
if #expired > 0 then redis.call('SET', KEYS[6], string.format('%.0f', checksum)) end

local old = not writable and {} or redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now - tonumber(ARGV[4]), 'LIMIT', 0, 500)
local dropped = tonumber(redis.call('GET', KEYS[9]) or '0')
for _, name in ipairs(old) do
  local version = redis.call('ZSCORE', KEYS[3], name)
  if version then dropped = math.max(dropped, tonumber(version)) end
  redis.call('ZREM', KEYS[5], name)
  if redis.call('HDEL', KEYS[2], name) == 1 then redis.call('ZREM', KEYS[3], name) end
end
if #old > 0 then redis.call('SET', KEYS[9], string.format('%.0f', dropped)) end

local names = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[3], '+inf',
  'WITHSCORES', 'LIMIT', 0, ARGV[6])
local reply = {
  time[1], time[2], data,
  redis.call('HLEN', KEYS[1]), string.format('%.0f', checksum % 4294967296),
  redis.call('ZCARD', KEYS[7]), string.format('%.0f', dropped),
  #names > 0 and names[#names] or ARGV[3], schema,
}
for i = 1, #names, 2 do
  local record = redis.call('HGET', KEYS[1], names[i]) or redis.call('HGET', KEYS[2], names[i])
  if record then reply[#reply + 1] = record end
end
return reply

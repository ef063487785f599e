-- Write one document if it is at the version expected.
--
-- KEYS[1]  the document: [version, at, body] in MessagePack
-- KEYS[2]  time index of its kind
-- KEYS[3]  expiries of its kind
-- ARGV     1 id, 2 at, 3 body, 4 expected version ("" any, "0" must not exist),
--          5 seconds to live or "", 6 key prefix of the kind
-- Reply    new version, or 0 where the expectation did not hold

local now = redis.call('TIME')
local known = redis.call('GET', KEYS[1])
local version = known and cmsgpack.unpack(known)[1] or 0
if ARGV[4] ~= '' and tonumber(ARGV[4]) ~= version then return 0 end

-- A document that was deleted and comes back never reuses a version.
version = known and version + 1 or now[1] * 1000000 + now[2]
redis.call('SET', KEYS[1], cmsgpack.pack({ version, tonumber(ARGV[2]), ARGV[3] }))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
if ARGV[5] ~= '' then
  redis.call('EXPIRE', KEYS[1], ARGV[5])
  redis.call('ZADD', KEYS[3], now[1] + ARGV[5], ARGV[1])
else
  redis.call('ZREM', KEYS[3], ARGV[1])
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now[1] - 1, 'LIMIT', 0, 20)) do
  redis.call('ZREM', KEYS[3], id)
  if redis.call('EXISTS', ARGV[6] .. id) == 0 then redis.call('ZREM', KEYS[2], id) end
end
return version

-- Put or delete one control document, unless a newer version is known.
--
-- KEYS[1]  live documents (hash: name -> record)
-- KEYS[2]  tombstones (hash: name -> record)
-- KEYS[3]  versions of both (sorted set)
-- KEYS[4]  expiries of live ones (sorted set, epoch seconds)
-- KEYS[5]  when tombstones were made (sorted set, epoch seconds)
-- KEYS[6]  checksum of the live ones: exclusive or of version modulo 2^32
-- ARGV     1 name, 2 version, 3 record, 4 "1" for a deletion, 5 expiry or "", 6 channel
-- Reply    [1] taken, or [0, record known]

local name, version = ARGV[1], tonumber(ARGV[2])
local known = redis.call('ZSCORE', KEYS[3], name)
if known and tonumber(known) >= version then
  return { 0, redis.call('HGET', KEYS[1], name) or redis.call('HGET', KEYS[2], name) or '' }
end

local checksum = tonumber(redis.call('GET', KEYS[6]) or '0')
if known and redis.call('HEXISTS', KEYS[1], name) == 1 then
  checksum = bit.bxor(checksum, tonumber(known) % 4294967296)
end

redis.call('ZADD', KEYS[3], ARGV[2], name)
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[2], name, ARGV[3])
  redis.call('ZADD', KEYS[5], redis.call('TIME')[1], name)
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[4], name)
else
  redis.call('HSET', KEYS[1], name, ARGV[3])
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[5], name)
  checksum = bit.bxor(checksum, version % 4294967296)
  if ARGV[5] ~= '' then
    redis.call('ZADD', KEYS[4], ARGV[5], name)
  else
    redis.call('ZREM', KEYS[4], name)
  end
end
redis.call('SET', KEYS[6], string.format('%.0f', checksum))
redis.call('PUBLISH', ARGV[6], ARGV[3])
return { 1 }

-- Remove one document and its places in the indexes.
--
-- KEYS[1]  the document, KEYS[2] time index, KEYS[3] expiries
-- ARGV     1 id

redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1

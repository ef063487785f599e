-- Who leads a lane: the holder stays while it comes back in time.
--
-- KEYS[1]  the lane
-- ARGV     1 candidate, 2 milliseconds
-- Reply    1 where the candidate leads now

local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1

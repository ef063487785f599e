-- The buckets of one series. Reads only.
--
-- KEYS     the chunks that hold them
-- ARGV     1 buckets a chunk, 2 first bucket, 3 last bucket, 4... chunk numbers
-- Reply    [bucket, sums...]... in no order

local width, first, last = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local rows = {}
for k, key in ipairs(KEYS) do
  local chunk = tonumber(ARGV[3 + k])
  local all = redis.pcall('HGETALL', key)
  for i = 1, all.err and 0 or #all, 2 do
    local bucket = chunk * width + tonumber(all[i])
    if bucket >= first and bucket <= last then
      rows[#rows + 1] = { bucket, unpack(cmsgpack.unpack(all[i + 1])) }
    end
  end
end
return rows

-- Sum one page of a dimension's series over a window. Reads only.
--
-- KEYS[1]  index of the dimension
-- ARGV     1 key prefix of the shard
--          2 least last activity, epoch seconds; older series aren't visited
--          3 offset, 4 page size
--          5 JSON list of spans [letter, chunk, first bucket, last bucket]
-- Reply    [[members seen], [value, sums...]...]

local prefix = ARGV[1]
local spans = cjson.decode(ARGV[5])
local members = redis.call('ZREVRANGEBYSCORE', KEYS[1], '+inf', ARGV[2],
  'LIMIT', ARGV[3], ARGV[4])
local rows = { { #members } }

for _, member in ipairs(members) do
  local id = string.sub(member, 1, 12)
  local sums = {}
  for _, span in ipairs(spans) do
    local letter, width, first, last = span[1], span[2], span[3], span[4]
    for chunk = math.floor(first / width), math.floor(last / width) do
      local all = redis.pcall('HGETALL', prefix .. 'c:' .. id .. ':' .. letter .. chunk)
      -- A key of a wrong type counts nothing; one that has moved away is an error.
      if all.err and not string.find(all.err, 'WRONGTYPE', 1, true) then return all end
      for i = 1, all.err and 0 or #all, 2 do
        local bucket = chunk * width + tonumber(all[i])
        if bucket >= first and bucket <= last then
          local counts = cmsgpack.unpack(all[i + 1])
          for n = 1, #counts do sums[n] = (sums[n] or 0) + counts[n] end
        end
      end
    end
  end
  if #sums > 0 then
    rows[#rows + 1] = { string.sub(member, 13), unpack(sums) }
  end
end
return rows

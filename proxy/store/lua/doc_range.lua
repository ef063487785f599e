-- Documents of a kind whose time lies in a range. Reads only.
--
-- KEYS[1]  time index of the kind
-- ARGV     1 from, 2 to, 3 most documents, 4 "1" for newest first, 5 key prefix of the kind
-- Reply    [id, version, at, body]...

local first = ARGV[4] == '1' and 'ZREVRANGEBYSCORE' or 'ZRANGEBYSCORE'
local low, high = ARGV[1], ARGV[2]
if ARGV[4] == '1' then low, high = high, low end
local reply, offset, most = {}, 0, tonumber(ARGV[3])
while #reply < most do
  local ids = redis.call(first, KEYS[1], low, high, 'LIMIT', offset, 100)
  for _, id in ipairs(ids) do
    local packed = redis.call('GET', ARGV[5] .. id)
    if packed and #reply < most then
      local row = cmsgpack.unpack(packed)
      reply[#reply + 1] = { id, row[1], string.format('%.17g', row[2]), row[3] }
    end
  end
  offset = offset + #ids
  if #ids < 100 then break end
end
return reply

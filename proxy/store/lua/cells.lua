-- Some buckets of many series of one shard, as they are stored. Reads only.
--
-- KEYS[1]  index of their dimension, which says where the shard lives
-- ARGV     1 key prefix of the shard
--          2 ids of the series, 12 characters each, one after another
--          3 JSON list of [letter and number of a chunk, {field: number}]: the wanted
--            buckets, each with a number of the caller's choice below 65536
-- Reply    four strings: of each series how many buckets hold something (16 bits,
--          little-endian); of each such bucket its number (16 bits) and the length
--          of its counts (8 bits); and the packed counts themselves

local MOST_BY_NAME = 16
local prefix, ids = ARGV[1], ARGV[2]
local chunks = {}
for c, chunk in ipairs(cjson.decode(ARGV[3])) do
  local fields, numbers = {}, {}
  for field, number in pairs(chunk[2]) do
    fields[#fields + 1] = field
    numbers[field] = struct.pack('<H', number)
  end
  -- The server finds a few of many faster than it hands over all.
  chunks[c] = { ':' .. chunk[1], #fields <= MOST_BY_NAME and fields, numbers }
end

local sizes = {}
for n = 0, 255 do sizes[n] = string.char(n) end
local held, numbers, lengths, cells = {}, {}, {}, {}
local count = 0

for start = 1, #ids, 12 do
  local key = prefix .. 'c:' .. string.sub(ids, start, start + 11)
  local before = count
  for _, chunk in ipairs(chunks) do
    local fields, number = chunk[2], chunk[3]
    local found
    if fields then
      found = redis.pcall('HMGET', key .. chunk[1], unpack(fields))
    else
      found = redis.pcall('HGETALL', key .. chunk[1])
    end
    -- A key of a wrong type holds nothing; one that has moved away is an error.
    if found.err then
      if not string.find(found.err, 'WRONGTYPE', 1, true) then return found end
    elseif fields then
      for i = 1, #fields do
        local packed = found[i]
        if packed then
          count = count + 1
          numbers[count], lengths[count], cells[count] = number[fields[i]], sizes[#packed], packed
        end
      end
    else
      for i = 1, #found, 2 do
        local wanted = number[found[i]]
        if wanted then
          local packed = found[i + 1]
          count = count + 1
          numbers[count], lengths[count], cells[count] = wanted, sizes[#packed], packed
        end
      end
    end
  end
  held[#held + 1] = struct.pack('<H', count - before)
end
return { table.concat(held), table.concat(numbers), table.concat(lengths), table.concat(cells) }

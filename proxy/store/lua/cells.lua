-- Buckets of many series of one shard as they are stored. Reads only.
--
-- KEYS[1]  index of their dimension, which says where the shard lives
-- ARGV     1 key prefix of the shard
--          2 ids of the series, 12 characters each, one after another
--          3 JSON list of spans [letter, buckets a chunk, first bucket, last bucket]
-- Reply    [places, cells]: per bucket that holds something four little-endian
--          16-bit numbers (series, span, bucket, bytes; all but the last count
--          from 0, the bucket from its span's first), and the packed counts
--          themselves, in the same order

local prefix, ids = ARGV[1], ARGV[2]
local spans = cjson.decode(ARGV[3])
local places, cells = {}, {}

local function take(number, place, offset, packed)
  places[#places + 1] = struct.pack('<HHHH', number, place, offset, #packed)
  cells[#cells + 1] = packed
end

for number = 0, #ids / 12 - 1 do
  local id = string.sub(ids, number * 12 + 1, number * 12 + 12)
  for place, span in ipairs(spans) do
    local letter, width, first, last = span[1], span[2], span[3], span[4]
    for chunk = math.floor(first / width), math.floor(last / width) do
      local key = prefix .. 'c:' .. id .. ':' .. letter .. chunk
      local from = math.max(first, chunk * width)
      local till = math.min(last, chunk * width + width - 1)
      if till - from < 8 then
        -- A few of many: the server finds them faster than it hands over all.
        local fields = {}
        for bucket = from, till do fields[#fields + 1] = bucket % width end
        local found = redis.pcall('HMGET', key, unpack(fields))
        if found.err and not string.find(found.err, 'WRONGTYPE', 1, true) then return found end
        for i = 1, found.err and 0 or #fields do
          if found[i] then take(number, place - 1, from + i - 1 - first, found[i]) end
        end
      else
        local all = redis.pcall('HGETALL', key)
        if all.err and not string.find(all.err, 'WRONGTYPE', 1, true) then return all end
        for i = 1, all.err and 0 or #all, 2 do
          local bucket = chunk * width + tonumber(all[i])
          if bucket >= from and bucket <= till then
            take(number, place - 1, bucket - first, all[i + 1])
          end
        end
      end
    end
  end
end
return { table.concat(places), table.concat(cells) }

-- Count one batch of a replica exactly once, and tell what the fleet counted.
--
-- KEYS[1]  last record counted of this replica
-- ARGV     1 key prefix of the shard
--          2 from: the batch holds the records (from, to]
--          3 to
--          4 "1" where the replica starts afresh (nothing is known of it here)
--          5 how many recent 10 s buckets to answer, 0 for none
--          6 most members of one dimension's index
--          7 JSON {r: resolutions, o: {dimension: id of "other"}, s: entries}
--            an entry is [[id, dimension, value, id, ...], 10 s bucket, [counts]]:
--            what calls of one caller add to each of its series
-- Reply    [status, last, seconds, microseconds, alarms, buckets]
--          status 1 counted, 0 counted before, -1 not the next batch: send what
--          follows `last` (-1: nothing is known of this replica)

local prefix, from, to = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1])
local last = redis.call('GET', KEYS[1])

if last then
  last = tonumber(last)
  if last >= to then return { 0, last, time[1], time[2] } end
  if last ~= from then return { -1, last, time[1], time[2] } end
elseif ARGV[4] ~= '1' then
  return { -1, -1, time[1], time[2] }
end

-- First of all writes, and one that a full store refuses: all or nothing.
redis.call('SET', KEYS[1], ARGV[3], 'EX', 34560000)

local batch = cjson.decode(ARGV[7])
local resolutions = batch.r
local bound = tonumber(ARGV[6])
local alarms = {}

-- Read a field; a key of a wrong type is moved aside, so that it spoils itself alone.
local function field_of(key, field)
  local packed = redis.pcall('HGET', key, field)
  if type(packed) ~= 'table' then return packed end
  redis.call('RENAME', key, prefix .. 'aside:' .. key)
  redis.call('EXPIRE', prefix .. 'aside:' .. key, 604800)
  alarms[#alarms + 1] = key
  return false
end

local function score_of(key, member)
  local score = redis.pcall('ZSCORE', key, member)
  if type(score) ~= 'table' then return score end
  redis.call('RENAME', key, prefix .. 'aside:' .. key)
  alarms[#alarms + 1] = key
  return false
end

local function chunk_key(id, resolution, bucket)
  return prefix .. 'c:' .. id .. ':' .. resolution[1] .. math.floor(bucket / resolution[3])
end

local function trimmed(counts)
  for i = #counts, 1, -1 do
    if counts[i] ~= 0 then break end
    counts[i] = nil
  end
  return cmsgpack.pack(counts)
end

-- Add to one bucket, of which `packed` is known already or not; true where it is new.
local function add(id, resolution, start, counts, packed)
  local bucket = math.floor(start / resolution[2])
  local key = chunk_key(id, resolution, bucket)
  local field = bucket % resolution[3]
  if packed == nil then packed = field_of(key, field) end
  if packed then
    local sums = cmsgpack.unpack(packed)
    for i = 1, math.max(#sums, #counts) do
      sums[i] = (sums[i] or 0) + (counts[i] or 0)
    end
    redis.call('HSET', key, field, cmsgpack.pack(sums))
    return false
  end
  redis.call('HSET', key, field, trimmed(counts))
  local ends = (math.floor(bucket / resolution[3]) + 1) * resolution[3] * resolution[2]
  redis.call('EXPIREAT', key, math.max(ends, now) + resolution[4])
  return true
end

-- What each series gets in each bucket, in the order of its first entry.
local cells, order = {}, {}
for _, entry in ipairs(batch.s) do
  local names, start, counts = entry[1], entry[2] * 10, entry[3]
  local same = cells[start]
  if not same then
    same = {}
    cells[start] = same
  end
  for n = 1, #names, 3 do
    local cell = same[names[n]]
    if cell then
      local sums = cell[5]
      for i = 1, math.max(#sums, #counts) do
        sums[i] = (sums[i] or 0) + (counts[i] or 0)
      end
    else
      cell = { names[n], names[n + 1], names[n + 2], start, { unpack(counts) } }
      same[names[n]] = cell
      order[#order + 1] = cell
    end
  end
end

local day = resolutions[4]
local touched, late = {}, {}

for _, cell in ipairs(order) do
  local id, dimension, value, start, counts = unpack(cell)
  local index = prefix .. 'i:' .. dimension
  local bucket = math.floor(start / day[2])
  local known = field_of(chunk_key(id, day, bucket), bucket % day[3])
  if not known then
    if not score_of(index, id .. value) and redis.call('ZCARD', index) >= bound then
      id, value, known = batch.o[dimension], 'other', nil
    end
  end
  local new = start + day[2] + day[4] > now and add(id, day, start, counts, known)
  for n = 1, 3 do
    local resolution = resolutions[n]
    if start + resolution[2] + resolution[4] > now then
      new = add(id, resolution, start, counts) or new
    end
  end
  if new then
    local seen = score_of(index, id .. value)
    if not seen or tonumber(seen) < start then
      redis.call('ZADD', index, start, id .. value)
    end
  end
  -- Whoever keeps sums of what is past reads these again.
  if start + 60 < now then
    local name = prefix .. 'l:' .. dimension
    redis.pcall('ZADD', name, now, id)
    late[name] = true
  end
  touched[cell[1]] = touched[cell[1]] or id
end
for name in pairs(late) do redis.pcall('EXPIRE', name, 3600) end

local buckets = {}
local back = tonumber(ARGV[5])
if back > 0 then
  local ten = resolutions[1]
  local newest = math.floor(now / ten[2])
  local first = math.floor((newest - back + 1) / ten[3])
  for asked, id in pairs(touched) do
    local row = { asked }
    for chunk = first, math.floor(newest / ten[3]) do
      local from = math.max(newest - back + 1, chunk * ten[3])
      local to = math.min(newest, chunk * ten[3] + ten[3] - 1)
      local fields = {}
      for bucket = from, to do fields[#fields + 1] = bucket % ten[3] end
      local found = redis.pcall('HMGET', chunk_key(id, ten, from), unpack(fields))
      for n, packed in ipairs(found) do
        if packed then row[#row + 1] = { from + n - 1, unpack(cmsgpack.unpack(packed)) } end
      end
    end
    buckets[#buckets + 1] = row
  end
end

return { 1, to, time[1], time[2], alarms, buckets }

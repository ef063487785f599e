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
--            an entry is [id, dimension, value, 10 s bucket, [counts]]
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

-- Add to one bucket; true where it is new.
local function add(id, resolution, start, counts)
  local bucket = math.floor(start / resolution[2])
  local key = chunk_key(id, resolution, bucket)
  local field = bucket % resolution[3]
  local packed = field_of(key, field)
  if packed then
    local sums = cmsgpack.unpack(packed)
    for i = 1, math.max(#sums, #counts) do
      sums[i] = (sums[i] or 0) + (counts[i] or 0)
    end
    redis.call('HSET', key, field, cmsgpack.pack(sums))
    return false
  end
  redis.call('HSET', key, field, cmsgpack.pack(counts))
  local ends = (math.floor(bucket / resolution[3]) + 1) * resolution[3] * resolution[2]
  redis.call('EXPIREAT', key, math.max(ends, now) + resolution[4])
  return true
end

local touched, order, late = {}, {}, {}

for _, entry in ipairs(batch.s) do
  local id, dimension, value, start, counts = entry[1], entry[2], entry[3], entry[4] * 10, entry[5]
  local index = prefix .. 'i:' .. dimension
  local day = resolutions[4]
  local bucket = math.floor(start / day[2])
  if not field_of(chunk_key(id, day, bucket), bucket % day[3]) then
    if not score_of(index, id .. value) and redis.call('ZCARD', index) >= bound then
      id, value = batch.o[dimension], 'other'
    end
  end
  local new = false
  for _, resolution in ipairs(resolutions) do
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
  if not touched[entry[1]] then
    touched[entry[1]] = id
    order[#order + 1] = entry[1]
  end
end

for name in pairs(late) do redis.pcall('EXPIRE', name, 3600) end

local buckets = {}
local back = tonumber(ARGV[5])
if back > 0 then
  local ten = resolutions[1]
  local newest = math.floor(now / ten[2])
  for number, id in ipairs(order) do
    local row = { number - 1 }
    for bucket = newest - back + 1, newest do
      local packed = field_of(chunk_key(touched[id], ten, bucket), bucket % ten[3])
      if packed then
        local sums = cmsgpack.unpack(packed)
        row[#row + 1] = { bucket, unpack(sums) }
      end
    end
    buckets[number] = row
  end
end

return { 1, to, time[1], time[2], alarms, buckets }

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

local call, pcall = redis.call, redis.pcall
local prefix, from, to = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = call('TIME')
local now = tonumber(time[1])
local last = call('GET', KEYS[1])

if last then
  last = tonumber(last)
  if last >= to then return { 0, last, time[1], time[2] } end
  if last ~= from then return { -1, last, time[1], time[2] } end
elseif ARGV[4] ~= '1' then
  return { -1, -1, time[1], time[2] }
end

-- First of all writes, and one that a full store refuses: all or nothing.
call('SET', KEYS[1], ARGV[3], 'EX', 34560000)

local batch = cjson.decode(ARGV[7])
local resolutions = batch.r
local bound = tonumber(ARGV[6])
local alarms = {}

-- Read a field; a key of a wrong type is moved aside, so that it spoils itself alone.
local function field_of(key, field)
  local packed = pcall('HGET', key, field)
  if type(packed) ~= 'table' then return packed end
  call('RENAME', key, prefix .. 'aside:' .. key)
  call('EXPIRE', prefix .. 'aside:' .. key, 604800)
  alarms[#alarms + 1] = key
  return false
end

local function score_of(key, member)
  local score = pcall('ZSCORE', key, member)
  if type(score) ~= 'table' then return score end
  call('RENAME', key, prefix .. 'aside:' .. key)
  alarms[#alarms + 1] = key
  return false
end

local function chunk_key(id, resolution, bucket)
  return prefix .. 'c:' .. id .. ':' .. resolution[1] .. math.floor(bucket / resolution[3])
end

-- Without the zeros at its end, which most counts have several of.
local function trim(counts)
  for i = #counts, 1, -1 do
    if counts[i] ~= 0 then break end
    counts[i] = nil
  end
end

-- Where a 10 s bucket counts, per resolution: the end of the key, the field, when the key
-- may go, and whether it is kept at all by now. Worked out once for all series.
local places = {}
local function places_of(start)
  local found = places[start]
  if found then return found end
  found = {}
  for n, resolution in ipairs(resolutions) do
    local _, seconds, width, keep = unpack(resolution)
    local bucket = math.floor(start / seconds)
    local chunk = math.floor(bucket / width)
    found[n] = {
      ':' .. resolution[1] .. chunk,
      tostring(bucket % width),
      math.max((chunk + 1) * width * seconds, now) + keep,
      start + seconds + keep > now,
    }
  end
  places[start] = found
  return found
end

-- Add to one bucket, of which `packed` is known already or not; true where it is new.
local function add(stem, place, counts, packed)
  local key, field = stem .. place[1], place[2]
  if packed == nil then packed = field_of(key, field) end
  if packed then
    local sums = cmsgpack.unpack(packed)
    for i = 1, #counts do
      sums[i] = (sums[i] or 0) + counts[i]
    end
    call('HSET', key, field, cmsgpack.pack(sums))
    return false
  end
  call('HSET', key, field, cmsgpack.pack(counts))
  call('EXPIREAT', key, place[3])
  return true
end

-- What each series gets in each bucket, in the order of its first entry.
local cells, order = {}, {}
for _, entry in ipairs(batch.s) do
  local names, start, counts = entry[1], entry[2] * 10, entry[3]
  trim(counts)
  local same = cells[start]
  if not same then
    same = {}
    cells[start] = same
  end
  for n = 1, #names, 3 do
    local cell = same[names[n]]
    if cell then
      local sums = cell[5]
      for i = 1, #counts do
        sums[i] = (sums[i] or 0) + counts[i]
      end
    else
      cell = { names[n], names[n + 1], names[n + 2], start, { unpack(counts) } }
      same[names[n]] = cell
      order[#order + 1] = cell
    end
  end
end

local touched, late = {}, {}

for _, cell in ipairs(order) do
  local id, dimension, value, start, counts = unpack(cell)
  local index = prefix .. 'i:' .. dimension
  local stem = prefix .. 'c:' .. id
  local at = places_of(start)
  local day = at[4]
  local known = field_of(stem .. day[1], day[2])
  if not known then
    if not score_of(index, id .. value) and call('ZCARD', index) >= bound then
      id, value, known = batch.o[dimension], 'other', nil
      stem = prefix .. 'c:' .. id
    end
  end
  local new = day[4] and add(stem, day, counts, known)
  for n = 1, 3 do
    if at[n][4] then new = add(stem, at[n], counts) or new end
  end
  if new then
    local seen = score_of(index, id .. value)
    if not seen or tonumber(seen) < start then
      call('ZADD', index, start, id .. value)
    end
  end
  -- Whoever keeps sums of what is past reads these again.
  if start + 60 < now then
    local name = prefix .. 'l:' .. dimension
    pcall('ZADD', name, now, id)
    late[name] = true
  end
  touched[cell[1]] = touched[cell[1]] or id
end
for name in pairs(late) do pcall('EXPIRE', name, 3600) end

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
      local found = pcall('HMGET', chunk_key(id, ten, from), unpack(fields))
      for n, packed in ipairs(found) do
        if packed then row[#row + 1] = { from + n - 1, unpack(cmsgpack.unpack(packed)) } end
      end
    end
    buckets[#buckets + 1] = row
  end
end

return { 1, to, time[1], time[2], alarms, buckets }

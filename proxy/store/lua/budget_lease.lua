-- Renew one holder's share of a budget.
--
-- KEYS[1]  the budget in its period: a hash of holder -> MessagePack
--          [spent, at risk, ceiling, expiry in ms, sequence], and where the store
--          had lost it: "known" -> [fleet spent, fleet committed, end of caution in ms]
-- ARGV     1 holder, 2 sequence, 3 limit, 4 spent, 5 at risk, 6 ceiling wanted,
--          7 ms to live, 8 seconds to keep the period, 9 fleet's spent and 10 fleet's
--          committed as this holder last heard them, 11 the ceiling it held then
-- Reply    [ceiling, fleet spent, fleet committed]
--
-- All of a holder's figures are cumulative over the period, so that a request
-- sent again changes nothing. The sum of all ceilings never passes the limit.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, sequence, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local spent, risk = tonumber(ARGV[4]), tonumber(ARGV[5])
local life = tonumber(ARGV[7])

local known = { 0, 0, 0 }
if redis.call('EXISTS', KEYS[1]) == 0 and tonumber(ARGV[10]) > 0 then
  known = { tonumber(ARGV[9]), tonumber(ARGV[10]), now + life }
  redis.call('HSET', KEYS[1], 'known', cmsgpack.pack(known))
end

local mine
local others_spent, others_held = 0, 0
local rows = redis.call('HGETALL', KEYS[1])
for i = 1, #rows, 2 do
  local row = cmsgpack.unpack(rows[i + 1])
  if rows[i] == me then
    mine = row
  elseif rows[i] == 'known' then
    known = row
  else
    if row[4] < now and row[3] ~= row[1] + row[2] then
      -- Its holder is gone: what it did not use returns; what it had under way counts.
      row[3] = row[1] + row[2]
      redis.call('HSET', KEYS[1], rows[i], cmsgpack.pack(row))
    end
    others_spent = others_spent + row[1]
    others_held = others_held + row[3]
  end
end

-- What the store forgot, as far as any holder remembers it.
if tonumber(ARGV[9]) > known[1] then known[1] = tonumber(ARGV[9]) end
others_spent = math.max(others_spent, known[1] - spent)
others_held = math.max(others_held, others_spent)
if now < known[3] then
  others_held = math.max(others_held, known[2] - tonumber(ARGV[11]))
end

mine = mine or { 0, 0, 0, 0, 0 }
if sequence > mine[5] then
  mine[1] = math.max(mine[1], spent)
  mine[2] = risk
  mine[3] = math.max(mine[1] + risk, math.min(tonumber(ARGV[6]), limit - others_held))
  mine[4], mine[5] = now + life, sequence
  redis.call('HSET', KEYS[1], me, cmsgpack.pack(mine))
  redis.call('EXPIRE', KEYS[1], ARGV[8])
end
return { mine[3], others_spent + mine[1], others_held + mine[3] }

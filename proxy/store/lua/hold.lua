-- Count what replicas used of their accounts, and set aside what each may use next.
--
-- KEYS     one hash per account; all share a hash tag
-- ARGV     1 replica
--          2 sequence number of this report; a repeat counts nothing twice
--          3 seconds after which a silent replica counts as dead
--          4 JSON: per key [limit, used, want, keep, expires_at, floor, charge,
--            before_sequence, before_used, risk, stays]
--            used     settled since the last report that was answered
--            want     to be held from now on; keep: of that, what can't be refused
--            floor    spent is at least this (a store that lost data learns it again)
--            charge   1: what a dead replica had at risk counts as spent until it is
--                     back, 0: it is free again
--            before_  a report that may or may not have arrived before a restart;
--                     if it has, what it told is taken off `used`
--            risk     of want: set aside for calls under way, and for the next one
--            stays    seconds for this account in place of argument 3, where given
-- Reply    per key spent, charged, held, held by others
--
-- Fields   s spent, c charged; per replica h: held, r: of that at risk, x: dead
--          after, q: last sequence, d: charged while it was silent

local replica, sequence, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local requests = cjson.decode(ARGV[4])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local reply = {}

local function whole(number) return string.format('%.0f', number) end

for i, key in ipairs(KEYS) do
  local limit, used, want, keep, expires_at, floor, charge, before, before_used, risk, stays =
    unpack(requests[i])
  local raw = redis.call('HGETALL', key)
  local account = {}
  for j = 1, #raw, 2 do account[raw[j]] = tonumber(raw[j + 1]) end

  local spent, charged, others = account['s'] or 0, account['c'] or 0, 0
  local changes, gone = {}, {}

  for field, hold in pairs(account) do
    if string.sub(field, 1, 2) == 'h:' then
      local name = string.sub(field, 3)
      if name ~= replica then
        if (account['x:' .. name] or 0) < now then
          gone[#gone + 1] = field
          gone[#gone + 1] = 'x:' .. name
          gone[#gone + 1] = 'r:' .. name
          local lost = math.min(hold, account['r:' .. name] or hold)
          if charge == 1 and lost > 0 then
            charged = charged + lost
            changes[#changes + 1] = 'd:' .. name
            changes[#changes + 1] = whole((account['d:' .. name] or 0) + lost)
          end
        else
          others = others + hold
        end
      end
    end
  end

  -- An old report that was long on its way says nothing about now.
  local last = account['q:' .. replica] or 0
  local late = sequence < last
  local withheld = late and 0 or account['d:' .. replica] or 0
  if withheld > 0 then
    charged = math.max(0, charged - withheld)
    gone[#gone + 1] = 'd:' .. replica
  end

  if sequence > last then
    if before > 0 and last >= before then used = math.max(0, used - before_used) end
    spent = math.max(spent + used, floor)
  end

  local held = math.max(keep, math.min(want, limit - spent - charged - others), 0)
  local fields = { 's', whole(spent), 'c', whole(charged),
    'q:' .. replica, whole(math.max(sequence, last)) }
  if late then
    held = account['h:' .. replica] or 0
  elseif held > 0 then
    fields[#fields + 1] = 'h:' .. replica
    fields[#fields + 1] = whole(held)
    fields[#fields + 1] = 'r:' .. replica
    fields[#fields + 1] = whole(math.min(held, risk))
    fields[#fields + 1] = 'x:' .. replica
    fields[#fields + 1] = string.format('%.3f', now + (stays or ttl))
  elseif account['h:' .. replica] then
    gone[#gone + 1] = 'h:' .. replica
    gone[#gone + 1] = 'r:' .. replica
    gone[#gone + 1] = 'x:' .. replica
  end
  for _, change in ipairs(changes) do fields[#fields + 1] = change end
  redis.call('HSET', key, unpack(fields))
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  local left = redis.call('TTL', key)
  if left < 0 or now + left < expires_at then
    redis.call('EXPIREAT', key, whole(math.ceil(expires_at)))
  end
  reply[#reply + 1] = whole(spent)
  reply[#reply + 1] = whole(charged)
  reply[#reply + 1] = whole(held)
  reply[#reply + 1] = whole(others)
end

return reply

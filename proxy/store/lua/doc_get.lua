-- One document. Reads only.
--
-- KEYS[1]  the document
-- ARGV     1 id
-- Reply    [id, version, at, body] or nothing

local packed = redis.call('GET', KEYS[1])
if not packed then return false end
local row = cmsgpack.unpack(packed)
return { ARGV[1], row[1], string.format('%.17g', row[2]), row[3] }

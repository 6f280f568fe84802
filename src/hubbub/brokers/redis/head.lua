-- The position of a room, which is begun where it has none, and which lives on.
-- KEYS: head, log. ARGV: epoch for a new numbering, ttl in ms. Gives epoch and offset.
local epoch, offset = head_of(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))
return {epoch, offset}

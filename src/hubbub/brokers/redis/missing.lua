-- Finds connections of a worker that Redis has lost.
-- KEYS: workers, the worker's rooms, and the here of each connection. ARGV: the worker; room, user and connection of
-- each.
-- Returns the places, from 1, of connections that are missing, or whose room is missing among the worker's rooms.
-- Returns none if the worker is unknown: it learns that with its next renewal, and then reports everything again.
local missing = {}
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return missing end
for place = 1, #KEYS - 2 do
  local room, user, connection = ARGV[3 * place - 1], ARGV[3 * place], ARGV[3 * place + 1]
  local entry = entry_of(KEYS[place + 2], user)
  local known = entry and (entry.c[connection] or entry.g[connection])
  if not known or redis.call('SISMEMBER', KEYS[2], room) == 0 then missing[#missing + 1] = place end
end
return missing

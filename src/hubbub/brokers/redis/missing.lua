-- Which of a worker's connections are not in the rooms that the worker has them in.
-- KEYS: the worker's rooms, and for each connection here. ARGV: for each connection room, user, connection.
-- Gives the places, from 1, of those that are missing, or whose room is missing among the worker's.
local missing = {}
for place = 1, #KEYS - 1 do
  local room, user, connection = ARGV[3 * place - 2], ARGV[3 * place - 1], ARGV[3 * place]
  local entry = entry_of(KEYS[place + 1], user)
  local known = entry and (entry.c[connection] or entry.g[connection])
  if not known or redis.call('SISMEMBER', KEYS[1], room) == 0 then missing[#missing + 1] = place end
end
return missing

-- A connection of a user comes into a room.
-- An entry is JSON: since when (s), by which connection (n), the info, itself JSON (i), since when that holds where it is
-- later (t), and the worker of each connection that is live (c) or was lost a moment ago (g).
-- KEYS: here, nodes, the worker's rooms. ARGV: worker, number, the last that was confirmed, room, user, connection,
-- info, since; 'comes', or what is said again of one that is 'here' or 'lingers'; and the announcement: channel ('' for
-- none), message.
local worker, user, connection, since, how = ARGV[1], ARGV[5], ARGV[6], ARGV[8], ARGV[9]
local known = entry_of(KEYS[1], user)
local entry = known or {s = since, n = connection, c = {}, g = {}}
local new, answer = heard(KEYS[2], worker, ARGV[2], ARGV[3])
if not new then
  return answer == PASSED and (entry.c[connection] or entry.g[connection]) == worker and DONE or answer
end
redis.call('SADD', KEYS[3], ARGV[4])
if since < entry.s then
  entry.t, entry.s = entry.t or entry.s, since
  if how ~= 'comes' then entry.n = connection end
end
if how == 'comes' or since >= (entry.t or entry.s) then
  entry.i = ARGV[7]
  entry.t = since ~= entry.s and since or nil
end
entry.c[connection], entry.g[connection] = nil, nil
if how == 'comes' then entry.g = {} end
if how == 'lingers' then entry.g[connection] = worker else entry.c[connection] = worker end
redis.call('HSET', KEYS[1], user, cjson.encode(entry))
if not known then announce(KEYS[1], entry, ARGV[10], ARGV[11]) end
return DONE

-- Adds a connection to a room.
-- The entry of a user is JSON: when the user came (s) and with which connection (n); the user's info, itself JSON (i);
-- when that info was set, if later (t); the worker of each live connection (c) and of each in its grace period (g); and
-- for each connection whose data differ (x), its info (i) and its info in this room (r).
-- KEYS: here, workers, the worker's rooms. ARGV: worker, number, the last confirmed number, room, user, connection,
-- info, since, info in this room ('' for none); 'comes', or, for a connection that is reported again, 'here' or
-- 'lingers'; and the announcement: channel ('' for none), message.
-- Returns, instead of DONE, the connection with which the user's presence began.
local worker, user, connection, info, since = ARGV[1], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local room_info, how = ARGV[9] ~= '' and ARGV[9] or nil, ARGV[10]
local known = entry_of(KEYS[1], user)
local entry = known or {s = since, n = connection, c = {}, g = {}}
local new, answer = heard(KEYS[2], worker, ARGV[2], ARGV[3])
if not new then
  return answer == PASSED and (entry.c[connection] or entry.g[connection]) == worker and entry.n or answer
end
redis.call('SADD', KEYS[3], ARGV[4])
entry.x = entry.x or {}
if since < entry.s then
  entry.t, entry.s = entry.t or entry.s, since
  if how ~= 'comes' then entry.n = connection end
end
if how == 'comes' or since >= (entry.t or entry.s) then
  if known and entry.i ~= info then -- the other connections keep the info that they had
    for _, connections in ipairs({entry.c, entry.g}) do
      for each in pairs(connections) do entry.x[each] = entry.x[each] or {i = entry.i} end
    end
  end
  entry.i = info
  entry.t = since ~= entry.s and since or nil
end
entry.c[connection], entry.g[connection] = nil, nil
entry.x[connection] = (room_info or info ~= entry.i) and {i = info, r = room_info} or nil
if how == 'comes' then entry.g = {} end
if how == 'lingers' then entry.g[connection] = worker else entry.c[connection] = worker end
tidy(entry)
redis.call('HSET', KEYS[1], user, cjson.encode(entry))
if not known then announce(KEYS[1], entry, room_info, ARGV[11], ARGV[12]) end
return entry.n

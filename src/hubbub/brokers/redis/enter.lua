-- A connection of a user comes into a room.
-- An entry is JSON: since when (s), the info, itself JSON (i), and the worker of each connection that is live (c) or was
-- lost a moment ago (g).
-- KEYS: here. ARGV: user, connection, worker, info, now; 1 where it comes, 0 where it was here and is said again; and
-- the announcement: channel ('' for none), head, tail.
local text = redis.call('HGET', KEYS[1], ARGV[1])
local entry = text and cjson.decode(text) or {s = ARGV[5], c = {}, g = {}}
entry.i = ARGV[4]
if ARGV[6] == '1' then entry.g = {} else entry.g[ARGV[2]] = nil end
entry.c[ARGV[2]] = ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
if not text then announce(KEYS[1], entry.i, ARGV[7], ARGV[8], ARGV[9]) end

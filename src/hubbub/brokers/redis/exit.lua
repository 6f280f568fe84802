-- Removes a connection from a room for good.
-- KEYS: here, workers, the worker's rooms. ARGV: worker, number, the last confirmed number, room, user, connection; 1
-- if the worker has no other connections in the room; and the announcement: channel ('' for none), message.
local user, connection = ARGV[5], ARGV[6]
local entry = entry_of(KEYS[1], user)
local here = entry and (entry.c[connection] or entry.g[connection])
local new, answer = heard(KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if not new then return answer == PASSED and not here and DONE or answer end
if here then take_out(KEYS[1], user, entry, connection, ARGV[8], ARGV[9]) end
if ARGV[7] == '1' then redis.call('SREM', KEYS[3], ARGV[4]) end
return DONE

-- A connection leaves a room for good.
-- KEYS: here, nodes, the worker's rooms. ARGV: worker, number, the last that was confirmed, room, user, connection; 1
-- where nobody of the worker is in the room any more; and the announcement: channel ('' for none), head, tail.
-- Gives 0 where the worker is not known.
local new = heard(KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if new ~= 2 then return new end
local text = redis.call('HGET', KEYS[1], ARGV[5])
local entry = text and cjson.decode(text)
if entry and (entry.c[ARGV[6]] or entry.g[ARGV[6]]) then
  take_out(KEYS[1], ARGV[5], entry, ARGV[6], ARGV[8], ARGV[9], ARGV[10])
end
if ARGV[7] == '1' then redis.call('SREM', KEYS[3], ARGV[4]) end
return 2

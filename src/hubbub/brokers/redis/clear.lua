-- Removes a connection of a dead worker, unless the connection is on another worker by now.
-- KEYS: here. ARGV: the worker, user, connection; and the announcement: channel ('' for none), message.
local entry = entry_of(KEYS[1], ARGV[2])
if entry and (entry.c[ARGV[3]] or entry.g[ARGV[3]]) == ARGV[1] then
  take_out(KEYS[1], ARGV[2], entry, ARGV[3], ARGV[4], ARGV[5])
end

-- Marks a connection as lost. Its user stays present until the exit.
-- KEYS: here, workers. ARGV: worker, number, the last confirmed number, room, user, connection.
local user, connection = ARGV[5], ARGV[6]
local entry = entry_of(KEYS[1], user)
local live = entry and entry.c[connection]
local new, answer = heard(KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if not new then return answer == PASSED and not live and DONE or answer end
if live then
  entry.g[connection] = live
  entry.c[connection] = nil
  redis.call('HSET', KEYS[1], user, cjson.encode(entry))
end
return DONE

-- A connection was lost; its user stays until exit.
-- KEYS: here. ARGV: user, connection.
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return 0 end
local entry = cjson.decode(text)
if not entry.c[ARGV[2]] then return 0 end
entry.g[ARGV[2]] = entry.c[ARGV[2]]
entry.c[ARGV[2]] = nil
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
return 1

-- A connection was lost; its user stays until exit.
-- KEYS: here, nodes. ARGV: worker, number, the last that was confirmed, room, user, connection.
-- Gives 0 where the worker is not known.
local new = heard(KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if new ~= 2 then return new end
local text = redis.call('HGET', KEYS[1], ARGV[5])
local entry = text and cjson.decode(text)
if entry and entry.c[ARGV[6]] then
  entry.g[ARGV[6]] = entry.c[ARGV[6]]
  entry.c[ARGV[6]] = nil
  redis.call('HSET', KEYS[1], ARGV[5], cjson.encode(entry))
end
return 2

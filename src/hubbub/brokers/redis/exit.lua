-- A connection leaves a room for good.
-- KEYS: here. ARGV: user, connection, worker ('' for any); and the announcement: channel ('' for none), head, tail.
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return end
local entry = cjson.decode(text)
local worker = entry.c[ARGV[2]] or entry.g[ARGV[2]]
if not worker or (ARGV[3] ~= '' and ARGV[3] ~= worker) then return end
entry.c[ARGV[2]] = nil
entry.g[ARGV[2]] = nil
if next(entry.c) or next(entry.g) then
  redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(entry))
else
  redis.call('HDEL', KEYS[1], ARGV[1])
  announce(KEYS[1], entry.i, ARGV[4], ARGV[5], ARGV[6])
end

-- Begins a new epoch and tells the workers, if the room is still in the old epoch.
-- KEYS: head. ARGV: channel, the old epoch, the new one.
if redis.call('HGET', KEYS[1], 'e') ~= ARGV[2] then return 0 end
local offset = tonumber(redis.call('HGET', KEYS[1], 'o'))
redis.call('HSET', KEYS[1], 'e', ARGV[3])
redis.call('HDEL', KEYS[1], 'f')
redis.call('PUBLISH', ARGV[1], 'R' .. ARGV[3] .. struct.pack('>I8', offset))
return 1

-- Claims a dead worker: ends its name if it has no lease. Also takes over from a cleaner that has died.
-- KEYS: lease, workers, claimed, cleaner, dead. ARGV: worker, ms that the cleaner has for its next step.
-- Returns 1 if the caller is the one to remove the dead worker's connections.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if not redis.call('SET', KEYS[4], 1, 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
redis.call('SET', KEYS[3], 1, 'PX', 3600000) -- in case the worker returns; after an hour it has no clients left
return 1

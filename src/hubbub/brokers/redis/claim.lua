-- Ends the name of a worker that has no lease, for who takes its connections out; or goes on where another began that.
-- KEYS: lease, workers, claimed, cleaner, dead. ARGV: worker, ms that who cleans up has for the next step.
-- Gives 1 where it is the caller's to do.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
if not redis.call('SET', KEYS[4], 1, 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
redis.call('SET', KEYS[3], 1, 'PX', 3600000) -- for when it comes back: no client is left to it after that
return 1

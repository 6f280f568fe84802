-- Publishes a message without a position, unless one with the same key was published.
-- KEYS: once. ARGV: channel, message.
-- Returns 1 if it was published, otherwise 0.
if not redis.call('SET', KEYS[1], '-', 'NX', 'PX', ONCE_MS) then return 0 end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1

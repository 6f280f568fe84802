-- Publishes an instruction to all workers, and keeps it for workers that are cut off now.
-- KEYS: instructions, forgotten. ARGV: the channel of all workers, the instruction, how many are kept, and for how many
-- ms.
-- Returns the score of the instruction: the time in ms, but more than the previous score even if the clock was set back.
local known = redis.call('ZSCORE', KEYS[1], ARGV[2])
if known then return tonumber(known) end -- a repetition, because the answer was lost
local newest = tonumber(redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or 0)
local at = math.max(now, newest + 1)
redis.call('ZADD', KEYS[1], string.format('%d', at), ARGV[2])
if redis.call('ZCARD', KEYS[1]) > tonumber(ARGV[3]) then
  redis.call('SET', KEYS[2], redis.call('ZPOPMIN', KEYS[1])[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PUBLISH', ARGV[1], 'I' .. struct.pack('>I8', at) .. ARGV[2])
return at

-- Renews the lease of a worker, or takes the first lease under a new name.
-- KEYS: lease, workers, claimed. ARGV: worker, ms, the last confirmed number (for a new name: the number to begin
-- with), 1 for a new name.
-- Returns 'kept'; 'claimed' if the worker was declared dead; 'lost' if Redis has lost statements of the worker.
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
else
  local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or -1)
  if last < tonumber(ARGV[3]) then
    if last >= 0 then redis.call('HSET', KEYS[2], ARGV[1], -1) end -- no statement under this name is accepted any more
    return redis.call('EXISTS', KEYS[3]) == 1 and 'claimed' or 'lost'
  end
end
redis.call('SET', KEYS[1], 1, 'PX', ARGV[2])
return 'kept'

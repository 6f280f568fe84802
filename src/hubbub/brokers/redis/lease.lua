-- Renews the lease of a worker, or takes the first under a name.
-- KEYS: lease, workers, claimed. ARGV: worker, ms, the last number that was confirmed, or to begin with; 1 for a new name.
-- Gives 'kept'; 'claimed' where the worker was taken for dead; 'lost' where Redis has lost what it said.
if ARGV[4] == '1' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
else
  local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or -1)
  if last < tonumber(ARGV[3]) then
    if last >= 0 then redis.call('HSET', KEYS[2], ARGV[1], -1) end -- nothing more is done under this name
    return redis.call('EXISTS', KEYS[3]) == 1 and 'claimed' or 'lost'
  end
end
redis.call('SET', KEYS[1], 1, 'PX', ARGV[2])
return 'kept'

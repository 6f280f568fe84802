-- Whether a user has a live connection in a room, on a worker that has its lease.
-- KEYS: here. ARGV: user, and what the name of a lease has before the worker's. Gives 1 or 0.
local entry = entry_of(KEYS[1], ARGV[1])
for _, worker in pairs(entry and entry.c or {}) do
  if redis.call('EXISTS', ARGV[2] .. worker) == 1 then return 1 end
end
return 0

-- Returns 1 if a user has a live connection in a room, on a worker that has its lease; otherwise 0.
-- KEYS: here. ARGV: user, the prefix of the leases' keys.
local entry = entry_of(KEYS[1], ARGV[1])
for _, worker in pairs(entry and entry.c or {}) do
  if redis.call('EXISTS', ARGV[2] .. worker) == 1 then return 1 end
end
return 0

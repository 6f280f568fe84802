-- Returns the epoch and offset of a subscribed room. Begins a numbering if there is none, and extends its lifetime.
-- Clients can visit any number of rooms. So rooms without messages are listed by their last use, and only a limited
-- number is kept. Above that number, each use of such a room examines the two that were used longest ago: a room with a
-- subscribed worker moves to the end of the list, any other room is forgotten. Examining two keeps the forgettable
-- rooms from outnumbering the subscribed ones, however many of those there are.
-- KEYS: head, log, the list. ARGV: epoch for a new numbering, ttl in ms, room, prefix of the rooms' heads, prefix of
-- their channels, how many rooms are kept.
local epoch, offset = head_of(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))
if offset > 0 then return {epoch, offset} end

-- The list counts the uses: unlike a time, a number never goes back.
local newest = redis.pcall('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
if newest.err then
  redis.call('DEL', KEYS[3])
  newest = {}
end
local uses = tonumber(newest[2]) or 0

local function use(room)
  uses = uses + 1
  redis.call('ZADD', KEYS[3], uses, room)
end

-- The list lives as long as the longest-lived head in it.
use(ARGV[3])
redis.call('PEXPIRE', KEYS[3], tonumber(ARGV[2]) + AFTERLIFE_MS, uses == 1 and 'NX' or 'GT')

local over = redis.call('ZCARD', KEYS[3]) - tonumber(ARGV[6])
for _ = 1, 2 do
  if over <= 0 then break end
  local room = redis.call('ZPOPMIN', KEYS[3])[1]
  local head = ARGV[4] .. room .. '}:head'
  local _, reached = known_head(head)
  if reached == 0 and redis.call('PUBSUB', 'NUMSUB', ARGV[5] .. room .. '}')[2] > 0 then
    use(room)
  else
    if reached == 0 then redis.call('DEL', head) end
    over = over - 1
  end
end
return {epoch, offset}

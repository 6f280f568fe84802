-- Reads what is kept of a room after a position, or the newest of it. Writes nothing, whatever room is asked for.
-- KEYS: head, log. ARGV: ttl in ms, epoch and offset of the position ('' for none), limit (0: all), the stamp of the
-- message that is expected there ('' for any).
-- Gives epoch ('' where the room has no numbering), offset, whether nothing is missing, whether it is the one expected,
-- and the entries: offset, message, time in ms.
local oldest, limit = now - tonumber(ARGV[1]), tonumber(ARGV[4])
local known = redis.call('HMGET', KEYS[1], 'e', 'o')
if not known[1] then return {'', 0, 0, 1, {}} end
local epoch, offset = known[1], tonumber(known[2])
local count = limit > 0 and limit or 1000000000
local whole, same, found = 0, 1, {}

-- The place of the first entry that is not too old; one after the last where all are.
local function first_fresh(entries)
  for place, entry in ipairs(entries) do
    if tonumber(entry[2][4]) > oldest then return place end
  end
  return #entries + 1
end

-- What is kept, from the start. A publish trims only its own room's log, so old entries may still be there.
local function from_the_start()
  local after = '-'
  while true do
    local entries = redis.call('XRANGE', KEYS[2], after, '+', 'COUNT', 64)
    local fresh = first_fresh(entries)
    if fresh <= #entries then return redis.call('XRANGE', KEYS[2], entries[fresh][1], '+', 'COUNT', count) end
    if #entries < 64 then return {} end
    after = '(' .. entries[#entries][1]
  end
end

if ARGV[2] == '' then
  local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', count)
  local entries = {}
  for place = #newest, 1, -1 do entries[#entries + 1] = newest[place] end
  for place = first_fresh(entries), #entries do found[#found + 1] = entries[place] end
else
  local after = tonumber(ARGV[3])
  if epoch == ARGV[2] and ARGV[5] ~= '' then
    local place = string.format('%d-0', after)
    local expected = redis.call('XRANGE', KEYS[2], place, place)
    if #expected > 0 and string.sub(expected[1][2][2], 3, 18) ~= ARGV[5] then same = 0 end
  end
  if epoch == ARGV[2] and after == offset then
    whole = 1
  elseif epoch == ARGV[2] and after < offset then
    local first = string.format('%d-0', after + 1)
    found = redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', count)
    if #found > 0 and found[1][1] == first and first_fresh(found) == 1 then whole = 1 end
  end
  if whole == 0 then found = from_the_start() end
end
local entries = {}
for place, entry in ipairs(found) do entries[place] = {offset_of(entry[1]), entry[2][2], tonumber(entry[2][4])} end
return {epoch, offset, whole, same, entries}

-- What is kept of a room after a position, or the newest of it.
-- KEYS: head, log. ARGV: epoch for a new numbering, ttl in ms, epoch and offset of the position ('' for none), limit
-- (0: all), the stamp of the message that is expected there ('' for any).
-- Gives epoch, offset, whether nothing is missing, whether it is the one expected, and the entries: offset, message,
-- time in ms.
local ttl, limit = tonumber(ARGV[2]), tonumber(ARGV[5])
local epoch, offset = head_of(KEYS[1], KEYS[2], ARGV[1], ttl)
trim(KEYS[2], ttl)
local count = limit > 0 and limit or 1000000000
local whole, same, found = 0, 1, {}
if ARGV[3] == '' then
  local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', count)
  for place = #newest, 1, -1 do found[#found + 1] = newest[place] end
else
  local after = tonumber(ARGV[4])
  if epoch == ARGV[3] and ARGV[6] ~= '' then
    local place = string.format('%d-0', after)
    local expected = redis.call('XRANGE', KEYS[2], place, place)
    if #expected > 0 and string.sub(expected[1][2][2], 3, 18) ~= ARGV[6] then same = 0 end
  end
  if epoch == ARGV[3] and after == offset then
    whole = 1
  elseif epoch == ARGV[3] and after < offset then
    local first = string.format('%d-0', after + 1)
    found = redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', count)
    if #found > 0 and found[1][1] == first then whole = 1 end
  end
  if whole == 0 then found = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', count) end
end
local entries = {}
for place, entry in ipairs(found) do entries[place] = {offset_of(entry[1]), entry[2][2], tonumber(entry[2][4])} end
return {epoch, offset, whole, same, entries}

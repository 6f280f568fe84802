-- Reads the kept messages of a room after a position, or the newest ones. Never writes: clients can ask for any room.
-- KEYS: head, log. ARGV: ttl in ms, epoch and offset of the position ('' for none), limit (0: all), the stamp of the
-- message expected at that position ('' for any).
-- Returns epoch ('' if the room has no numbering), offset; whether the position is part of this numbering, whether no
-- message is missing after it, whether the message at it is the expected one; the entries: offset, message, time in ms;
-- and the number of foreign entries.
local oldest, limit = now - tonumber(ARGV[1]), tonumber(ARGV[4])
local epoch, offset, _, former = known_head(KEYS[1])
if not epoch then return {'', 0, 0, 0, 1, {}, 0} end
local count = limit > 0 and limit or 1000000000
local entries, foreign, holes = {}, 0, false

local function range(command, first, last, most)
  local found = redis.pcall(command, KEYS[2], first, last, 'COUNT', most)
  return found.err and {} or found
end

-- Adds the found entries that are neither foreign nor too old.
local function take(found, backwards)
  for place = backwards and #found or 1, backwards and 1 or #found, backwards and -1 or 1 do
    local at_offset, message, at = parts_of(found[place])
    if not at_offset or at_offset > offset then
      foreign = foreign + 1
    elseif at > oldest then
      holes = holes or #entries > 0 and at_offset ~= entries[#entries][1] + 1
      entries[#entries + 1] = {at_offset, message, at}
    end
  end
end

-- Returns the entries from the first that is not too old. Only a publish trims the log, so older ones may be left.
local function from_the_start()
  local after = '-'
  while true do
    local found = range('XRANGE', after, '+', 64)
    for _, entry in ipairs(found) do
      local at_offset, _, at = parts_of(entry)
      if at_offset and at > oldest then return range('XRANGE', entry[1], '+', count) end
    end
    if #found < 64 then return {} end
    after = '(' .. found[#found][1]
  end
end

if ARGV[2] == '' then
  take(range('XREVRANGE', '+', '-', count), true)
  return {epoch, offset, 0, 0, 1, entries, foreign}
end
local after, common = tonumber(ARGV[3]), common_offset(ARGV[2], epoch, offset, former)
local known, whole, same = common and after <= common, false, true
if common and ARGV[5] ~= '' then
  local place = string.format('%d-0', after)
  local expected = range('XRANGE', place, place, 1)
  local at_offset, message = nil, nil
  if #expected > 0 then at_offset, message = parts_of(expected[1]) end
  if at_offset and string.sub(message, 3, 18) ~= ARGV[5] then same = false end
end
if known and after < offset then
  local found = range('XRANGE', string.format('%d-0', after + 1), '+', count)
  take(found)
  whole = #entries > 0 and entries[1][1] == after + 1 and not holes
elseif known then
  whole = true
end
if not whole then
  entries, foreign = {}, 0
  take(from_the_start())
end
return {epoch, offset, known and 1 or 0, whole and 1 or 0, same and 1 or 0, entries, foreign}

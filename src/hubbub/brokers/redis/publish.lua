-- Numbers a message, keeps it, and publishes it, all or nothing. A message that was published before is only answered.
-- A sender's messages arrive in lines, one for each of its connections. Redis accepts a line without gaps, and nothing
-- of it once the next line has begun (line.lua). So a message was published before if its number is not above the last.
-- A message that is published once has a fourth key: the position of the first one. Any repetition is only answered.
-- KEYS: head, log, sender, and perhaps once. ARGV: channel, message, its number, epoch for a new numbering, ttl in ms, size of the log, ms
-- for which the sender is remembered; the message's line, and the previous number in that line.
-- Returns epoch and offset, and 1 if the log was foreign and was replaced. If the message was published before and is
-- no longer kept, the offset is the room's.
local number, ttl = tonumber(ARGV[3]), tonumber(ARGV[5])
local line, before, last = line_of(KEYS[3])
if line ~= ARGV[8] or before ~= ARGV[9] then return redis.error_reply('LINE the message before it did not come') end
local epoch, offset = head_of(KEYS[1], KEYS[2], ARGV[4], ttl)
if tonumber(last) >= number then
  redis.call('SET', KEYS[3], line .. ' ' .. ARGV[3] .. ' ' .. last, 'PX', ARGV[7])
  local kept = redis.pcall('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000)
  for _, entry in ipairs(kept.err and {} or kept) do
    local place, message = parts_of(entry)
    if place and string.sub(message, 3, 18) == string.sub(ARGV[2], 3, 18) then return {epoch, place} end
  end
  return {epoch, offset}
end
local first = KEYS[4] and redis.pcall('GET', KEYS[4])
if type(first) == 'string' then
  local first_epoch, first_offset = string.match(first, '^(%S+) (%d+)$')
  redis.call('SET', KEYS[3], line .. ' ' .. ARGV[3] .. ' ' .. last, 'PX', ARGV[7])
  return {first_epoch or epoch, tonumber(first_offset or offset)}
end
offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
local anew = nil
local entry = {'MAXLEN', '=', ARGV[6], string.format('%d-0', offset), 'm', ARGV[2], 't', string.format('%d', now)}
local added = redis.pcall('XADD', KEYS[2], unpack(entry))
if type(added) == 'table' and added.err then
  redis.call('DEL', KEYS[2])
  redis.call('XADD', KEYS[2], unpack(entry))
  anew = 1
end
trim(KEYS[2], ttl)
redis.call('PEXPIRE', KEYS[2], ttl)
redis.call('SET', KEYS[3], line .. ' ' .. ARGV[3] .. ' ' .. ARGV[3], 'PX', ARGV[7])
if KEYS[4] then redis.call('SET', KEYS[4], string.format('%s %d', epoch, offset), 'PX', ONCE_MS) end
redis.call('PUBLISH', ARGV[1], 'P' .. epoch .. struct.pack('>I8', offset) .. ARGV[2])
return {epoch, offset, anew}

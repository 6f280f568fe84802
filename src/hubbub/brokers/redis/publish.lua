-- Numbers a message, keeps it, and publishes it, all or nothing. One that was published before is only answered.
-- KEYS: head, log, sent. ARGV: channel, message, its number, epoch for a new numbering, ttl in ms, size (0 keeps none).
-- Gives epoch and offset; the offset -1 where it was passed: it is not kept, but an earlier one of its sender is. Then
-- it was refused once, and is to be published under a new number.
local ttl, size = tonumber(ARGV[5]), tonumber(ARGV[6])
local epoch, offset = head_of(KEYS[1], KEYS[2], ARGV[4], ttl)
local sent = redis.call('GET', KEYS[3])
if sent then
  local last, place = string.match(sent, '^(%d+) (%d+)$')
  if tonumber(last) >= tonumber(ARGV[3]) then
    if last ~= ARGV[3] then
      local sender = string.sub(ARGV[2], 3, 10)
      for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000)) do
        if string.sub(entry[2][2], 3, 10) == sender then
          local number = struct.unpack('>I8', string.sub(entry[2][2], 11, 18))
          if number < tonumber(ARGV[3]) then return {epoch, -1} end
          if number == tonumber(ARGV[3]) then place = offset_of(entry[1]); break end
        end
      end
    end
    return {epoch, tonumber(place)}
  end
end
offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
local place = string.format('%d', offset)
if size > 0 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '=', size, place .. '-0', 'm', ARGV[2], 't', string.format('%d', now))
  trim(KEYS[2], ttl)
  redis.call('PEXPIRE', KEYS[2], ttl)
end
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. place, 'PX', 120000)
redis.call('PUBLISH', ARGV[1], 'P' .. epoch .. struct.pack('>I8', offset) .. ARGV[2])
return {epoch, offset}

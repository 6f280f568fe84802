-- Begins a line of a sender. Messages of its earlier connections that arrive late are refused from now on.
-- KEYS: sender. ARGV: line, ms for which the sender is remembered.
local line, _, last = line_of(KEYS[1])
if line and tonumber(line) >= tonumber(ARGV[1]) then return redis.error_reply('LINE a later one has begun') end
redis.call('SET', KEYS[1], ARGV[1] .. ' 0 ' .. (last or '0'), 'PX', ARGV[2])
return 1

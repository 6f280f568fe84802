-- In every script: the time, and what scripts share.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- How long a room's numbering outlives what is kept of it; workers with members renew it.
local AFTERLIFE_MS = 3600000

-- The room's epoch and offset; begins a numbering where there is none.
local function head_of(head, log, epoch, ttl)
  local known = redis.call('HMGET', head, 'e', 'o')
  if not known[1] then
    redis.call('HSET', head, 'e', epoch, 'o', 0)
    redis.call('DEL', log)
    known = {epoch, '0'}
  end
  redis.call('PEXPIRE', head, ttl + AFTERLIFE_MS)
  return known[1], tonumber(known[2])
end

local function offset_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- Takes out what is older than ttl.
local function trim(log, ttl)
  local count = 1
  while true do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', count)
    if #oldest == 0 then return end
    for place, entry in ipairs(oldest) do
      if tonumber(entry[2][4]) > now - ttl then
        if place > 1 then redis.call('XTRIM', log, 'MINID', entry[1]) end
        return
      end
    end
    redis.call('XTRIM', log, 'MINID', string.format('%d-0', offset_of(oldest[#oldest][1]) + 1))
    count = 64
  end
end

-- Tells a room that a user came or left, and how many are there now. In the step by which it is so, so that the room
-- hears of it once, and in its order.
local function announce(here, info, channel, head, tail)
  if channel ~= '' then
    redis.call('PUBLISH', channel, head .. info .. ',"count":' .. redis.call('HLEN', here) .. tail)
  end
end

-- What to answer to a worker that says something. It may not be known, or not with all that was confirmed to it; and
-- what has an earlier number than its last was done before, or was passed by the later: then the worker says it again.
local UNKNOWN, DONE, PASSED = 0, 1, 2

-- Whether what a worker says is new, in which case it is noted; or else the answer, where it is not done.
local function heard(nodes, worker, number, confirmed)
  local last = tonumber(redis.call('HGET', nodes, worker) or -1)
  if last < tonumber(confirmed) then return false, UNKNOWN end
  if last >= tonumber(number) then return false, PASSED end
  redis.call('HSET', nodes, worker, number)
  return true
end

-- Takes a connection out of an entry, and tells the room when it was the user's last.
local function take_out(here, user, entry, connection, channel, head, tail)
  entry.c[connection] = nil
  entry.g[connection] = nil
  if next(entry.c) or next(entry.g) then
    redis.call('HSET', here, user, cjson.encode(entry))
  else
    redis.call('HDEL', here, user)
    announce(here, entry.i, channel, head, tail)
  end
end

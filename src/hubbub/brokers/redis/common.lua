-- In every script: the time, and what scripts share.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- How long a room's numbering outlives what is kept of it; workers with members renew it.
local AFTERLIFE_MS = 3600000

-- Names this run of the server: another one, restarted or promoted, may lack the newest of what this one handed out.
local function run_of_server()
  local said = redis.pcall('INFO', 'replication')
  return type(said) == 'string' and string.match(said, 'master_replid:(%x%x%x%x%x%x%x%x)') or ''
end

-- A room's epoch, offset, run and former epochs; nothing where it has no numbering.
local function known_head(head)
  local known = redis.pcall('HMGET', head, 'e', 'o', 'r', 'f')
  if not known.err and known[1] and tonumber(known[2]) then
    return known[1], tonumber(known[2]), known[3], known[4] or ''
  end
end

-- The former epochs of a numbering, each with the offset at which it ended, newest first. Older ones are forgotten.
local FORMER_BYTES = 400
local function remember_epoch(epoch, offset, former)
  former = string.format('%s %d,', epoch, offset) .. former
  return #former <= FORMER_BYTES and former or string.match(string.sub(former, 1, FORMER_BYTES), '^.*,')
end

-- The last offset that an epoch has in common with a room's numbering; nothing where it is of another.
local function common_offset(epoch, current, offset, former)
  if epoch == current then return offset end
  for each, ended in string.gmatch(former, '([^ ,]+) (%d+),') do
    if each == epoch then return tonumber(ended) end
  end
end

-- The room's epoch and offset. Begins a numbering where there is none, and an epoch where this is another run of the
-- server than the last that numbered: what that one handed out past this offset is lost, or was never there.
local function head_of(head, log, epoch, ttl)
  local run = run_of_server()
  local current, offset, last_run, former = known_head(head)
  if not current then
    redis.call('DEL', head, log)
    redis.call('HSET', head, 'e', epoch, 'o', 0, 'r', run)
    current, offset = epoch, 0
  elseif last_run ~= run then
    redis.call('HSET', head, 'e', epoch, 'r', run, 'f', remember_epoch(current, offset, former))
    current = epoch
  end
  redis.call('PEXPIRE', head, ttl + AFTERLIFE_MS)
  return current, offset
end

-- The offset, the message and the time of an entry of a log; nothing where it is none of ours.
local function parts_of(entry)
  local offset, fields = tonumber(string.match(entry[1], '^(%d+)%-0$')), entry[2]
  local at = tonumber(fields[4])
  if offset and at and fields[1] == 'm' and fields[3] == 't' then return offset, fields[2], at end
end

-- Takes out what is older than ttl, or not ours.
local function trim(log, ttl)
  local count = 1
  while true do
    local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', count)
    if #oldest == 0 then return end
    local ids = {}
    for place, entry in ipairs(oldest) do
      local _, _, at = parts_of(entry)
      if at and at > now - ttl then
        if place > 1 then redis.call('XTRIM', log, 'MINID', entry[1]) end
        return
      end
      ids[place] = entry[1]
    end
    redis.call('XDEL', log, unpack(ids))
    count = 64
  end
end

-- A sender's line, the last number taken in it, and the last that was published; nothing where it is not known.
local function line_of(sender)
  local known = redis.pcall('GET', sender)
  return string.match(type(known) == 'string' and known or '', '^(%d+) (%d+) (%d+)$')
end

-- Announces that a user joined or left a room, with how many are there now, the connection with which the user came, and
-- its info. In the step that makes it true, so that it is announced once, and in order.
local function announce(here, entry, channel, message)
  if channel ~= '' then
    local count = struct.pack('>I4I2', redis.call('HLEN', here), #entry.n)
    redis.call('PUBLISH', channel, message .. count .. entry.n .. entry.i)
  end
end

-- What to answer to a worker that says something. It may not be known, or not with all that was confirmed to it; and
-- what has an earlier number than its last was done before, or was passed by the later: then the worker says it again.
local UNKNOWN, DONE, PASSED = 0, 1, 2

-- Whether what a worker says is new, in which case it is noted; or else the answer, where it is not done.
local function heard(workers, worker, number, confirmed)
  local last = tonumber(redis.call('HGET', workers, worker) or -1)
  if last < tonumber(confirmed) then return false, UNKNOWN end
  if last >= tonumber(number) then return false, PASSED end
  redis.call('HSET', workers, worker, number)
  return true
end

-- What a room's presence says of a user; nothing where that is none of ours, which is then written anew.
local function entry_of(here, user)
  local read, entry = pcall(cjson.decode, redis.call('HGET', here, user) or '')
  if not read or type(entry) ~= 'table' then return nil end
  for _, text in ipairs({entry.s or 0, entry.n or 0, entry.i or 0}) do
    if type(text) ~= 'string' then return nil end
  end
  for _, workers in ipairs({entry.c or 0, entry.g or 0}) do
    if type(workers) ~= 'table' then return nil end
    for connection, worker in pairs(workers) do
      if type(connection) ~= 'string' or type(worker) ~= 'string' then return nil end
    end
  end
  if entry.x ~= nil and type(entry.x) ~= 'table' then return nil end
  for connection, said in pairs(entry.x or {}) do
    if type(connection) ~= 'string' or type(said) ~= 'table' or type(said.i) ~= 'string' then return nil end
  end
  return entry
end

-- Forgets what connections said that are gone.
local function tidy(entry)
  for connection in pairs(entry.x or {}) do
    if not (entry.c[connection] or entry.g[connection]) then entry.x[connection] = nil end
  end
  if entry.x and not next(entry.x) then entry.x = nil end
end

-- Takes a connection out of an entry, and tells the room when it was the user's last.
local function take_out(here, user, entry, connection, channel, message)
  entry.c[connection] = nil
  entry.g[connection] = nil
  tidy(entry)
  if next(entry.c) or next(entry.g) then
    redis.call('HSET', here, user, cjson.encode(entry))
  else
    redis.call('HDEL', here, user)
    announce(here, entry, channel, message)
  end
end

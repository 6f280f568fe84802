-- The beginning of every script: the time, and shared functions.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- How much longer a room's numbering lives than its messages. Workers with members extend it.
local AFTERLIFE_MS = 3600000

-- How long a message that is published once is known.
local ONCE_MS = 300000

-- Returns a name of this run of the server. After a restart or a promotion, the newest offsets of the previous run may
-- be lost.
local function run_of_server()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x%x%x%x%x%x%x%x)') or ''
end

-- Returns a room's epoch, offset, run and former epochs; nothing if it has no numbering.
local function known_head(head)
  local known = redis.pcall('HMGET', head, 'e', 'o', 'r', 'f')
  if not known.err and known[1] and tonumber(known[2]) then
    return known[1], tonumber(known[2]), known[3], known[4] or ''
  end
end

-- Adds an epoch to the former epochs of a numbering, each with the offset at which it ended, newest first. Drops the
-- oldest.
local FORMER_BYTES = 400
local function remember_epoch(epoch, offset, former)
  former = string.format('%s %d,', epoch, offset) .. former
  return #former <= FORMER_BYTES and former or string.match(string.sub(former, 1, FORMER_BYTES), '^.*,')
end

-- Returns the last offset that an epoch shares with a room's numbering; nothing if it belongs to another numbering.
local function common_offset(epoch, current, offset, former)
  if epoch == current then return offset end
  for each, ended in string.gmatch(former, '([^ ,]+) (%d+),') do
    if each == epoch then return tonumber(ended) end
  end
end

-- Returns the room's epoch and offset. Begins a numbering if there is none. Begins a new epoch if another run of the
-- server numbered last: any offsets which that run assigned after this one are lost.
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

-- Returns the offset, the message and the time of an entry of a log; nothing if the entry is foreign.
local function parts_of(entry)
  local offset, fields = tonumber(string.match(entry[1], '^(%d+)%-0$')), entry[2]
  local at = tonumber(fields[4])
  if offset and at and fields[1] == 'm' and fields[3] == 't' then return offset, fields[2], at end
end

-- Removes entries that are older than ttl, and foreign entries before them.
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

-- Returns a sender's line, the last number accepted in it, and the last number published; nothing if it is unknown.
local function line_of(sender)
  local known = redis.pcall('GET', sender)
  return string.match(type(known) == 'string' and known or '', '^(%d+) (%d+) (%d+)$')
end

-- Announces that a user joined or left a room, with the number of users there now, the connection with which the user
-- joined, the user's info, and the info in this room, if there is one, of the connection that came or went. The same
-- script changes the presence, so each change is announced once, and in order.
local function announce(here, entry, room_info, channel, message)
  if channel ~= '' then
    local count = struct.pack('>I4I2', redis.call('HLEN', here), #entry.n)
    local own = room_info and '\255' .. room_info or ''
    redis.call('PUBLISH', channel, message .. count .. entry.n .. entry.i .. own)
  end
end

-- Answers to a statement. UNKNOWN: Redis does not know the worker, or has lost a statement that it confirmed. PASSED: a
-- later statement arrived first. This one was either done before or overtaken; if overtaken, the worker repeats it.
local UNKNOWN, DONE, PASSED = 0, 1, 2

-- Returns true and records the number if a statement is new; otherwise returns false and the answer.
local function heard(workers, worker, number, confirmed)
  local last = tonumber(redis.call('HGET', workers, worker) or -1)
  if last < tonumber(confirmed) then return false, UNKNOWN end
  if last >= tonumber(number) then return false, PASSED end
  redis.call('HSET', workers, worker, number)
  return true
end

-- Returns a user's entry in a room; nothing if there is none, or if it is foreign. Foreign entries are overwritten.
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
  for connection, own in pairs(entry.x or {}) do
    if type(connection) ~= 'string' or type(own) ~= 'table' or type(own.i) ~= 'string' then return nil end
    if own.r ~= nil and type(own.r) ~= 'string' then return nil end
  end
  return entry
end

-- Removes the own infos of connections that are gone.
local function tidy(entry)
  for connection in pairs(entry.x or {}) do
    if not (entry.c[connection] or entry.g[connection]) then entry.x[connection] = nil end
  end
  if entry.x and not next(entry.x) then entry.x = nil end
end

-- Removes a connection from an entry. Announces it to the room if it was the user's last.
local function take_out(here, user, entry, connection, channel, message)
  local own = entry.x and entry.x[connection]
  entry.c[connection] = nil
  entry.g[connection] = nil
  tidy(entry)
  if next(entry.c) or next(entry.g) then
    redis.call('HSET', here, user, cjson.encode(entry))
  else
    redis.call('HDEL', here, user)
    announce(here, entry, own and own.r, channel, message)
  end
end

--[[ count: sets what one level of caps (an account, a member, a key) has used to the truth, whatever stood there: what
     Postgres has charged, what the outbox has that Postgres did not have yet, and the holds that are open now.
     KEYS   1 shard  2 caps  3 leases  4 outbox  5 hold, without its request id
     ARGV   1 epoch  2 position_epoch, 3 position_seq (of the last event that Postgres had)  4 is_checked ("1": refuse if
            the outbox does not follow on that position; else what this epoch has counted is not lowered, since what is
            told may lack something)  5 level  6 its id  7 account_id  8 keep_from (a date)
            then for each window 9 name  10 from  11 to (request ids: from ≤ id < to)  12 charged, by Postgres; "" if the
            window has no cap: then nothing of it is kept
     Reply  {"COUNTED", uncounted: open calls whose end will not be told here} | {"BEHIND"} | {"EPOCH", current}
     Safe to retry: it sets absolute values. It reads the holds in the shard's leases by names it makes itself, all of
     this slot. ]]
local epoch, level, id, account_id, keep_from = ARGV[1], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local shard = call("HMGET", KEYS[1], "epoch", "seq")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end
local position_seq, last_seq = whole(ARGV[3]), whole(shard[2])
if not position_seq or not last_seq then return refuse("a position is not a whole number") end

local windows, gone = {}, {}
for at = 9, #ARGV, 4 do
  local used = whole(ARGV[at + 3])
  if used then
    windows[#windows + 1] = {name = ARGV[at], from = ARGV[at + 1], to = ARGV[at + 2], used = used}
  elseif ARGV[at + 3] == "" then
    gone[#gone + 1] = ARGV[at]
  else
    return refuse("charged is not a whole number within 2^53")
  end
end
local function add(request_id, amount)
  for _, window in ipairs(windows) do
    if window.from <= request_id and request_id < window.to then window.used = window.used + amount end
  end
end
-- The terms in a text; none in one that nobody can read, which must not keep others from being counted.
local function terms_in(text, within_data)
  local is_read, found = pcall(cjson.decode, text)
  if is_read and within_data and type(found) == "table" then found = found.terms end
  return is_read and type(found) == "table" and found or {}
end
local function is_of_level(terms)
  if level == "account" then return true end
  return (level == "key" and terms.key_id or terms.member_id) == id
end

local is_checked, is_anew = ARGV[4] == "1", call("HGET", KEYS[2], "epoch") ~= epoch
local events = call("XRANGE", KEYS[4], "(" .. ARGV[2] .. "-" .. ARGV[3], "+")
if is_checked then
  local first = events[1] and match(events[1][1], "%-(%d+)$") + 0 or last_seq + 1
  if first ~= position_seq + 1 then return {"BEHIND"} end
end
for _, event in ipairs(events) do
  local fields = {}
  for at = 1, #event[2], 2 do fields[event[2][at]] = event[2][at + 1] end
  if fields.account == account_id and (whole(fields.cost) or 0) ~= 0 then
    local terms = fields.terms and terms_in(fields.terms) or terms_in(fields.data, true)
    if is_of_level(terms) then add(fields.request_id, whole(fields.cost)) end
  end
end

local open, uncounted = 0, 0
for _, request_id in ipairs(call("ZRANGE", KEYS[3], 0, -1)) do
  local is_read, hold = pcall(read_hold, KEYS[5] .. request_id)
  if is_read and hold and hold.epoch == epoch and hold.state == "open" and hold.account == account_id then
    local _, _, text = rest_of(hold, OPEN)
    local terms = terms_in(text)
    if is_of_level(terms) then
      open = open + 1
      add(request_id, whole(hold.amount))
      local told = {}
      for _, counted in ipairs(terms.counted or {}) do
        if counted[1] == level then told = {["level"] = true, [counted[2] or ""] = true, [counted[3] or ""] = true} end
      end
      local is_told = told.level
      for _, window in ipairs(windows) do
        local is_in = window.from <= request_id and request_id < window.to
        is_told = is_told and (not is_in or told[window.name])
      end
      if not is_told then uncounted = uncounted + 1 end
    end
  end
end

-- Windows that are long over go, and all that another epoch has counted. Others stay, for calls that still end in them.
for _, field in ipairs(call("HKEYS", KEYS[2])) do
  local date = match(field, "^([%d%-]+)@")
  if date and (is_anew or date < string.sub(keep_from, 1, #date)) then gone[#gone + 1] = field end
end
local writes = {"epoch", epoch, "open", open}
for _, window in ipairs(windows) do
  local counted = not is_checked and not is_anew and whole(call("HGET", KEYS[2], window.name)) or 0
  writes[#writes + 1], writes[#writes + 2] = window.name, math.max(window.used, counted, 0)
end
if #gone > 0 then call("HDEL", KEYS[2], unpack(gone)) end
call("HSET", KEYS[2], unpack(writes))
return {"COUNTED", uncounted}

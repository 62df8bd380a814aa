--[[ reserve: sets credit aside for a call, if every bound allows it, and opens a lease. All or nothing.
     KEYS   1 shard  2 account  3 hold  4 leases  5… caps, one for each level that has some
     ARGV   1 epoch  2 request_id  3 account_id  4 amount  5 lease_ms  6 refusal_ttl_ms  7 fingerprint  8 attempt
            9 terms; with caps 10 tokens, and for each key of caps one line of eight words: level, day, day's limit,
            month, month's limit, concurrent, requests a minute, tokens a minute; "-" where there is no such cap
     Reply  {"RESERVED", amount, balance, held, …} | {"REFUSED", bound, needed, available, wait_ms} | {"ENDED", state}
            | {"REBUILDING", ms} | {"UNLOADED"} | {"UNCOUNTED"} | {"CONFLICT"} | {"EPOCH", current}
            …: for each key of caps, when the hold is taken anew: the requests and the tokens left now, -1 for no limit
     Safe to retry: an open hold answers RESERVED again, a refusal is remembered for refusal_ttl_ms and is decided anew
     only for a higher attempt. An id with another account or fingerprint is a CONFLICT. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local fingerprint = ARGV[7]
local amount, lease_ms, refusal_ttl_ms, attempt = whole(ARGV[4]), whole(ARGV[5]), whole(ARGV[6]), whole(ARGV[8])
if not amount or amount < 0 then return refuse("amount is not a whole number of 0 to 2^53 - 1") end
if not lease_ms or lease_ms < 1 then return refuse("lease_ms is not a positive whole number") end
if not refusal_ttl_ms or refusal_ttl_ms < 1 then return refuse("refusal_ttl_ms is not a positive whole number") end
if not attempt or attempt < 1 then return refuse("attempt is not a positive whole number") end
if not is_word(account_id) or not is_word(fingerprint) then return refuse("a word of the hold has a space") end

local shard = call("HMGET", KEYS[1], "epoch", "ready_at")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end

local known = read_hold(KEYS[3])
if known and known.epoch == epoch then
  if known.account ~= account_id or known.fingerprint ~= fingerprint then return {"CONFLICT"} end
  if known.state == "refused" then
    if attempt <= (whole(known.attempt) or unreadable()) then
      local bound, needed, available, wait_ms = rest_of(known, REFUSED)
      return {"REFUSED", bound, whole(needed), whole(available), whole(wait_ms) or 0}
    end
  elseif known.state == "open" then
    local balance, held = read_account(KEYS[2], epoch)
    if not balance then return held end
    return {"RESERVED", whole(known.amount), balance, held}
  else
    return {"ENDED", known.state}
  end
end

local now_us = clock_us()
local now = math.floor(now_us / 1000)
local ready_at = whole(shard[2])
if ready_at and now < ready_at then return {"REBUILDING", ready_at - now} end
local balance, held = read_account(KEYS[2], epoch)
if not balance then return held end

-- Every bound is looked at before anything is taken; the first that does not allow the call is named.
local available = balance - held
if not within(available) then return refuse("available credit is beyond 2^53") end
local bound, needed, wait_ms = nil, amount, 0
-- What holds nothing takes nothing: neither what is owed nor a cap that was overrun refuses it.
local takes_credit = amount > 0
if takes_credit and amount > available then bound = "balance" end

local reply, taken = {"RESERVED", amount, balance, held}, {}
if #KEYS > 4 and not bound then
  local MINUTE_US, FIRST_KEY, FIRST_LINE = 60000000, 5, 11
  local tokens = whole(ARGV[10])
  if not tokens or tokens < 0 or #ARGV ~= FIRST_LINE + #KEYS - FIRST_KEY then return refuse("caps are untold") end

  -- A rate is the time by which all that was taken has flowed off (GCRA): it may lie a minute ahead, and no more.
  -- Returns what is left; or nil, how much there is room for, and when there is room enough.
  local function take_rate(writes, field, stored, limit, asked)
    if not limit then return -1 end
    local full_us = math.min(math.max(stored - now_us, 0), MINUTE_US)  -- this Redis' clock may be behind the last one's
    if asked > limit or limit == 0 then return nil, math.floor((MINUTE_US - full_us) * limit / MINUTE_US), 0 end
    full_us = full_us + math.floor(asked * MINUTE_US / limit)
    local room = math.floor((MINUTE_US - full_us) * limit / MINUTE_US)
    if full_us > MINUTE_US then return nil, room + asked, math.ceil((full_us - MINUTE_US) / 1000) end
    writes[#writes + 1], writes[#writes + 2] = field, now_us + full_us
    return room
  end

  -- What one level allows: the fields and values to write, if it does; else the bound that does not.
  local function take(key, line)
    local writes = {}
    local level, day, day_limit, month, month_limit, concurrent, requests_limit, tokens_limit = match(line, CAPS_LINE)
    if not level then return nil, "UNTOLD" end
    day_limit, month_limit, concurrent = whole(day_limit), whole(month_limit), whole(concurrent)
    local found = call("HMGET", key, "epoch", "open", day, month, "requests", "tokens")
    if day_limit or month_limit or concurrent then
      local open, of_day, of_month = whole(found[2]), whole(found[3]), whole(found[4])
      if found[1] ~= epoch or not open or (day_limit and not of_day) or (month_limit and not of_month) then
        return nil, "UNCOUNTED"
      end
      if takes_credit and day_limit and of_day + amount > day_limit then
        return nil, level .. "_day", amount, day_limit - of_day, 0
      end
      if takes_credit and month_limit and of_month + amount > month_limit then
        return nil, level .. "_month", amount, month_limit - of_month, 0
      end
      if concurrent and open >= concurrent then return nil, level .. "_concurrent", 1, concurrent - open, 0 end
      writes[1], writes[2] = "open", open + 1
      if day_limit then writes[3], writes[4] = day, of_day + amount end
      if month_limit then writes[#writes + 1], writes[#writes + 2] = month, of_month + amount end
    end
    local left, room, wait = take_rate(writes, "requests", whole(found[5]) or 0, whole(requests_limit), 1)
    if not left then return nil, level .. "_requests", 1, room, wait end
    reply[#reply + 1] = left
    left, room, wait = take_rate(writes, "tokens", whole(found[6]) or 0, whole(tokens_limit), tokens)
    if not left then return nil, level .. "_tokens", tokens, room, wait end
    reply[#reply + 1] = left
    return writes
  end

  for index = FIRST_KEY, #KEYS do
    local room
    taken[index], bound, needed, room, wait_ms = take(KEYS[index], ARGV[FIRST_LINE + index - FIRST_KEY])
    if bound == "UNCOUNTED" then return {"UNCOUNTED"} end
    if bound == "UNTOLD" then return refuse("caps are untold") end
    if bound then
      available = room
      break
    end
  end
end

-- Written anew: what stands under the id is a refusal, or a hold of an earlier epoch, and lends this one nothing.
local hold = {epoch = epoch, account = account_id, attempt = ARGV[8], fingerprint = fingerprint, amount = ARGV[4]}
if bound then
  local rest = bound .. " " .. decimal(needed) .. " " .. decimal(available) .. " " .. decimal(wait_ms)
  call("SET", KEYS[3], line_of(hold, "refused", rest), "PX", ARGV[6])
  return {"REFUSED", bound, needed, available, wait_ms}
end
call("SET", KEYS[3], line_of(hold, "open", "0 {} " .. ARGV[9]))
call("ZADD", KEYS[4], now + lease_ms, request_id)
for index, writes in pairs(taken) do
  if #writes > 0 then call("HSET", KEYS[index], unpack(writes)) end
end
reply[4] = call("HINCRBY", KEYS[2], "held", ARGV[4])
return reply

--[[ extend: makes an open hold larger, if every bound in credits allows it. All or nothing.
     KEYS   1 shard  2 account  3 hold  4… caps, one for each level that has some
     ARGV   1 epoch  2 account_id  3 amount (in all) …: for each key of caps the line that reserve was told
     Reply  {"EXTENDED"} | {"REFUSED", bound, needed, available} (both in all) | {"ENDED", state} | {"REBUILDING", ms}
            | {"CONFLICT"} | {"MISSING"} | {"UNLOADED"} | {"UNCOUNTED"} | {"EPOCH", current}
     Safe to retry: a hold that is as large already answers EXTENDED, and nothing is taken. ]]
local epoch, account_id, amount = ARGV[1], ARGV[2], whole(ARGV[3])
local FIRST_KEY, FIRST_LINE = 4, 4
if not amount or amount < 0 then return refuse("amount is not a whole number of 0 to 2^53 - 1") end
if #ARGV ~= FIRST_LINE + #KEYS - FIRST_KEY then return refuse("caps are untold") end

local shard = call("HMGET", KEYS[1], "epoch", "ready_at")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end
local hold = read_hold(KEYS[3])
if not hold or hold.epoch ~= epoch or hold.state == "refused" then return {"MISSING"} end
if hold.account ~= account_id then return {"CONFLICT"} end
if hold.state ~= "open" then return {"ENDED", hold.state} end
local before = whole(hold.amount)
local growth = amount - before
if growth <= 0 then return {"EXTENDED"} end

-- Holds that run are still being registered: what they hold must not be given away.
local now, ready_at = now_ms(), whole(shard[2])
if ready_at and now < ready_at then return {"REBUILDING", ready_at - now} end
local balance, held = read_account(KEYS[2], epoch)
if not balance then return held end
local available = balance - held
if not within(available) then return refuse("available credit is beyond 2^53") end
if growth > available then return {"REFUSED", "balance", amount, before + available} end

local writes_of = {}
for index = FIRST_KEY, #KEYS do
  local level, day, day_limit, month, month_limit = match(ARGV[FIRST_LINE + index - FIRST_KEY], CAPS_LINE)
  if not level then return refuse("caps are untold") end
  day_limit, month_limit = whole(day_limit), whole(month_limit)
  local found = call("HMGET", KEYS[index], "epoch", day, month)
  local of_day, of_month = whole(found[2]), whole(found[3])
  if (day_limit or month_limit) and found[1] ~= epoch or (day_limit and not of_day) or (month_limit and not of_month) then
    return {"UNCOUNTED"}
  end
  if day_limit and of_day + growth > day_limit then
    return {"REFUSED", level .. "_day", amount, before + day_limit - of_day}
  end
  if month_limit and of_month + growth > month_limit then
    return {"REFUSED", level .. "_month", amount, before + month_limit - of_month}
  end
  local writes = {}
  if day_limit then writes[1], writes[2] = day, of_day + growth end
  if month_limit then writes[#writes + 1], writes[#writes + 2] = month, of_month + growth end
  writes_of[index] = writes
end

hold.amount = ARGV[3]
call("SET", KEYS[3], line_of(hold, "open", string.sub(hold.line, hold.rest_at)))
for index, writes in pairs(writes_of) do
  if #writes > 0 then call("HSET", KEYS[index], unpack(writes)) end
end
call("HINCRBY", KEYS[2], "held", growth)
return {"EXTENDED"}

--[[ renew: extends the lease of an open hold and records how far its call has come.
     KEYS   1 shard  2 hold  3 leases
     ARGV   1 epoch  2 request_id  3 account_id  4 lease_ms  5 progress  6 usage
     Reply  {"RENEWED"} | {"ENDED", state} | {"CONFLICT"} | {"MISSING"} | {"EPOCH", current}
     Safe to retry: progress is only ever raised. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local lease_ms, progress = whole(ARGV[4]), whole(ARGV[5])
if not lease_ms or lease_ms < 1 then return refuse("lease_ms is not a positive whole number") end
if not progress or progress < 0 then return refuse("progress is not a whole number of 0 to 2^53 - 1") end
if not is_word(ARGV[6]) then return refuse("usage has a space") end

local current = call("HGET", KEYS[1], "epoch")
if current ~= epoch then return {"EPOCH", current or ""} end
local hold = read_hold(KEYS[2])
if not hold or hold.epoch ~= epoch or hold.state == "refused" then return {"MISSING"} end
if hold.account ~= account_id then return {"CONFLICT"} end
if hold.state ~= "open" then return {"ENDED", hold.state} end

local before, _, terms = rest_of(hold, OPEN)
local is_further = progress > (whole(before) or unreadable())
call("ZADD", KEYS[3], now_ms() + lease_ms, request_id)
if is_further then
  call("SET", KEYS[2], line_of(hold, "open", ARGV[5] .. " " .. ARGV[6] .. " " .. terms))
end
return {"RENEWED"}

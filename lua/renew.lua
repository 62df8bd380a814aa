--[[ renew: extends the lease of an open hold and records how far its call has come.
     KEYS   1 shard  2 hold  3 leases
     ARGV   1 epoch  2 request_id  3 account_id  4 lease_ms  5 progress  6 usage
     Reply  {"RENEWED"} | {"ENDED", state} | {"CONFLICT"} | {"MISSING"} | {"EPOCH", current}
     Safe to retry: progress is only ever raised. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local lease_ms, progress = whole(ARGV[4]), whole(ARGV[5])
if not lease_ms or lease_ms < 1 then return refuse("lease_ms is not a positive whole number") end
if not progress or progress < 0 then return refuse("progress is not a whole number of 0 to 2^53 - 1") end

local current = redis.call("HGET", KEYS[1], "epoch")
if current ~= epoch then return {"EPOCH", current or ""} end
local hold = redis.call("HMGET", KEYS[2], "epoch", "state", "account", "progress")
if hold[1] ~= epoch or hold[2] == "refused" then return {"MISSING"} end
if hold[3] ~= account_id then return {"CONFLICT"} end
if hold[2] ~= "open" then return {"ENDED", hold[2]} end

redis.call("ZADD", KEYS[3], decimal(now_ms() + lease_ms), request_id)
if progress > (whole(hold[4]) or 0) then redis.call("HSET", KEYS[2], "progress", ARGV[5], "usage", ARGV[6]) end
return {"RENEWED"}

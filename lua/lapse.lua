--[[ lapse: ends a hold whose lease has run out: charges its last renewed progress, releases the rest, and appends what
     is known of the call to the outbox.
     KEYS   1 shard  2 account  3 hold  4 leases  5 outbox
     ARGV   1 epoch  2 request_id  3 account_id
     Reply  {"LAPSED", event_id} | {"LIVE"} | {"ENDED", state} | {"CONFLICT"} | {"MISSING"} | {"UNLOADED"}
            | {"EPOCH", current}
     Safe to retry: a lapsed hold answers with the first event id. A lease without its hold is dropped, and so is a hold
     of an earlier epoch that nobody has restored by the end of its lease. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local shard = redis.call("HMGET", KEYS[1], "epoch", "seq")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end

local lease_ends_at = redis.call("ZSCORE", KEYS[4], request_id)
if lease_ends_at and tonumber(lease_ends_at) > now_ms() then return {"LIVE"} end
local known = redis.call("HMGET", KEYS[3], "epoch", "state", "account", "amount", "attempt", "fingerprint",
  "progress", "usage", "terms", "event")
if known[1] ~= epoch or known[2] == "refused" then
  redis.call("ZREM", KEYS[4], request_id)
  if known[1] and known[2] == "open" then redis.call("DEL", KEYS[3]) end
  return {"MISSING"}
end
if known[3] ~= account_id then return {"CONFLICT"} end
if known[2] == "lapsed" and known[10] then return {"LAPSED", known[10]} end
if known[2] ~= "open" then
  redis.call("ZREM", KEYS[4], request_id)
  return {"ENDED", known[2]}
end

local amount, progress = whole(known[4]), whole(known[7] or "0")
if not amount or not progress then return refuse("hold is not in whole numbers below 2^53") end
local hold = {epoch = epoch, account = account_id, amount = known[4], attempt = known[5], fingerprint = known[6]}
local ending = {
  seq = shard[2], request_id = request_id, state = "lapsed", phase = "end", kind = "lapse",
  debit = progress, release = amount, cost = progress,
}
local details = {"held", known[4], "terms", known[9], "usage", known[8] or "{}"}
local balance, held, event_id = finish(hold, ending, details)
if not balance then return held end
return {"LAPSED", event_id}

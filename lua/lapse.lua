--[[ lapse: ends a hold whose lease has run out: charges its last renewed progress, releases the rest, and appends what
     is known of the call to the outbox.
     KEYS   1 shard  2 account  3 hold  4 leases  5 outbox  6… caps, one for each level the hold is counted in
     ARGV   1 epoch  2 request_id  3 account_id …: day and month for each key of caps
     Reply  {"LAPSED", event_id} | {"LIVE"} | {"ENDED", state} | {"CONFLICT"} | {"MISSING"} | {"UNLOADED"}
            | {"EPOCH", current}
     Safe to retry: a lapsed hold answers with the first event id. A lease without its hold is dropped, and so is a hold
     of an earlier epoch that nobody has restored by the end of its lease; but not before the shard is rebuilt, which
     carries it over: until then it is LIVE. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local shard = call("HMGET", KEYS[1], "epoch", "seq", "ready_at")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end

local lease_ends_at = call("ZSCORE", KEYS[4], request_id)
if lease_ends_at and lease_ends_at + 0 > now_ms() then return {"LIVE"} end
local hold = read_hold(KEYS[3])
if hold and hold.epoch ~= epoch and now_ms() < (whole(shard[3]) or 0) then return {"LIVE"} end
if not hold or hold.epoch ~= epoch or hold.state == "refused" then
  call("ZREM", KEYS[4], request_id)
  if hold and hold.state == "open" then call("DEL", KEYS[3]) end
  return {"MISSING"}
end
if hold.account ~= account_id then return {"CONFLICT"} end
if hold.state == "lapsed" then
  local _, event_id = rest_of(hold, ENDED)
  if event_id ~= "" then return {"LAPSED", event_id} end
end
if hold.state ~= "open" then
  call("ZREM", KEYS[4], request_id)
  return {"ENDED", hold.state}
end

local charged, usage, terms = rest_of(hold, OPEN)
local progress = whole(charged) or unreadable()
local ending = {
  seq = shard[2], state = "lapsed", phase = "end", kind = "lapse",
  debit = progress, release = whole(hold.amount), cost = charged,
}
local balance, held, event_id = finish(hold, ending, "held", hold.amount, "terms", terms, "usage", usage)
if not balance then return held end
return {"LAPSED", event_id}

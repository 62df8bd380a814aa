--[[ reserve: sets credit aside for a call, if every bound allows it, and opens a lease. All or nothing.
     KEYS   1 shard  2 account  3 hold  4 leases
     ARGV   1 epoch  2 request_id  3 account_id  4 amount  5 lease_ms  6 refusal_ttl_ms  7 fingerprint  8 attempt
            9 terms
     Reply  {"RESERVED", amount, balance, held} | {"REFUSED", bound, needed, available} | {"ENDED", state}
            | {"REBUILDING", ms} | {"UNLOADED"} | {"CONFLICT"} | {"EPOCH", current}
     Safe to retry: an open hold answers RESERVED again, a refusal is remembered for refusal_ttl_ms and is decided anew
     only for a higher attempt. An id with another account or fingerprint is a CONFLICT. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local fingerprint = ARGV[7]
local amount, lease_ms, refusal_ttl_ms, attempt = whole(ARGV[4]), whole(ARGV[5]), whole(ARGV[6]), whole(ARGV[8])
if not amount or amount < 0 then return refuse("amount is not a whole number of 0 to 2^53 - 1") end
if not lease_ms or lease_ms < 1 then return refuse("lease_ms is not a positive whole number") end
if not refusal_ttl_ms or refusal_ttl_ms < 1 then return refuse("refusal_ttl_ms is not a positive whole number") end
if not attempt or attempt < 1 then return refuse("attempt is not a positive whole number") end

local shard = redis.call("HMGET", KEYS[1], "epoch", "ready_at")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end

local known = redis.call("HMGET", KEYS[3], "epoch", "state", "account", "fingerprint", "amount", "attempt")
if known[1] == epoch then
  if known[3] ~= account_id or known[4] ~= fingerprint then return {"CONFLICT"} end
  if known[2] == "refused" then
    if attempt <= whole(known[6]) then
      local refusal = redis.call("HMGET", KEYS[3], "bound", "needed", "available")
      return {"REFUSED", refusal[1], whole(refusal[2]), whole(refusal[3])}
    end
  elseif known[2] == "open" then
    local balance, held = read_account(KEYS[2], epoch)
    if not balance then return held end
    return {"RESERVED", whole(known[5]), balance, held}
  else
    return {"ENDED", known[2]}
  end
end

local now = now_ms()
local ready_at = whole(shard[2])
if ready_at and now < ready_at then return {"REBUILDING", ready_at - now} end
local balance, held = read_account(KEYS[2], epoch)
if not balance then return held end

-- Every bound is looked at before anything is taken; the first that does not allow the call is named.
local available = balance - held
if not within(available) then return refuse("available credit is beyond 2^53") end
local bound, needed
if amount > available then bound, needed = "balance", amount end

-- What stands under the id is a refusal, or a hold of an earlier epoch; neither may lend this one its fields or its end.
if known[1] then redis.call("DEL", KEYS[3]) end
if bound then
  redis.call("HSET", KEYS[3], "epoch", epoch, "state", "refused", "account", account_id, "attempt", ARGV[8],
    "fingerprint", fingerprint, "bound", bound, "needed", decimal(needed), "available", decimal(available))
  redis.call("PEXPIRE", KEYS[3], ARGV[6])
  return {"REFUSED", bound, needed, available}
end
redis.call("ZADD", KEYS[4], decimal(now + lease_ms), request_id)
redis.call("HSET", KEYS[3], "epoch", epoch, "state", "open", "account", account_id, "amount", ARGV[4],
  "attempt", ARGV[8], "fingerprint", fingerprint, "terms", ARGV[9])
return {"RESERVED", amount, balance, redis.call("HINCRBY", KEYS[2], "held", ARGV[4])}

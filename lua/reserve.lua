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
if not is_word(account_id) or not is_word(fingerprint) then return refuse("a word of the hold has a space") end

local shard = call("HMGET", KEYS[1], "epoch", "ready_at")
if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end

local known = read_hold(KEYS[3])
if known and known.epoch == epoch then
  if known.account ~= account_id or known.fingerprint ~= fingerprint then return {"CONFLICT"} end
  if known.state == "refused" then
    if attempt <= (whole(known.attempt) or unreadable()) then
      local bound, needed, available = rest_of(known, REFUSED)
      return {"REFUSED", bound, whole(needed), whole(available)}
    end
  elseif known.state == "open" then
    local balance, held = read_account(KEYS[2], epoch)
    if not balance then return held end
    return {"RESERVED", whole(known.amount), balance, held}
  else
    return {"ENDED", known.state}
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

-- Written anew: what stands under the id is a refusal, or a hold of an earlier epoch, and lends this one nothing.
local hold = {epoch = epoch, account = account_id, attempt = ARGV[8], fingerprint = fingerprint, amount = ARGV[4]}
if bound then
  local rest = bound .. " " .. decimal(needed) .. " " .. decimal(available)
  call("SET", KEYS[3], line_of(hold, "refused", rest), "PX", ARGV[6])
  return {"REFUSED", bound, needed, available}
end
call("SET", KEYS[3], line_of(hold, "open", "0 {} " .. ARGV[9]))
call("ZADD", KEYS[4], now + lease_ms, request_id)
return {"RESERVED", amount, balance, call("HINCRBY", KEYS[2], "held", ARGV[4])}

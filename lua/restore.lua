--[[ restore: registers a hold again that Redis has lost, unchecked: its call is running, or has run. A hold whose lapse
     Postgres has is registered as lapsed, with what that charged, so that its late settlement corrects it.
     KEYS   1 shard  2 account  3 hold  4 leases  5… caps, one for each level the hold is counted in
     ARGV   1 epoch  2 request_id  3 account_id  4 amount  5 lease_ms  6 fingerprint  7 attempt  8 terms
            9 lapsed_cost ("" for an open hold)  10… day and month for each key of caps
     Reply  {"RESTORED"} | {"ALREADY"} | {"CONFLICT"} | {"UNLOADED"} | {"EPOCH", current}
     Safe to retry: what stands under the id in this epoch is never touched; another account's is a CONFLICT. ]]
local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
local amount, lease_ms = whole(ARGV[4]), whole(ARGV[5])
if not amount or amount < 0 then return refuse("amount is not a whole number of 0 to 2^53 - 1") end
if not lease_ms or lease_ms < 1 then return refuse("lease_ms is not a positive whole number") end
if not whole(ARGV[7]) then return refuse("attempt is not a whole number") end
local is_lapsed = ARGV[9] ~= ""
if is_lapsed and not whole(ARGV[9]) then return refuse("lapsed_cost is not a whole number within 2^53") end
if not is_word(account_id) or not is_word(ARGV[6]) then return refuse("a word of the hold has a space") end

local current = call("HGET", KEYS[1], "epoch")
if current ~= epoch then return {"EPOCH", current or ""} end
local known = read_hold(KEYS[3])
if known and known.epoch == epoch and known.state ~= "refused" then
  return {known.account == account_id and "ALREADY" or "CONFLICT"}
end
local balance, held = read_account(KEYS[2], epoch)
if not balance then return held end
if not within(held + amount) then return refuse("held would pass 2^53") end

local hold = {epoch = epoch, account = account_id, attempt = ARGV[7], fingerprint = ARGV[6], amount = ARGV[4]}
if is_lapsed then
  call("SET", KEYS[3], line_of(hold, "lapsed", ARGV[9] .. " "))
else
  call("SET", KEYS[3], line_of(hold, "open", "0 {} " .. ARGV[8]))
  call("ZADD", KEYS[4], now_ms() + lease_ms, request_id)
  call("HINCRBY", KEYS[2], "held", ARGV[4])
  for index = 5, #KEYS do
    local writes = recounted(KEYS[index], epoch, ARGV[2 * index], ARGV[2 * index + 1], amount, 1)
    if #writes > 0 then call("HSET", KEYS[index], unpack(writes)) end
  end
end
return {"RESTORED"}

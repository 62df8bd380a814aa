--[[ capture: debits what a call cost, frees its hold and appends the settlement to the outbox. A hold that had lapsed
     is corrected instead: the difference to what the lapse charged is debited (or given back), once.
     KEYS   1 shard  2 account  3 hold  4 leases  5 outbox  6… caps, one for each level the hold is counted in
     ARGV   1 epoch  2 request_id  3 account_id  4 cost  5 data …: day and month for each key of caps
     Reply  {"CAPTURED", balance, held, event_id} | {"CONFLICT"} | {"MISSING"} | {"UNLOADED"} | {"EPOCH", current}
     Safe to retry: the same cost answers with the first event id; another cost, or a void before, is a CONFLICT. ]]
local cost = whole(ARGV[4])
if not cost or cost < 0 then return refuse("cost is not a whole number of 0 to 2^53 - 1") end
return settle("capture", "captured", "CAPTURED", ARGV[4], ARGV[5])

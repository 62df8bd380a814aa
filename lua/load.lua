--[[ load: sets an account's absolute values, as Postgres has them, under this epoch; unless it is loaded already.
     KEYS   1 shard  2 account
     ARGV   1 epoch  2 balance  3 credit_seq
     Reply  {"LOADED"} | {"ALREADY"} | {"EPOCH", current}
     Safe to retry: a loaded account is never touched. Its open holds are counted in by restore, not here. ]]
local epoch = ARGV[1]
if not whole(ARGV[2]) then return refuse("balance is not a whole number within 2^53") end
local credit_seq = whole(ARGV[3])
if not credit_seq or credit_seq < 0 then return refuse("credit_seq is not a whole number of 0 to 2^53 - 1") end

local current = call("HGET", KEYS[1], "epoch")
if current ~= epoch then return {"EPOCH", current or ""} end
if call("HGET", KEYS[2], "epoch") == epoch then return {"ALREADY"} end
call("HSET", KEYS[2], "epoch", epoch, "balance", ARGV[2], "held", "0", "credit_seq", ARGV[3])
return {"LOADED"}

--[[ grant: applies one credit movement of Postgres (top-up, grant, refund, reversal …) to a balance, in its order.
     KEYS   1 shard  2 account
     ARGV   1 epoch  2 credit_seq  3 amount (may be negative)
     Reply  {"GRANTED", balance} | {"ALREADY"} | {"GAP", credit_seq} | {"UNLOADED"} | {"EPOCH", current}
     Safe to retry: each movement is applied once, and only when the one before it has been. ]]
local epoch, credit_seq, amount = ARGV[1], whole(ARGV[2]), whole(ARGV[3])
if not credit_seq or credit_seq < 1 then return refuse("credit_seq is not a positive whole number") end
if not amount then return refuse("amount is not a whole number within 2^53") end

local current = call("HGET", KEYS[1], "epoch")
if current ~= epoch then return {"EPOCH", current or ""} end
local balance, unreadable = read_account(KEYS[2], epoch)
if not balance then return unreadable end
local applied = whole(call("HGET", KEYS[2], "credit_seq"))
if not applied then return refuse("credit_seq is not a whole number below 2^53") end
if credit_seq <= applied then return {"ALREADY"} end
if credit_seq > applied + 1 then return {"GAP", applied} end
if not within(balance + amount) then return refuse("balance would pass 2^53") end

call("HSET", KEYS[2], "credit_seq", ARGV[2])
return {"GRANTED", call("HINCRBY", KEYS[2], "balance", ARGV[3])}

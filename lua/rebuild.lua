--[[ rebuild: starts a new epoch of a shard: everything of an earlier one no longer counts as present.
     KEYS   1 shard
     ARGV   1 epoch  2 seq (of the last event Postgres has)  3 grace_ms (before reserves are taken again)
     Reply  {"REBUILT"} | {"OLD", epoch}
     Safe to retry: the current epoch is left as it is. seq is never lowered, so that it grows by one from event to event
     across epochs too. ]]
local epoch, seq, grace_ms = whole(ARGV[1]), whole(ARGV[2]), whole(ARGV[3])
if not epoch or epoch < 1 then return refuse("epoch is not a positive whole number") end
if not seq or seq < 0 then return refuse("seq is not a whole number of 0 to 2^53 - 1") end
if not grace_ms or grace_ms < 0 then return refuse("grace_ms is not a whole number of 0 to 2^53 - 1") end

local shard = call("HMGET", KEYS[1], "epoch", "seq")
local current = whole(shard[1] or "0")
if not current then return refuse("the shard's epoch is not a whole number") end
if current > epoch then return {"OLD", shard[1]} end
if current < epoch then
  local last = math.max(seq, whole(shard[2] or "0") or 0)
  call("HSET", KEYS[1], "epoch", ARGV[1], "seq", last, "ready_at", now_ms() + grace_ms)
end
return {"REBUILT"}

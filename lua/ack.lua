--[[ ack: Postgres has every event up to a position: removes them from the outbox and lets the tombstones expire.
     KEYS   1 outbox  2… holds
     ARGV   1 epoch  2 seq (of the position)  3 tombstone_ttl_ms
     Reply  {"ACKED"}
     Safe to retry, and needs no epoch check: it lets go only of what Postgres has. A hold that is open, or ended by a
     later event than the position, is left alone. At most 5000 holds. ]]
local EVENT_ID_LENGTH_MAX = 33 -- two numbers below 2^53 and a dash

local epoch, seq, ttl_ms = whole(ARGV[1]), whole(ARGV[2]), whole(ARGV[3])
if not epoch or epoch < 0 then return refuse("epoch is not a whole number below 2^53") end
if not seq or seq < 0 or not within(seq + 1) then return refuse("seq is not a whole number below 2^53") end
if not ttl_ms or ttl_ms < 1 then return refuse("tombstone_ttl_ms is not a positive whole number") end

call("XTRIM", KEYS[1], "MINID", ARGV[1] .. "-" .. decimal(seq + 1))
if #KEYS == 1 then return {"ACKED"} end
for index, line in ipairs(call("MGET", unpack(KEYS, 2))) do
  -- The last word of a hold that has ended; none of an open one, whose terms may look like it.
  local is_open = not line or find(line, "^%d+ open ")
  local ended_epoch, ended_seq
  if not is_open then ended_epoch, ended_seq = match(line, " (%d+)%-(%d+)$", -EVENT_ID_LENGTH_MAX - 1) end
  if ended_epoch then
    ended_epoch, ended_seq = ended_epoch + 0, ended_seq + 0
    if ended_epoch < epoch or (ended_epoch == epoch and ended_seq <= seq) then
      call("PEXPIRE", KEYS[index + 1], ARGV[3])
    end
  end
end
return {"ACKED"}

--[[ ack: Postgres has every event up to a position: removes them from the outbox and lets the tombstones expire.
     KEYS   1 outbox  2… holds
     ARGV   1 epoch  2 seq (of the position)  3 tombstone_ttl_ms
     Reply  {"ACKED"}
     Safe to retry, and needs no epoch check: it lets go only of what Postgres has. A hold that is open, or ended by a
     later event than the position, is left alone. ]]
local epoch, seq, ttl_ms = whole(ARGV[1]), whole(ARGV[2]), whole(ARGV[3])
if not epoch or epoch < 0 then return refuse("epoch is not a whole number below 2^53") end
if not seq or seq < 0 or not within(seq + 1) then return refuse("seq is not a whole number below 2^53") end
if not ttl_ms or ttl_ms < 1 then return refuse("tombstone_ttl_ms is not a positive whole number") end

redis.call("XTRIM", KEYS[1], "MINID", ARGV[1] .. "-" .. decimal(seq + 1))
for index = 2, #KEYS do
  local event_id = redis.call("HGET", KEYS[index], "event")
  if event_id then
    local dash = string.find(event_id, "-", 1, true)
    local ended_epoch, ended_seq = tonumber(string.sub(event_id, 1, dash - 1)), tonumber(string.sub(event_id, dash + 1))
    if ended_epoch < epoch or (ended_epoch == epoch and ended_seq <= seq) then
      redis.call("PEXPIRE", KEYS[index], ARGV[3])
    end
  end
end
return {"ACKED"}

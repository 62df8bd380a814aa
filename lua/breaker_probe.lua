--[[ breaker_probe: lets a gateway probe for a half-open breaker, if the fleet has fewer probes under way than it may.
     KEYS   1 breaker
     ARGV   1 version  2 token (of the probe)  3 lease_ms (0: the probe has ended)  4 probes_max
     Reply  {"LEASED"} | {"FULL"} | {"OTHER"} (it is not half open in that version) | {"ENDED"}
     Safe to retry. A gateway that dies with its probe frees the place when the lease is over. ]]
local version, token, lease_ms, probes_max = ARGV[1], ARGV[2], whole(ARGV[3]), whole(ARGV[4])
if not whole(version) then return refuse("version is not a whole number") end
if not lease_ms or lease_ms < 0 or not probes_max then return refuse("lease_ms or probes_max is not a whole number") end

local key, mine = KEYS[1], "probe:" .. token
if lease_ms == 0 then
  call("HDEL", key, mine)
  return {"ENDED"}
end
local held = call("HMGET", key, "version", "state")
if held[1] ~= version or held[2] ~= "half_open" then return {"OTHER"} end

local now, others = now_ms(), 0
local all = call("HGETALL", key)
for i = 1, #all, 2 do
  if find(all[i], "^probe:") and all[i] ~= mine then
    if whole(all[i + 1]) > now then others = others + 1 else call("HDEL", key, all[i]) end
  end
end
if others >= probes_max then return {"FULL"} end
call("HSET", key, mine, decimal(now + lease_ms))
return {"LEASED"}

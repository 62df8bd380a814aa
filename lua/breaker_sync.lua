--[[ breaker_sync: adds what one gateway counted to a breaker of the fleet, and takes its decision if it was made from
     the version that holds. A breaker that is not there (Redis was emptied) is taken as the gateway has it.
     KEYS   1 breaker
     ARGV   1 base_version  2 state  3 version  4 age_ms (since it changed)  5 left_ms (of its open time)  6 openings
            7 successes  8 cause  9 counts (seven, parted by spaces)  10 bucket_ms  11 buckets  12 ttl_ms
     Reply  {state, version, age_ms, left_ms, openings, successes, cause, age, counts, age, counts …}: what holds now, and
            what was counted under it, by the age of each bucket.
     No money: run twice, it decides once and counts twice, so a report is sent once. ]]
local base, state, version, counts = ARGV[1], ARGV[2], ARGV[3], ARGV[9]
local age_ms, left_ms = whole(ARGV[4]), whole(ARGV[5])
local bucket_ms, buckets, ttl_ms = whole(ARGV[10]), whole(ARGV[11]), whole(ARGV[12])
if not whole(base) or not whole(version) then return refuse("version is not a whole number") end
if not age_ms or age_ms < 0 or not left_ms or left_ms < 0 then return refuse("a time is not a whole number") end
if not bucket_ms or bucket_ms < 1 or not buckets or buckets < 1 or not ttl_ms or ttl_ms < 1 then
  return refuse("bucket_ms, buckets and ttl_ms are positive whole numbers")
end
local COUNTS = "^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$"
local added = {match(counts, COUNTS)}
if #added ~= 7 then return refuse("counts are not seven whole numbers") end

local now, key = now_ms(), KEYS[1]
local newest = math.floor(now / bucket_ms)
local held = call("HMGET", key, "version", "state", "changed", "until", "openings", "successes", "cause")
if not held[1] or (held[1] == base and whole(version) > whole(base)) then
  held = {version, state, decimal(math.max(0, now - age_ms)), decimal(now + left_ms), ARGV[6], ARGV[7], ARGV[8]}
  local fields = call("HKEYS", key)
  for _, field in ipairs(fields) do
    if find(field, "^bucket:") then call("HDEL", key, field) end
  end
  call("HSET", key, "version", held[1], "state", held[2], "changed", held[3], "until", held[4], "openings", held[5],
    "successes", held[6], "cause", held[7])
end

if held[1] == base and version == base and counts ~= "0 0 0 0 0 0 0" then
  local field = "bucket:" .. decimal(newest)
  local sums = {match(call("HGET", key, field) or "0 0 0 0 0 0 0", COUNTS)}
  for i = 1, 7 do sums[i] = decimal((sums[i] or 0) + added[i]) end
  call("HSET", key, field, table.concat(sums, " "))
end
call("PEXPIRE", key, ttl_ms)

local reply = {
  held[2], held[1], math.max(0, now - held[3]), math.max(0, held[4] - now), held[5], held[6], held[7],
}
local all = call("HGETALL", key)
for i = 1, #all, 2 do
  local number = match(all[i], "^bucket:(%d+)$")
  if number and number + 0 > newest - buckets then
    reply[#reply + 1] = newest - number
    reply[#reply + 1] = all[i + 1]
  elseif number then
    call("HDEL", key, all[i])
  end
end
return reply

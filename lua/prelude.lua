--[[ prelude: put in front of every other script by gateway/adapters/redis/scripts.py; no script of its own.
     Whole numbers without loss, Redis' clock, how a hold is written down, and the one way in which it ends.

     Amounts come as decimal strings. A sum of two amounts that is in range is exact as a double, and one that is out of
     range stays out of range when it is rounded; so checking the double checks the true sum. ]]

-- Looked up once: scripts do little else.
local call, find, match = redis.call, string.find, string.match

local LIMIT = 9007199254740991 -- 2^53 - 1

-- What is told of one level of caps, "-" where there is no such cap: the level, the day and its limit, the month and its
-- limit, calls at once, requests and tokens a minute.
local CAPS_LINE = "^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$"

local function within(number) return number <= LIMIT and number >= -LIMIT end

-- The number that `text` stands for, or nil if it is no whole number within the limit. As strict as HINCRBY, which
-- takes neither "-0" nor "01", and would refuse them only after other writes.
local function whole(text)
  if text == "0" then return 0 end
  if not text or not find(text, "^%-?[1-9]%d*$") then return nil end
  local number = text + 0 -- as tonumber, at a third of its cost
  if number > LIMIT or number < -LIMIT then return nil end
  return number
end

-- A number as Redis reads it back; `..` and tostring keep 14 digits only. An argument of redis.call needs none of this:
-- it is printed with 17.
local function decimal(number) return string.format("%.0f", number) end

local function refuse(what) return redis.error_reply("TOLLGATE " .. what) end

local function clock_us()
  local time = call("TIME")
  return time[1] * 1000000 + time[2]
end

local function now_ms() return math.floor(clock_us() / 1000) end

-- balance, held of an account loaded under `epoch`; else nil and the reply to give.
local function read_account(key, epoch)
  local account = call("HMGET", key, "epoch", "balance", "held")
  if account[1] ~= epoch then return nil, {"UNLOADED"} end
  local balance, held = whole(account[2]), whole(account[3])
  if not balance or not held then return nil, refuse("account is not in whole numbers below 2^53") end
  return balance, held
end

-- A hold is one line: six words that every state has, then those of its own (README.md names them), parted by spaces. So
-- no word has a space in it; terms, which may, stand last. One short string costs Redis much less than a hash.
local HOLD = "^(%d+) (%l+) (%S*) (%d+) (%S*) (%d+) ()"
local OPEN = "^(%d+) (%S*) (.*)$" -- progress, usage, terms
local ENDED = "^(%-?%d+) (%S*)$" -- cost (in total), event id of the last event
local REFUSED = "^([%l_]+) (%d+) (%-?%d+) ?(%d*)$" -- bound, needed, available, wait in ms

local function is_word(text) return find(text, "^%S*$") end

local function unreadable() error(refuse("hold is unreadable")) end

-- The hold under `key`; nil if there is none.
local function read_hold(key)
  local line = call("GET", key)
  if not line then return nil end
  local epoch, state, account, attempt, fingerprint, amount, rest_at = match(line, HOLD)
  if not whole(amount) then unreadable() end
  return {
    epoch = epoch, state = state, account = account, attempt = attempt, fingerprint = fingerprint, amount = amount,
    line = line, rest_at = rest_at,
  }
end

-- What the state of a hold has beside the six words.
local function rest_of(hold, pattern)
  local first, second, third, fourth = match(string.sub(hold.line, hold.rest_at), pattern)
  if not first then unreadable() end
  return first, second, third, fourth
end

local function line_of(hold, state, rest)
  return hold.epoch .. " " .. state .. " " .. hold.account .. " " .. hold.attempt .. " " .. hold.fingerprint .. " "
    .. hold.amount .. " " .. rest
end

-- Where an ending finds what it needs: the KEYS of capture, void and lapse, in this order; then one for each level of
-- caps that the hold stands in, of which the last ARGV, in pairs, name the day and the month ("" where there is none).
local SHARD, ACCOUNT, HOLD_KEY, LEASES, OUTBOX = 1, 2, 3, 4, 5

-- The new values of a level's counters when `credits` are added (or taken off) and `calls` are open more (or less): fields
-- and values for HSET. What another epoch counted, or what was never counted, is left alone: it will be counted anew.
local function recounted(key, epoch, day, month, credits, calls)
  local found = call("HMGET", key, "epoch", "open", day, month)
  local writes = {}
  if found[1] ~= epoch then return writes end
  local open, of_day, of_month = whole(found[2]), whole(found[3]), whole(found[4])
  if open and calls ~= 0 then writes[1], writes[2] = "open", math.max(open + calls, 0) end
  if of_day then writes[#writes + 1], writes[#writes + 2] = day, math.max(of_day + credits, 0) end
  if of_month then writes[#writes + 1], writes[#writes + 2] = month, math.max(of_month + credits, 0) end
  return writes
end

--[[ Ends a hold: appends its event, leaves a tombstone, moves the account's money. Returns balance, held, event id; or
     nil and the reply to give, and then nothing was written: the append, the only write that can fail, comes first.
     ending: seq, state (the hold's next), phase, kind, debit (of the balance), release (of held), cost (in total, as
     text) · …: further fields of the event. ]]
local function finish(hold, ending, ...)
  local balance, held = read_account(KEYS[ACCOUNT], hold.epoch)
  if not balance then return nil, held end
  local debit, request_id, seq = ending.debit, ARGV[2], whole(ending.seq)
  if not seq or not within(seq + 1) then return nil, refuse("seq is not a whole number below 2^53") end
  if not within(balance - debit) then return nil, refuse("balance would pass 2^53") end
  local writes_of, calls, named_at = {}, ending.phase == "end" and -1 or 0, #ARGV - 2 * (#KEYS - OUTBOX)
  for index = OUTBOX + 1, #KEYS do
    local day, month = ARGV[named_at + 1], ARGV[named_at + 2]
    writes_of[index] = recounted(KEYS[index], hold.epoch, day, month, debit - ending.release, calls)
    named_at = named_at + 2
  end

  local event_id = hold.epoch .. "-" .. decimal(seq + 1)
  call("XADD", KEYS[OUTBOX], event_id, "phase", ending.phase, "kind", ending.kind,
    "request_id", request_id, "account", hold.account, "cost", debit, ...)
  call("HINCRBY", KEYS[SHARD], "seq", 1)
  -- Written anew: it loses its terms, and the time to live that an earlier ending was given.
  call("SET", KEYS[HOLD_KEY], line_of(hold, ending.state, ending.cost .. " " .. event_id))
  call("ZREM", KEYS[LEASES], request_id)
  for index = OUTBOX + 1, #KEYS do
    if #writes_of[index] > 0 then call("HSET", KEYS[index], unpack(writes_of[index])) end
  end
  -- Only a hand that changed `held` makes it fall short of a hold; it never goes below zero.
  local release = math.min(ending.release, held)
  balance, held = balance - debit, held - release
  if debit ~= 0 or release ~= 0 then call("HSET", KEYS[ACCOUNT], "balance", balance, "held", held) end
  return balance, held, event_id
end

-- What capture and void do: end an open hold, correct a lapsed one, repeat the answer for one that ended so already.
local function settle(kind, state, word, cost, data)
  local epoch, account_id = ARGV[1], ARGV[3]
  local shard = call("HMGET", KEYS[SHARD], "epoch", "seq")
  if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end
  local hold = read_hold(KEYS[HOLD_KEY])
  if not hold or hold.epoch ~= epoch or hold.state == "refused" then return {"MISSING"} end
  if hold.account ~= account_id then return {"CONFLICT"} end

  local phase, debit, release = "end", whole(cost), whole(hold.amount)
  if hold.state ~= "open" then
    local ended_cost, event_id = rest_of(hold, ENDED)
    if hold.state == "lapsed" then
      phase, debit, release = "correction", debit - (whole(ended_cost) or unreadable()), 0
    elseif hold.state == state and ended_cost == cost then
      local balance, held = read_account(KEYS[ACCOUNT], epoch)
      if not balance then return held end
      return {word, balance, held, event_id}
    else
      return {"CONFLICT"}
    end
  end
  local ending = {
    seq = shard[2], state = state, phase = phase, kind = kind, debit = debit, release = release, cost = cost,
  }
  local balance, held, event_id = finish(hold, ending, "data", data)
  if not balance then return held end
  return {word, balance, held, event_id}
end

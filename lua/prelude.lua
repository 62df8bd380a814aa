--[[ prelude: put in front of every other script by gateway/adapters/scripts.py; no script of its own.
     Whole numbers without loss, Redis' clock, and the one way in which a hold ends.

     Amounts come as decimal strings. A sum of two amounts that is in range is exact as a double, and one that is out of
     range stays out of range when it is rounded; so checking the double checks the true sum. ]]

local LIMIT = 9007199254740991 -- 2^53 - 1

local function within(number) return number <= LIMIT and number >= -LIMIT end

-- The number that `text` stands for, or nil if it is no whole number within the limit. As strict as HINCRBY, which
-- takes neither "-0" nor "01", and would refuse them only after other writes.
local function whole(text)
  if text == "0" then return 0 end
  if type(text) ~= "string" or not string.find(text, "^%-?[1-9]%d*$") then return nil end
  local number = tonumber(text)
  return within(number) and number or nil
end

-- As Redis reads it back; `..` and tostring keep 14 digits only.
local function decimal(number) return string.format("%.0f", number) end

local function refuse(what) return redis.error_reply("TOLLGATE " .. what) end

local function now_ms()
  local time = redis.call("TIME")
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- balance, held of an account loaded under `epoch`; else nil and the reply to give.
local function read_account(key, epoch)
  local account = redis.call("HMGET", key, "epoch", "balance", "held")
  if account[1] ~= epoch then return nil, {"UNLOADED"} end
  local balance, held = whole(account[2]), whole(account[3])
  if not balance or not held then return nil, refuse("account is not in whole numbers below 2^53") end
  return balance, held
end

-- Where an ending finds what it needs: the KEYS of capture, void and lapse, in this order.
local SHARD, ACCOUNT, HOLD, LEASES, OUTBOX = 1, 2, 3, 4, 5

--[[ Ends a hold: appends its event, leaves a tombstone, moves the account's money. Returns balance, held, event id; or
     nil and the reply to give, and then nothing was written: the append, the only write that can fail, comes first.
     hold: epoch, account, amount, attempt, fingerprint as stored · ending: seq, request_id, state (the hold's next),
     phase, kind, debit (of the balance), release (of held), cost (in total) · details: further fields of the event. ]]
local function finish(hold, ending, details)
  local balance, held = read_account(KEYS[ACCOUNT], hold.epoch)
  if not balance then return nil, held end
  local seq = whole(ending.seq)
  if not seq or not within(seq + 1) then return nil, refuse("seq is not a whole number below 2^53") end
  if not within(balance - ending.debit) then return nil, refuse("balance would pass 2^53") end

  local event_id = hold.epoch .. "-" .. decimal(seq + 1)
  redis.call("XADD", KEYS[OUTBOX], event_id, "phase", ending.phase, "kind", ending.kind,
    "request_id", ending.request_id, "account", hold.account, "cost", decimal(ending.debit), unpack(details))
  redis.call("HINCRBY", KEYS[SHARD], "seq", 1)
  -- Written anew, not changed: it loses its bulk, and the time to live that an earlier ending was given.
  redis.call("DEL", KEYS[HOLD])
  redis.call("HSET", KEYS[HOLD], "epoch", hold.epoch, "state", ending.state, "account", hold.account,
    "amount", hold.amount, "attempt", hold.attempt, "fingerprint", hold.fingerprint,
    "cost", decimal(ending.cost), "event", event_id)
  redis.call("ZREM", KEYS[LEASES], ending.request_id)
  -- Only a hand that changed `held` makes it fall short of a hold; it never goes below zero.
  local release = math.min(ending.release, held)
  if release ~= 0 then held = redis.call("HINCRBY", KEYS[ACCOUNT], "held", decimal(-release)) end
  if ending.debit ~= 0 then balance = redis.call("HINCRBY", KEYS[ACCOUNT], "balance", decimal(-ending.debit)) end
  return balance, held, event_id
end

-- What capture and void do: end an open hold, correct a lapsed one, repeat the answer for one that ended so already.
local function settle(kind, state, word, cost, data)
  local epoch, request_id, account_id = ARGV[1], ARGV[2], ARGV[3]
  local shard = redis.call("HMGET", KEYS[SHARD], "epoch", "seq")
  if shard[1] ~= epoch then return {"EPOCH", shard[1] or ""} end
  local known = redis.call("HMGET", KEYS[HOLD], "epoch", "state", "account", "amount", "attempt", "fingerprint",
    "cost", "event")
  if known[1] ~= epoch or known[2] == "refused" then return {"MISSING"} end
  if known[3] ~= account_id then return {"CONFLICT"} end

  local ending = {seq = shard[2], request_id = request_id, state = state, kind = kind, cost = cost}
  if known[2] == "open" then
    ending.phase, ending.debit, ending.release = "end", cost, whole(known[4])
  elseif known[2] == "lapsed" then
    ending.phase, ending.debit, ending.release = "correction", cost - whole(known[7]), 0
  elseif known[2] == state and known[7] == decimal(cost) then
    local balance, held = read_account(KEYS[ACCOUNT], epoch)
    if not balance then return held end
    return {word, balance, held, known[8]}
  else
    return {"CONFLICT"}
  end
  local hold = {epoch = epoch, account = known[3], amount = known[4], attempt = known[5], fingerprint = known[6]}
  local balance, held, event_id = finish(hold, ending, {"data", data})
  if not balance then return held end
  return {word, balance, held, event_id}
end

-- Accounts, and the rate cards their calls are priced by.

-- name: create_account
INSERT INTO account (id, name) VALUES ($1::uuid, $2)

-- name: create_balances
INSERT INTO balance (shard, account_id, bucket) SELECT $2::smallint, $1::uuid, unnest(ARRAY['promo', 'paid', 'debt'])

-- name: find_account
-- By name or by id; a name may look like another account's id, so the id wins.
SELECT id, name, status, on_disconnect, credit_seq, created_at, plan, priority, time_zone FROM account
WHERE id = $2::uuid OR name = $1 ORDER BY (id = $2::uuid) DESC NULLS LAST LIMIT 1

-- name: record_card
INSERT INTO rate_card (version, hash, name, text) VALUES ($1, $2, $3, $4) ON CONFLICT (version) DO NOTHING

-- name: card_hash
SELECT hash FROM rate_card WHERE version = $1

-- name: cards
SELECT name, text FROM rate_card ORDER BY version

-- name: pending_credits
-- The oldest undelivered movements of each account, in order.
SELECT account_id, credit_seq, amount FROM credit_outbox ORDER BY created_at, account_id, credit_seq LIMIT $1

-- name: credits_from
SELECT credit_seq, amount FROM credit_outbox WHERE account_id = $1::uuid ORDER BY credit_seq

-- name: delivered
DELETE FROM credit_outbox WHERE account_id = $1::uuid AND credit_seq <= $2

-- name: ledger_lines
-- The newest lines of an account, as a customer reads them.
SELECT transfer.id, transfer.kind, transfer.request_id, transfer.reason, transfer.event_at, transfer.recorded_at,
       (SELECT sum(amount)::bigint FROM entry
        WHERE entry.transfer_id = transfer.id AND entry.account_id = transfer.account_id
          AND entry.recorded_at = transfer.recorded_at) AS amount,
       call_usage.model, call_usage.outcome, call_usage.rate_version
FROM transfer
LEFT JOIN call_usage ON call_usage.request_id = transfer.request_id AND call_usage.recorded_at = transfer.recorded_at
WHERE transfer.account_id = $1::uuid
ORDER BY transfer.recorded_at DESC, transfer.id DESC LIMIT $2

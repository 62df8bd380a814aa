-- Monthly statements. Months are UTC, of recorded_at. $1 is the account, $2 and $3 the month's bounds.

-- name: account
SELECT name, account.created_at, coalesce(stripe_customer.tax_ids, '') AS tax_ids
FROM account LEFT JOIN stripe_customer ON account_id = account.id WHERE account.id = $1::uuid

-- name: stored
SELECT content, hash FROM statement WHERE account_id = $1::uuid AND month = $2

-- name: opening
-- From the newest statement before it, if there is one, and what came between.
WITH base AS (
    SELECT closing, ((month + interval '1 month') AT TIME ZONE 'UTC') AS until FROM statement
    WHERE account_id = $1::uuid AND ((month + interval '1 month') AT TIME ZONE 'UTC') <= $2
    ORDER BY month DESC LIMIT 1
)
SELECT (coalesce((SELECT closing FROM base), 0) + coalesce((
    SELECT sum(amount) FROM entry
    WHERE account_id = $1::uuid AND recorded_at >= coalesce((SELECT until FROM base), '-infinity') AND recorded_at < $2
), 0))::bigint

-- name: movements
SELECT transfer.kind, coalesce(call_usage.model, '') AS model, count(*) AS count, sum(moved.amount)::bigint AS amount
FROM (
    SELECT transfer_id, recorded_at, sum(amount) AS amount FROM entry
    WHERE account_id = $1::uuid AND recorded_at >= $2 AND recorded_at < $3 GROUP BY 1, 2
) AS moved
JOIN transfer ON transfer.id = moved.transfer_id AND transfer.recorded_at = moved.recorded_at
LEFT JOIN call_usage ON call_usage.request_id = transfer.request_id AND call_usage.recorded_at = transfer.recorded_at
    AND call_usage.phase = CASE transfer.kind WHEN 'correction' THEN 'correction' ELSE 'end' END
GROUP BY 1, 2 ORDER BY 1, 2

-- name: receipts
SELECT transfer.recorded_at AS at, purchase.id, purchase.amount_cents, purchase.currency, purchase.receipt_url,
       purchase.posted_tax
FROM transfer
JOIN purchase_transfer ON purchase_transfer.transfer_id = transfer.id
JOIN purchase ON purchase.id = purchase_transfer.purchase_id
WHERE transfer.account_id = $1::uuid AND transfer.recorded_at >= $2 AND transfer.recorded_at < $3
  AND transfer.kind = 'top_up'
ORDER BY 1, 2

-- name: newest_seal
SELECT ordinal_last, head FROM seal ORDER BY number DESC LIMIT 1

-- name: last_ordinal
SELECT max(ordinal) FROM transfer WHERE account_id = $1::uuid AND recorded_at >= $2 AND recorded_at < $3

-- name: insert
INSERT INTO statement (account_id, month, opening, closing, content, hash)
VALUES ($1::uuid, $2, $3, $4, $5, sha256($5)) ON CONFLICT DO NOTHING

-- name: unclosed
-- Accounts behind $4 that were there before $2, the end of month $1, and have no statement of it. That statements are
-- behind $4 too is said for the planner, which would read all of them.
SELECT id FROM account
WHERE id > $4::uuid AND created_at < $2 AND NOT EXISTS (
    SELECT FROM statement
    WHERE statement.account_id = account.id AND statement.account_id > $4::uuid AND statement.month = $1
)
ORDER BY id LIMIT $3

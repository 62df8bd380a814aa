-- Usage that trusted services report.

-- name: claim
INSERT INTO usage_report (account_id, idempotency_key, fingerprint, request_id, content)
VALUES ($1::uuid, $2, $3, $4::uuid, $5::jsonb) ON CONFLICT DO NOTHING

-- name: lock
-- One at a time, so that a report that comes twice at once is reserved for once.
SELECT fingerprint, request_id, content, settled_at IS NOT NULL AS is_settled FROM usage_report
WHERE account_id = $1::uuid AND idempotency_key = $2 FOR UPDATE

-- name: settled
UPDATE usage_report SET settled_at = now() WHERE request_id = $1::uuid

-- name: renumber
UPDATE usage_report SET request_id = $2::uuid WHERE request_id = $1::uuid

-- name: account
-- Of whom usage is reported, by name or id; see adapters/postgres/accounts.sql.
SELECT id, status, plan, priority, time_zone FROM account
WHERE id = $2::uuid OR name = $1 ORDER BY (id = $2::uuid) DESC NULLS LAST LIMIT 1

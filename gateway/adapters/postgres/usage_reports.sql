-- Usage that trusted services report.

-- name: claim
-- What was refused is tried anew as another call, in the windows and in the mode of now; not by another report of this
-- key, nor once an older gateway, which knows of no refusals, has charged it.
INSERT INTO usage_report (account_id, idempotency_key, fingerprint, request_id, content, is_shadow)
VALUES ($1::uuid, $2, $3, $4::uuid, $5::jsonb, $6)
ON CONFLICT (account_id, idempotency_key) DO UPDATE
    SET request_id = excluded.request_id, is_shadow = excluded.is_shadow, refused_at = NULL
    WHERE usage_report.refused_at IS NOT NULL AND usage_report.settled_at IS NULL
      AND usage_report.fingerprint = excluded.fingerprint

-- name: lock
-- One at a time, so that a report that comes twice at once is reserved for once.
SELECT fingerprint, request_id, content, coalesce(is_shadow, $3) AS is_shadow, settled_at IS NOT NULL AS is_settled
FROM usage_report WHERE account_id = $1::uuid AND idempotency_key = $2 FOR UPDATE

-- name: kept
SELECT content FROM usage_report WHERE account_id = $1::uuid AND idempotency_key = $2 AND fingerprint = $3

-- name: settled
UPDATE usage_report SET settled_at = now() WHERE request_id = $1::uuid

-- name: refused
UPDATE usage_report SET refused_at = now() WHERE request_id = $1::uuid

-- name: account
-- Of whom usage is reported, by name or id; see adapters/postgres/accounts.sql.
SELECT id, status, plan, priority, time_zone FROM account
WHERE id = $2::uuid OR name = $1 ORDER BY (id = $2::uuid) DESC NULLS LAST LIMIT 1

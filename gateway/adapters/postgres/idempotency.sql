-- Idempotency keys: what a request creates has the id that its key stands for.

-- name: claim
-- Of one account's keys, those of long ago are forgotten.
WITH forgotten AS (
    DELETE FROM idempotency WHERE account_id = $1::uuid AND created_at < now() - $5::interval AND key <> $2
)
INSERT INTO idempotency (account_id, key, fingerprint, object_id) VALUES ($1::uuid, $2, $3, $4::uuid)
ON CONFLICT (account_id, key) DO NOTHING

-- name: claimed
SELECT fingerprint, object_id FROM idempotency WHERE account_id = $1::uuid AND key = $2

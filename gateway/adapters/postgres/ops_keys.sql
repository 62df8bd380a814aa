-- The keys of operators.

-- name: insert
INSERT INTO ops_key (id, name, role, hash, prefix) VALUES ($1, $2, $3, $4, $5)

-- name: by_hash
SELECT name, role FROM ops_key WHERE hash = $1 AND revoked_at IS NULL

-- name: list
SELECT id, name, role, prefix, created_at, revoked_at FROM ops_key ORDER BY created_at, id

-- name: revoke
UPDATE ops_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING name, role

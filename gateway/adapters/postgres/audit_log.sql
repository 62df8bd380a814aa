-- The audit log: who changed what, and why.

-- name: append
INSERT INTO audit_log (author, action, subject, reason, before, after) VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb)

-- name: page
-- The newest first, from before an id on.
SELECT id, author, action, subject, reason, before, after, at FROM audit_log
WHERE ($1::bigint IS NULL OR id < $1) AND ($2::text IS NULL OR subject = $2) AND ($3::text IS NULL OR author = $3)
ORDER BY id DESC LIMIT $4

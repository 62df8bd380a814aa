-- The audit log: who changed what, and why.

-- name: append
INSERT INTO audit_log (author, action, subject, reason, before, after) VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb)

-- name: page
-- The newest first, from before an id on. Some changes name what they are of with its kind: an id alone finds them, too.
SELECT id, author, action, subject, reason, before, after, at FROM audit_log
WHERE ($1::bigint IS NULL OR id < $1) AND ($3::text IS NULL OR author = $3)
  AND ($2::text IS NULL OR subject IN ($2, 'account:' || $2, 'member:' || $2, 'key:' || $2, 'plan:' || $2))
ORDER BY id DESC LIMIT $4

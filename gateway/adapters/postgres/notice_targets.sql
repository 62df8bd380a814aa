-- Notice targets: whom notices reach. What is secret in a target goes with it; its row stays for the log.

-- name: add
INSERT INTO notice_target (account_id, kind, url, secret, shown) VALUES ($1::uuid, $2, $3, $4, $5) RETURNING id

-- name: listing
SELECT target.id, account.name AS account, target.kind, target.shown, target.created_at
FROM notice_target AS target LEFT JOIN account ON account.id = target.account_id
WHERE target.removed_at IS NULL AND ($1::uuid IS NULL OR target.account_id = $1::uuid)
ORDER BY target.created_at, target.id

-- name: remove
UPDATE notice_target SET removed_at = now(), url = '', secret = ''
WHERE id = $1::uuid AND removed_at IS NULL RETURNING id, account_id, kind, shown

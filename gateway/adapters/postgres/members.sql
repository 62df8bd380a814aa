-- Members of accounts. Who is removed stays as a row, for the books.

-- name: lock_account
-- Changes of one account's members wait for each other, so that its last owner is always seen.
SELECT id FROM account WHERE id = $1::uuid FOR NO KEY UPDATE

-- name: insert
INSERT INTO member (id, account_id, email, name, subject, role) VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6)

-- name: shown
SELECT id, account_id, email, name, subject, role, status, created_at FROM member

-- name: one
-- By id or, within the account, by e-mail address.
WHERE account_id = $1::uuid AND status <> 'removed' AND (id = $2::uuid OR lower(email) = lower($3))

-- name: by_subject
WHERE account_id = $1::uuid AND status <> 'removed' AND subject = $2

-- name: was_removed
-- Of who had no subject, the address is all that is known.
SELECT EXISTS (
    SELECT FROM member WHERE account_id = $1::uuid AND status = 'removed'
       AND (subject = $2 OR (subject IS NULL AND lower(email) = lower($3)))
)

-- name: of_account
WHERE account_id = $1::uuid AND status <> 'removed' AND ($2::timestamptz IS NULL OR (created_at, id) > ($2, $3::uuid))
ORDER BY created_at, id LIMIT $4

-- name: update
UPDATE member SET email = $2, name = $3, subject = $4, role = $5, status = $6, changed_at = clock_timestamp()
WHERE id = $1::uuid

-- name: revoke_keys
UPDATE api_key SET revoked_at = now(), changed_at = clock_timestamp()
WHERE member_id = $1::uuid AND revoked_at IS NULL RETURNING id, revoked_at

-- name: other_owners
SELECT count(*) FROM member WHERE account_id = $1::uuid AND id <> $2::uuid AND role = 'owner' AND status = 'active'

-- name: is_there
SELECT EXISTS (SELECT FROM member WHERE id = $1::uuid)

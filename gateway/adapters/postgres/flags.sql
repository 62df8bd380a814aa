-- Flags, as operators set them.

-- name: list
SELECT name, value, percent, accounts, reason, author, banner, expires_at FROM flag ORDER BY name

-- name: lock
-- One change of a flag at a time, also while there is no row to lock.
SELECT pg_advisory_xact_lock(hashtext('tollgate.flag'), hashtext($1))

-- name: find
SELECT name, value, percent, accounts, reason, author, banner, expires_at FROM flag WHERE name = $1

-- name: unknown_accounts
SELECT given AS id FROM unnest($1::uuid[]) AS given WHERE NOT EXISTS (SELECT FROM account WHERE account.id = given)

-- name: set
INSERT INTO flag (name, value, percent, accounts, reason, author, banner, expires_at)
VALUES ($1, $2, $3, $4::uuid[], $5, $6, $7, 'epoch'::timestamptz + $8::bigint * interval '1 millisecond')
ON CONFLICT (name) DO UPDATE SET
    value = excluded.value, percent = excluded.percent, accounts = excluded.accounts, reason = excluded.reason,
    author = excluded.author, banner = excluded.banner, expires_at = excluded.expires_at,
    changed_at = clock_timestamp()

-- name: clear
DELETE FROM flag WHERE name = $1

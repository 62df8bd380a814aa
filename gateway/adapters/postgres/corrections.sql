-- Corrections of balances: what was asked for, by whom, and who agreed.

-- name: lock
-- One at a time: what an author may still do alone depends on what it did.
SELECT pg_advisory_xact_lock(hashtext('tollgate.correction'))

-- name: alone
-- What an author has corrected alone within a day, in either direction.
SELECT coalesce(sum(abs(amount)), 0)::bigint FROM correction
WHERE lower(author) = lower($1) AND state = 'posted' AND decided_by IS NULL AND asked_at > now() - interval '1 day'

-- name: insert
INSERT INTO correction (id, account_id, kind, amount, reason, author, state)
VALUES ($1::uuid, $2::uuid, $3, $4, $5, $6, $7)

-- name: find
SELECT correction.id, correction.account_id, account.name AS account, kind, amount, reason, author, asked_at, state,
       decided_by, decision_reason, decided_at
FROM correction JOIN account ON account.id = correction.account_id

-- name: by_id
WHERE correction.id = $1::uuid

-- name: lock_one
SELECT FROM correction WHERE id = $1::uuid FOR UPDATE

-- name: newest
WHERE $1 OR state = 'proposed' ORDER BY asked_at DESC, correction.id DESC LIMIT $2

-- name: decide
UPDATE correction SET state = $2, decided_by = $3, decision_reason = $4, decided_at = now() WHERE id = $1::uuid

-- Brownouts, as operators and rules set them.

-- name: list
SELECT models, level, shed_percent, output_tokens, reroute_to, reason, banner, author, set_at, expires_at
FROM brownout ORDER BY models

-- name: lock
-- One change of a brownout at a time, also while there is no row to lock.
SELECT pg_advisory_xact_lock(hashtext('tollgate.brownout'), hashtext($1))

-- name: find
SELECT models, level, shed_percent, output_tokens, reroute_to, reason, banner, author, set_at, expires_at
FROM brownout WHERE models = $1

-- name: set
INSERT INTO brownout (models, level, shed_percent, output_tokens, reroute_to, reason, banner, author, set_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
    'epoch'::timestamptz + $9::bigint * interval '1 millisecond',
    'epoch'::timestamptz + $10::bigint * interval '1 millisecond')
ON CONFLICT (models) DO UPDATE SET
    level = excluded.level, shed_percent = excluded.shed_percent, output_tokens = excluded.output_tokens,
    reroute_to = excluded.reroute_to, reason = excluded.reason, banner = excluded.banner, author = excluded.author,
    set_at = excluded.set_at, expires_at = excluded.expires_at

-- name: clear
DELETE FROM brownout WHERE models = $1

-- Notices: raised once within their window, sent to each target on its own, and every attempt written down.

-- name: raise
-- $1 kind, $2 account, $3 dedupe key, $4 window in seconds, $5 fields, $6 to the account's targets, $7 to operators'.
-- Whoever comes second within the window updates nothing, and so raises nothing. No window: always raised.
WITH quiet AS (
    INSERT INTO notice_quiet (dedupe_key, until)
    SELECT $3, clock_timestamp() + make_interval(secs => $4::float8) WHERE $4::float8 > 0
    ON CONFLICT (dedupe_key) DO UPDATE SET until = excluded.until WHERE notice_quiet.until <= clock_timestamp()
    RETURNING dedupe_key
), raised AS (
    INSERT INTO notice (kind, account_id, dedupe_key, fields)
    SELECT $1, $2::uuid, $3, $5::jsonb WHERE $4::float8 = 0 OR EXISTS (SELECT FROM quiet)
    RETURNING id
), deliveries AS (
    INSERT INTO notice_delivery (notice_id, target_id)
    SELECT raised.id, target.id FROM raised, notice_target AS target
    WHERE target.removed_at IS NULL AND (($6 AND target.account_id = $2::uuid) OR ($7 AND target.account_id IS NULL))
)
SELECT id FROM raised

-- name: raise_to
-- To one target, whatever the kind's audience: a test.
WITH raised AS (
    INSERT INTO notice (kind, account_id, dedupe_key, fields)
    SELECT $1, account_id, '', $3::jsonb FROM notice_target WHERE id = $2::uuid AND removed_at IS NULL
    RETURNING id
)
INSERT INTO notice_delivery (notice_id, target_id) SELECT id, $2::uuid FROM raised RETURNING id

-- name: claim
-- Take what is due, for a while: a worker that dies leaves it to the next.
WITH due AS (
    SELECT id FROM notice_delivery WHERE state IN ('pending', 'retrying') AND due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE notice_delivery SET attempts = attempts + 1, due_at = now() + $2::interval
    FROM due WHERE notice_delivery.id = due.id
    RETURNING notice_delivery.*
)
SELECT claimed.id, claimed.attempts, notice.id AS notice_id, notice.kind, notice.account_id, account.name AS account,
       notice.fields, notice.created_at, target.kind AS target_kind, target.url, target.secret,
       target.removed_at IS NULL AS is_wanted
FROM claimed
JOIN notice ON notice.id = claimed.notice_id
JOIN notice_target AS target ON target.id = claimed.target_id
LEFT JOIN account ON account.id = notice.account_id

-- name: finish
WITH attempt AS (
    INSERT INTO notice_attempt (delivery_id, error, took_ms) VALUES ($1, $3, $4)
)
UPDATE notice_delivery SET state = $2, last_error = $3, due_at = now() + $5::interval WHERE id = $1

-- name: forget_quiet
DELETE FROM notice_quiet WHERE until < now() - interval '1 day'

-- name: listing
-- The newest notices, each with how it stands at its targets.
SELECT notice.id, notice.kind, account.name AS account, notice.fields, notice.created_at, deliveries.states
FROM notice
LEFT JOIN account ON account.id = notice.account_id
CROSS JOIN LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'target', target.shown, 'state', delivery.state, 'attempts', delivery.attempts, 'error', delivery.last_error
    ) ORDER BY delivery.id), '[]') AS states
    FROM notice_delivery AS delivery JOIN notice_target AS target ON target.id = delivery.target_id
    WHERE delivery.notice_id = notice.id
) AS deliveries
WHERE ($1 = '' OR notice.kind = $1)
  AND ($2 = '' OR EXISTS (SELECT FROM notice_delivery WHERE notice_id = notice.id AND state = $2))
ORDER BY notice.created_at DESC, notice.id LIMIT $3

-- name: retry
-- Try again what was given up: one notice's deliveries, or all.
UPDATE notice_delivery SET state = 'retrying', attempts = 0, due_at = now()
WHERE state = 'dead' AND ($1::uuid IS NULL OR notice_id = $1::uuid)

-- name: counts
SELECT state, count(*) AS deliveries FROM notice_delivery WHERE state <> 'sent' GROUP BY state

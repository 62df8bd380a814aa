-- Stripe's events as they came, and how far their handling is.

-- name: keep
-- A repeated event changes nothing, unless it is one that was given up: Stripe, or somebody there, sent it again.
INSERT INTO stripe_event (id, type, object_id, payment_id, is_live, created_at, source, body, headers)
VALUES ($1, $2, $3, $4, $5, to_timestamp($6::bigint), $7, $8, $9::jsonb)
ON CONFLICT (id) DO UPDATE SET state = 'received', attempts = 0, waits = 0, next_attempt_at = now()
WHERE stripe_event.state = 'dead' AND excluded.source = 'webhook'
RETURNING id

-- name: claim
-- Take what is due, for a while: a worker that dies leaves it to the next.
WITH due AS (
    SELECT id FROM stripe_event WHERE state IN ('received', 'retrying') AND next_attempt_at <= now()
    ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE stripe_event SET attempts = attempts + 1, next_attempt_at = now() + $2::interval
FROM due WHERE stripe_event.id = due.id
RETURNING stripe_event.id, type, object_id, payment_id, is_live, attempts - waits AS attempts, waits

-- name: finish
UPDATE stripe_event SET state = $2, reason = $3, next_attempt_at = now() + $4::interval, waits = waits + $5,
       processed_at = CASE $2 WHEN 'processed' THEN now() END
WHERE id = $1

-- name: listing
SELECT id, type, state, attempts, reason, created_at, received_at, processed_at, object_id, source FROM stripe_event
WHERE ($1 = '' OR state = $1) AND ($2 = '' OR type = $2) ORDER BY received_at DESC, id LIMIT $3

-- name: show
SELECT * FROM stripe_event WHERE id = $1

-- name: replay
UPDATE stripe_event SET state = 'received', attempts = 0, waits = 0, next_attempt_at = now()
WHERE ($1 = '' OR id = $1) AND ($2::timestamptz IS NULL OR received_at >= $2) AND ($3 = '' OR type = $3)

-- name: counts
SELECT state, count(*) AS events,
       coalesce(extract(epoch FROM now() - min(received_at) FILTER (WHERE state IN ('received', 'retrying'))), 0)::float8
           AS oldest_s
FROM stripe_event WHERE state <> 'processed' GROUP BY state

-- Disputes, fraud warnings and reviews of payments, each a review of its account here.

-- name: lock
-- Whoever else looks at the same cause waits.
SELECT pg_advisory_xact_lock(hashtextextended('payment cause ' || $1, 0))

-- name: is_told
SELECT EXISTS (SELECT FROM notice WHERE kind = $1 AND account_id = $2::uuid AND fields ->> 'reference' = $3)

-- name: open
-- Only an account that is served is taken out of service; the review remembers whether it was the one. What was over
-- once stays over.
WITH taken AS (
    UPDATE account SET status = 'in_review', changed_at = clock_timestamp()
    WHERE id = $2::uuid AND status = 'active' AND NOT EXISTS (SELECT FROM account_review WHERE cause = $1)
    RETURNING id
)
INSERT INTO account_review (cause, account_id, took_status, reason)
SELECT $1, $2::uuid, EXISTS (SELECT FROM taken)
       OR EXISTS (SELECT FROM account_review WHERE account_id = $2::uuid AND closed_at IS NULL AND took_status), $3
ON CONFLICT (cause) DO NOTHING RETURNING reference

-- name: close
-- Also one that nobody saw open, so that an older reading, which comes later, does not open it.
INSERT INTO account_review (cause, account_id, took_status, closed_at, closed_by)
VALUES ($1, $2::uuid, false, now(), 'stripe')
ON CONFLICT (cause) DO UPDATE SET closed_at = now(), closed_by = 'stripe' WHERE account_review.closed_at IS NULL
RETURNING took_status

-- name: release
UPDATE account SET status = 'active', changed_at = clock_timestamp()
WHERE id = $1::uuid AND status = 'in_review'
  AND NOT EXISTS (
      SELECT FROM account_review
      WHERE account_id = $1::uuid AND member_id IS NULL AND key_id IS NULL AND closed_at IS NULL)

-- Reviews: why an account, one member or one key is not served until an operator has looked.

-- name: lock_account
-- An account's reviews begin and end one at a time: which others keep it must be seen as it is.
SELECT FROM account WHERE id = $1::uuid FOR NO KEY UPDATE

-- name: open
-- $1 account, $2 member, $3 key, $4 reason, $5 figures. Nothing happens if the same is in review already. Only an account
-- that is served is taken out of service; the review remembers whether it was the one. A member's or key's review is
-- itself what takes it out of service.
WITH taken AS (
    UPDATE account SET status = 'in_review', changed_at = clock_timestamp()
    WHERE id = $1::uuid AND $2::uuid IS NULL AND $3::text IS NULL AND status = 'active'
      AND NOT EXISTS (
          SELECT FROM account_review WHERE account_id = $1::uuid AND member_id IS NULL AND key_id IS NULL
             AND closed_at IS NULL AND cause LIKE 'unusual:%')
    RETURNING id
)
INSERT INTO account_review (cause, account_id, member_id, key_id, took_status, reason, figures)
SELECT 'unusual:' || gen_random_uuid(), $1::uuid, CASE WHEN $3::text IS NULL THEN $2::uuid END, $3::text,
       $2::uuid IS NULL AND $3::text IS NULL AND (EXISTS (SELECT FROM taken) OR EXISTS (
           SELECT FROM account_review WHERE account_id = $1::uuid AND closed_at IS NULL AND took_status)),
       $4, $5::jsonb
ON CONFLICT DO NOTHING
RETURNING reference

-- name: name_of
SELECT member.email AS member, api_key.prefix AS key
FROM (SELECT) AS one LEFT JOIN member ON member.id = $1::uuid LEFT JOIN api_key ON api_key.id = $2::text

-- name: find
SELECT review.reference, review.cause, review.account_id, account.name AS account, member.email AS member,
       api_key.id AS key_id, api_key.prefix AS key, review.reason, review.figures, review.opened_at, review.closed_at,
       review.closed_by, review.close_reason, account.status, review.took_status
FROM account_review AS review
JOIN account ON account.id = review.account_id
LEFT JOIN member ON member.id = review.member_id
LEFT JOIN api_key ON api_key.id = review.key_id

-- name: by_reference
WHERE review.reference = $1

-- name: newest
WHERE $1 OR review.closed_at IS NULL ORDER BY review.opened_at DESC, review.reference LIMIT $2

-- name: count_open
SELECT count(*) FROM account_review WHERE closed_at IS NULL

-- name: close
UPDATE account_review SET closed_at = clock_timestamp(), closed_by = $2, close_reason = $3
WHERE reference = $1 AND closed_at IS NULL RETURNING account_id, took_status

-- name: serve
-- Once nothing else keeps it: another review, or an operator who has suspended it.
UPDATE account SET status = 'active', changed_at = clock_timestamp()
WHERE id = $1::uuid AND status = 'in_review'
  AND NOT EXISTS (
      SELECT FROM account_review
      WHERE account_id = $1::uuid AND member_id IS NULL AND key_id IS NULL AND closed_at IS NULL)

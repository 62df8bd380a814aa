-- Members as callers whose tokens an identity provider signs.

-- name: member
SELECT member.id AS member_id, member.subject, member.role, member.status AS member_status, account.id AS account_id,
       account.status, account.on_disconnect, account.plan, account.priority, account.time_zone,
       review.reference AS review, review.is_narrow
FROM member JOIN account ON account.id = member.account_id
LEFT JOIN LATERAL (
    SELECT reference, account_review.member_id IS NOT NULL AS is_narrow FROM account_review
    WHERE account_review.account_id = account.id AND closed_at IS NULL AND key_id IS NULL
      AND (account_review.member_id IS NULL OR account_review.member_id = member.id)
    ORDER BY is_narrow DESC, opened_at LIMIT 1
) AS review ON true

-- name: one
WHERE member.id = $1::uuid

-- name: changed
-- Also who has no subject any more: the tokens of the one it had may be remembered.
WHERE member.id IN (
    SELECT id FROM member WHERE changed_at > now() - $1::interval
    UNION SELECT member.id FROM account JOIN member ON account.id = member.account_id
          WHERE account.changed_at > now() - $1::interval
    UNION SELECT member.id FROM account_review AS seen JOIN member ON seen.account_id = member.account_id
          WHERE seen.opened_at > now() - $1::interval OR seen.closed_at > now() - $1::interval
)

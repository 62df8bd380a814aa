-- Callers: who a key belongs to, and what changed lately.

-- name: caller
-- Of whichever keys the next statement names. A review is of the account, of one member, or of one key.
SELECT api_key.hash, api_key.id AS key_id, api_key.revoked_at, api_key.expires_at, api_key.scopes, api_key.models,
       api_key.endpoints, api_key.networks, api_key.member_id, member.role, member.status AS member_status,
       account.id AS account_id, account.status, account.on_disconnect, account.plan, account.priority,
       api_key.priority AS key_priority, account.time_zone, review.reference AS review, review.is_narrow
FROM api_key JOIN account ON account.id = api_key.account_id
LEFT JOIN member ON member.id = api_key.member_id
LEFT JOIN LATERAL (
    SELECT reference, key_id IS NOT NULL OR member_id IS NOT NULL AS is_narrow FROM account_review
    WHERE account_review.account_id = account.id AND closed_at IS NULL
      AND (account_review.key_id IS NULL OR account_review.key_id = api_key.id)
      AND (account_review.member_id IS NULL OR account_review.member_id = api_key.member_id)
    ORDER BY is_narrow DESC, opened_at LIMIT 1
) AS review ON true

-- name: by_hash
WHERE api_key.hash = $1

-- name: changed
-- A row's changed_at is older than its commit, so what changed shortly before the last look is looked at again.
WHERE api_key.id IN (
    SELECT id FROM api_key WHERE changed_at > now() - $1::interval
    UNION SELECT api_key.id FROM account JOIN api_key ON account.id = api_key.account_id
          WHERE account.changed_at > now() - $1::interval
    UNION SELECT api_key.id FROM member JOIN api_key ON member.id = api_key.member_id
          WHERE member.changed_at > now() - $1::interval
    UNION SELECT api_key.id FROM account_review AS seen JOIN api_key ON seen.account_id = api_key.account_id
          WHERE seen.opened_at > now() - $1::interval OR seen.closed_at > now() - $1::interval
)

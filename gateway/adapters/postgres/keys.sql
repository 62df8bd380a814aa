-- Keys: issued, listed, replaced, revoked. A secret's hash goes in and never comes out.

-- name: insert
-- A member's key is of the member's account; a removed member has none.
INSERT INTO api_key
    (id, account_id, hash, prefix, name, member_id, scopes, expires_at, models, endpoints, networks, priority,
     rotated_from)
SELECT $1, $2::uuid, $3, $4, $5, $6::uuid, $7, $8, $9, $10, $11, $12, $13
WHERE $6 IS NULL OR EXISTS (SELECT FROM member WHERE id = $6::uuid AND account_id = $2::uuid AND status <> 'removed')
RETURNING id

-- name: shown
SELECT api_key.id, api_key.prefix, api_key.created_at, api_key.revoked_at, api_key.name, api_key.member_id,
       api_key.scopes, api_key.expires_at, api_key.models, api_key.endpoints, api_key.networks, api_key.priority,
       api_key.rotated_from, api_key.account_id, member.role AS member_role, member.email AS member_email
FROM api_key LEFT JOIN member ON member.id = api_key.member_id

-- name: one
WHERE api_key.id = $1 AND ($2::uuid IS NULL OR api_key.account_id = $2::uuid)

-- name: of_account
-- The newest first, after a cursor.
WHERE api_key.account_id = $1::uuid AND ($2::timestamptz IS NULL OR (api_key.created_at, api_key.id) < ($2, $3))
ORDER BY api_key.created_at DESC, api_key.id DESC LIMIT $4

-- name: lock
SELECT expires_at, revoked_at, (SELECT id FROM api_key AS next WHERE next.rotated_from = api_key.id) AS successor
FROM api_key WHERE id = $1 FOR NO KEY UPDATE

-- name: expire
UPDATE api_key SET expires_at = least(expires_at, $2), changed_at = clock_timestamp() WHERE id = $1 RETURNING expires_at

-- name: revoke
-- Revoking twice changes nothing.
UPDATE api_key SET revoked_at = now(), changed_at = clock_timestamp()
WHERE id = $1 AND revoked_at IS NULL RETURNING revoked_at

-- name: hand_down_caps
-- A key's caps bind the one that takes its place, too, which begins with nothing used.
INSERT INTO cap (level, holder, account_id, request, day, month, output_tokens, requests_a_minute, tokens_a_minute,
                 concurrent, models_allowed, models_denied, on_output, on_unaffordable)
SELECT 'key', $2, account_id, request, day, month, output_tokens, requests_a_minute, tokens_a_minute, concurrent,
       models_allowed, models_denied, on_output, on_unaffordable
FROM cap WHERE level = 'key' AND holder = $1
RETURNING request, day, month, output_tokens, requests_a_minute, tokens_a_minute, concurrent, models_allowed,
          models_denied, on_output, on_unaffordable

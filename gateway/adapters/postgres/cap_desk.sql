-- Caps as operators set and look at them.

-- name: find
-- Whoever goes by $1: an account's name or id, a member's e-mail address or id, a key's id.
SELECT 'account' AS level, account.id::text AS id, account.id::text AS account_id, account.name, account.plan,
       account.time_zone
FROM account WHERE account.id::text = $1 OR account.name = $1
UNION ALL
SELECT 'member', member.id::text, account.id::text, member.email, account.plan, account.time_zone
FROM member JOIN account ON account.id = member.account_id
WHERE member.status <> 'removed' AND (member.id::text = $1 OR lower(member.email) = lower($1))
UNION ALL
SELECT 'key', api_key.id, account.id::text, api_key.name, account.plan, account.time_zone
FROM api_key JOIN account ON account.id = api_key.account_id WHERE api_key.id = $1

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended('cap:' || $1 || ':' || $2, 0))

-- name: capped
-- The members and keys of an account with caps of their own.
SELECT 'member' AS level, member.id::text AS id, member.email AS name
FROM cap JOIN member ON cap.level = 'member' AND cap.holder = member.id::text WHERE cap.account_id = $1::uuid
UNION ALL
SELECT 'key', api_key.id, api_key.name
FROM cap JOIN api_key ON cap.level = 'key' AND cap.holder = api_key.id WHERE cap.account_id = $1::uuid
ORDER BY level DESC, name, id

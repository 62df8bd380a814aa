-- Callers: who a key belongs to, and what changed lately.

-- name: find
SELECT api_key.id AS key_id, api_key.revoked_at, account.id AS account_id, account.status, account.on_disconnect
FROM api_key JOIN account ON account.id = api_key.account_id WHERE api_key.hash = $1

-- name: changed
-- A row's changed_at is older than its commit, so what changed shortly before the last look is looked at again.
SELECT api_key.hash, api_key.id AS key_id, api_key.revoked_at, account.id AS account_id, account.status,
       account.on_disconnect
FROM api_key JOIN account ON account.id = api_key.account_id
WHERE api_key.changed_at > now() - $1::interval
UNION
SELECT api_key.hash, api_key.id, api_key.revoked_at, account.id, account.status, account.on_disconnect
FROM account JOIN api_key ON account.id = api_key.account_id
WHERE account.changed_at > now() - $1::interval

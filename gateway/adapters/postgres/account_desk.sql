-- Accounts, as operators watch and stop them.

-- name: lock
SELECT name, status, plan, priority, time_zone, on_disconnect FROM account WHERE id = $1::uuid FOR UPDATE

-- name: open_reviews
SELECT reference FROM account_review
WHERE account_id = $1::uuid AND closed_at IS NULL AND key_id IS NULL AND member_id IS NULL ORDER BY opened_at

-- name: set_status
UPDATE account SET status = $2, changed_at = clock_timestamp() WHERE id = $1::uuid

-- name: knows_zone
-- Fails for a time zone that this database does not know: it counts days in it, too.
SELECT now() AT TIME ZONE $1::text

-- name: set_terms
-- NULL: as it is.
UPDATE account SET plan = coalesce($2, plan), priority = coalesce($3, priority), time_zone = coalesce($4, time_zone),
       on_disconnect = coalesce($5, on_disconnect), changed_at = clock_timestamp()
WHERE id = $1::uuid

-- name: strays
SELECT plan, count(*) AS accounts FROM account WHERE plan <> ALL ($1::text[]) GROUP BY plan ORDER BY plan

-- name: page
-- $1 a status, or NULL for all; $2 only names after this one. Balances are summed for the page alone, not for everybody.
SELECT id, name, status, plan,
       (SELECT coalesce(sum(amount), 0)::bigint FROM balance WHERE account_id = listed.id) AS balance
FROM (
    SELECT id, name, status, plan FROM account
    WHERE ($1::text IS NULL OR status = $1) AND name > $2 ORDER BY name LIMIT $3
) AS listed
ORDER BY name

-- name: top
-- Who was charged most within a window. A shadow-billed call charges nothing; what it would have cost stands beside.
SELECT account.id, account.name, account.status, sum(charged)::bigint AS spend,
       (sum(cost) FILTER (WHERE charged = 0 AND outcome <> 'void'))::bigint AS uncharged,
       count(*) FILTER (WHERE phase = 'end' AND outcome <> 'void') AS calls,
       count(*) FILTER (WHERE cardinality(flags) > 0) AS flagged
FROM call_usage JOIN account ON account.id = call_usage.account_id
WHERE recorded_at > now() - $1::interval
GROUP BY account.id ORDER BY spend DESC, calls DESC, account.id LIMIT $2

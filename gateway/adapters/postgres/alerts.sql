-- Alerts: when an account wants to be warned of a low balance. $2 and $3 are what holds for accounts that said nothing.

-- name: wishes
SELECT below, days FROM alert WHERE account_id = $1::uuid

-- name: wishes_to_change
SELECT alert.below, alert.days FROM account LEFT JOIN alert ON alert.account_id = account.id
WHERE account.id = $1::uuid FOR NO KEY UPDATE OF account

-- name: set
INSERT INTO alert (account_id, below, days) VALUES ($1::uuid, $2, $3)
ON CONFLICT (account_id) DO UPDATE SET below = excluded.below, days = excluded.days, changed_at = now()

-- name: standings
-- Of these accounts, those that want any warning.
SELECT account.id, wanted.below, wanted.days, account.credit_seq, balance.available, past.days_sum, past.days_known
FROM account
LEFT JOIN alert ON alert.account_id = account.id
CROSS JOIN LATERAL (SELECT coalesce(alert.below, $2::bigint) AS below, coalesce(alert.days, $3::integer) AS days) AS wanted
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0)::bigint AS available FROM balance WHERE balance.account_id = account.id
) AS balance
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount), 0)::bigint AS days_sum, count(DISTINCT days_ago) FILTER (WHERE amount > 0) AS days_known
    FROM (
        SELECT amount, floor(extract(epoch FROM now() - hour) / 86400) AS days_ago FROM spending_hour
        WHERE wanted.days > 0 AND spending_hour.account_id = account.id AND hour > now() - interval '8 days'
    ) AS spent WHERE days_ago > 0
) AS past
WHERE account.id = ANY($1::uuid[]) AND (wanted.below > 0 OR wanted.days > 0)

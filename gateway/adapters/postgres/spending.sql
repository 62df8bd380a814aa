-- What was spent lately, by minute and by hour. Both are made again from what they sum, never added to: rolling up the
-- same time twice changes nothing, so rows that are committed late are counted, and none is counted twice.

-- name: lock
SELECT pg_try_advisory_xact_lock(hashtext('tollgate.spending'))

-- name: reached
-- Now, and up to when it is rolled up; at first, as far back as there is usage that anything is compared with.
SELECT now() AS now, coalesce(
    greatest($1::timestamptz, (SELECT max(minute) FROM spending_minute)),
    (SELECT min(recorded_at) FROM call_usage WHERE recorded_at > now() - interval '9 days'),
    now()
) AS since

-- name: roll_minutes
WITH summed AS (
    SELECT account_id, key_id, date_trunc('minute', recorded_at) AS minute, sum(charged)::bigint AS amount
    FROM call_usage WHERE recorded_at >= $1 AND recorded_at < $2 AND charged <> 0 GROUP BY 1, 2, 3
)
INSERT INTO spending_minute AS kept (account_id, key_id, minute, amount)
SELECT * FROM summed
ON CONFLICT (account_id, key_id, minute) DO UPDATE SET amount = excluded.amount WHERE kept.amount <> excluded.amount
RETURNING account_id, key_id, date_trunc('hour', minute, 'UTC') AS hour

-- name: roll_hours
INSERT INTO spending_hour AS kept (account_id, key_id, hour, amount)
SELECT given.account_id, given.key_id, given.hour, sum(spending_minute.amount)
FROM (SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[])) AS given (account_id, key_id, hour)
JOIN spending_minute ON spending_minute.account_id = given.account_id AND spending_minute.key_id = given.key_id
     AND minute >= given.hour AND minute < given.hour + interval '1 hour'
GROUP BY given.account_id, given.key_id, given.hour
ON CONFLICT (account_id, key_id, hour) DO UPDATE SET amount = excluded.amount

-- name: recent
SELECT DISTINCT account_id FROM spending_hour WHERE hour > now() - interval '25 hours'

-- name: forget_minutes
-- The minutes of an hour are needed until the hour is over, and no row of it can still be committed.
DELETE FROM spending_minute WHERE minute < $1::timestamptz - interval '3 hours'

-- name: forget_hours
DELETE FROM spending_hour WHERE hour < $1::timestamptz - interval '9 days'

-- name: spending
-- What accounts, their members and their keys spent: $1 accounts, $2 minutes of a burst, $3 what an account must have
-- spent in a day to be looked at more closely. What was spent before a review of it was released is not judged again, nor
-- what is in review; it does count as usual. What came with a token is its member's, under no key; what a trusted service
-- reported with a key of its own account is under no key, too.
WITH active AS (
    SELECT account_id FROM spending_hour JOIN account ON account.id = account_id AND status = 'active'
    WHERE account_id = ANY($1::uuid[]) AND hour > now() - interval '25 hours'
    GROUP BY account_id HAVING sum(amount) > $3
), spender AS (
    SELECT seen.account_id, seen.key_id, coalesce(api_key.id, '') AS own_key_id,
           coalesce(api_key.member_id, member.id) AS member_id,
           coalesce((
               SELECT max(coalesce(closed_at, 'infinity')) FROM account_review AS review
               WHERE review.account_id = seen.account_id AND cause LIKE 'unusual:%'
                 AND (review.key_id IS NULL OR review.key_id = seen.key_id)
                 AND (review.member_id IS NULL OR review.member_id = coalesce(api_key.member_id, member.id))
           ), '-infinity') AS cleared_until
    FROM (
        SELECT DISTINCT account_id, key_id FROM spending_hour
        WHERE account_id = ANY($1::uuid[]) AND account_id IN (SELECT account_id FROM active)
          AND hour > now() - interval '8 days'
    ) AS seen
    LEFT JOIN api_key ON api_key.id = seen.key_id AND api_key.account_id = seen.account_id
    LEFT JOIN member ON seen.key_id = 'jwt_' || replace(member.id::text, '-', '') AND member.account_id = seen.account_id
), lately AS (
    SELECT spender.account_id, member_id, own_key_id AS key_id,
           coalesce(sum(amount) FILTER (WHERE minute > now() - make_interval(mins => $2::integer)), 0) AS burst,
           sum(amount) AS hour
    FROM spender JOIN spending_minute USING (account_id, key_id)
    WHERE spender.account_id = ANY($1::uuid[]) AND minute > now() - interval '60 minutes' AND minute >= cleared_until
    GROUP BY 1, 2, 3
), hours AS (
    SELECT spender.account_id, member_id, own_key_id AS key_id, hour, amount, hour >= cleared_until AS is_judged,
           floor(extract(epoch FROM now() - hour) / 86400)::integer AS days_ago
    FROM spender JOIN spending_hour USING (account_id, key_id)
    WHERE spender.account_id = ANY($1::uuid[]) AND hour > now() - interval '8 days'
), by_hour AS (
    SELECT account_id, member_id, key_id, grouping(member_id, key_id) AS level, hour, days_ago, sum(amount) AS amount,
           coalesce(sum(amount) FILTER (WHERE is_judged), 0) AS judged
    FROM hours
    GROUP BY hour, days_ago, GROUPING SETS ((account_id), (account_id, member_id), (account_id, member_id, key_id))
), by_subject AS (
    SELECT account_id, member_id, key_id, level,
           sum(amount) FILTER (WHERE hour > now() - interval '26 hours' AND hour <= now() - interval '2 hours') AS hours_sum,
           count(*) FILTER (
               WHERE hour > now() - interval '26 hours' AND hour <= now() - interval '2 hours' AND amount > 0
           ) AS hours_known,
           sum(judged) FILTER (WHERE days_ago = 0) AS day,
           sum(amount) FILTER (WHERE days_ago > 0) AS days_sum,
           count(DISTINCT days_ago) FILTER (WHERE days_ago > 0 AND amount > 0) AS days_known
    FROM by_hour GROUP BY 1, 2, 3, 4
), lately_by_subject AS (
    SELECT account_id, member_id, key_id, grouping(member_id, key_id) AS level, sum(burst) AS burst, sum(hour) AS hour
    FROM lately GROUP BY GROUPING SETS ((account_id), (account_id, member_id), (account_id, member_id, key_id))
)
SELECT by_subject.account_id, by_subject.member_id, by_subject.key_id,
       coalesce(burst, 0)::bigint AS burst, coalesce(lately_by_subject.hour, 0)::bigint AS hour,
       coalesce(hours_sum, 0)::bigint AS hours_sum, hours_known, coalesce(day, 0)::bigint AS day,
       coalesce(days_sum, 0)::bigint AS days_sum, days_known
FROM by_subject
LEFT JOIN lately_by_subject ON lately_by_subject.account_id = by_subject.account_id
     AND lately_by_subject.level = by_subject.level
     AND lately_by_subject.member_id IS NOT DISTINCT FROM by_subject.member_id
     AND lately_by_subject.key_id IS NOT DISTINCT FROM by_subject.key_id
WHERE by_subject.level <> 1 OR by_subject.member_id IS NOT NULL
ORDER BY by_subject.account_id

-- Caps: what was set, and what a holder has been charged.

-- name: changed
-- A row's changed_at is older than its commit, so what changed shortly before the last look is looked at again.
SELECT level, holder, request, day, month, output_tokens, requests_a_minute, tokens_a_minute, concurrent,
       models_allowed, models_denied, on_output, on_unaffordable
FROM cap WHERE $1::interval IS NULL OR changed_at > now() - $1::interval

-- name: charged
-- Where a shard's outbox stands, and what was charged to a holder up to there, all of one moment: $2 account, $3 level,
-- $4 id, $5 … $8 the first request ids of the day, behind it, of the month, behind it, $9 when the earlier of them began.
SELECT shard.epoch, shard.is_rebuilding, shard.position_epoch, shard.position_seq, sums.day, sums.month
FROM shard
CROSS JOIN LATERAL (
    SELECT coalesce(sum(charged) FILTER (WHERE request_id >= $5::uuid AND request_id < $6::uuid), 0)::bigint AS day,
           coalesce(sum(charged) FILTER (WHERE request_id >= $7::uuid AND request_id < $8::uuid), 0)::bigint AS month
    FROM call_usage
    WHERE account_id = $2::uuid AND recorded_at >= $9
      AND ($3 = 'account' OR ($3 = 'key' AND key_id = $4) OR ($3 = 'member' AND member_id = $4))
) AS sums
WHERE shard.id = $1::smallint

-- name: settled
-- What was charged to a holder until so long ago ($9) that it is final. $1 account, $2 level, $3 id, $4 … $7 the request
-- ids as above, $8 when the windows began.
SELECT now() - $9::interval AS until,
       coalesce(sum(charged) FILTER (WHERE request_id >= $4::uuid AND request_id < $5::uuid), 0)::bigint AS day,
       coalesce(sum(charged) FILTER (WHERE request_id >= $6::uuid AND request_id < $7::uuid), 0)::bigint AS month
FROM call_usage
WHERE account_id = $1::uuid AND recorded_at >= $8 AND recorded_at < now() - $9::interval
  AND ($2 = 'account' OR ($2 = 'key' AND key_id = $3) OR ($2 = 'member' AND member_id = $3))

-- name: of_holder
SELECT level, holder, request, day, month, output_tokens, requests_a_minute, tokens_a_minute, concurrent,
       models_allowed, models_denied, on_output, on_unaffordable
FROM cap WHERE level = $1 AND holder = $2

-- name: set
INSERT INTO cap (level, holder, account_id, request, day, month, output_tokens, requests_a_minute, tokens_a_minute,
                 concurrent, models_allowed, models_denied, on_output, on_unaffordable, changed_at)
VALUES ($1, $2, $3::uuid, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, clock_timestamp())
ON CONFLICT (level, holder) DO UPDATE SET
    request = excluded.request, day = excluded.day, month = excluded.month, output_tokens = excluded.output_tokens,
    requests_a_minute = excluded.requests_a_minute, tokens_a_minute = excluded.tokens_a_minute,
    concurrent = excluded.concurrent, models_allowed = excluded.models_allowed, models_denied = excluded.models_denied,
    on_output = excluded.on_output, on_unaffordable = excluded.on_unaffordable, changed_at = excluded.changed_at

-- name: spenders
-- Who has spent lately, with what its caps depend on.
SELECT DISTINCT call_usage.account_id, call_usage.key_id, call_usage.member_id, account.plan, account.time_zone
FROM call_usage JOIN account ON account.id = call_usage.account_id
WHERE call_usage.recorded_at > now() - $1::interval AND call_usage.charged <> 0

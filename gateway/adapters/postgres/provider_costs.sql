-- What calls cost at the provider. Days are UTC, of recorded_at, so that a day that is over stays as it is.

-- name: consumption
-- What was used in [$1, $2), by model and rate. A correction's usage is the whole call's, so what its lapse cost before
-- is taken off again. A shadow-billed call costs us as any other does, and what it would have cost its caller is told.
SELECT model, rate_version, rate_key, count(*) FILTER (WHERE call_usage.phase = 'end' AND outcome <> 'void') AS calls,
       sum(charged)::bigint AS charged,
       coalesce(sum(-shadow_entry.amount), 0)::bigint AS shadow,
       sum(CASE WHEN rate_key = '' THEN cost ELSE 0 END - CASE WHEN call_usage.phase = 'correction' THEN (
           SELECT coalesce(sum(lapse.cost), 0) FROM call_usage AS lapse
           WHERE lapse.request_id = call_usage.request_id AND lapse.phase = 'end'
       ) ELSE 0 END)::bigint AS unrated,
       coalesce(sum((usage ->> 'input')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS input,
       coalesce(sum((usage ->> 'input_cached')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS input_cached,
       coalesce(sum((usage ->> 'input_cache_write')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint
           AS input_cache_write,
       coalesce(sum((usage ->> 'input_audio')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS input_audio,
       coalesce(sum((usage ->> 'input_image')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS input_image,
       coalesce(sum((usage ->> 'output')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS output,
       coalesce(sum((usage ->> 'output_reasoning')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint
           AS output_reasoning,
       coalesce(sum((usage ->> 'output_audio')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS output_audio,
       coalesce(sum((usage ->> 'output_image')::bigint) FILTER (WHERE rate_key <> ''), 0)::bigint AS output_image
FROM call_usage
LEFT JOIN shadow_entry ON shadow_entry.request_id = call_usage.request_id AND shadow_entry.phase = call_usage.phase
    AND shadow_entry.bucket = 'shadow_due' AND shadow_entry.recorded_at >= $1 AND shadow_entry.recorded_at < $2
WHERE call_usage.recorded_at >= $1 AND call_usage.recorded_at < $2
GROUP BY model, rate_version, rate_key

-- name: first_usage
SELECT min(recorded_at) FROM call_usage

-- name: last_booked
SELECT max(day) FROM cost_day

-- name: insert_day
INSERT INTO cost_day (day) VALUES ($1) ON CONFLICT DO NOTHING RETURNING day

-- name: insert_costs
INSERT INTO model_cost (day, model, calls, charged, cost, transfer_id)
SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::uuid[])

-- name: booked_days
SELECT count(*) FROM cost_day WHERE day BETWEEN $1 AND $2

-- name: booked
-- What stands in the books for these days: the days' own costs, and what bills corrected.
SELECT (coalesce((SELECT sum(cost) FROM model_cost WHERE day BETWEEN $1 AND $2), 0) + coalesce((
    SELECT sum(-entry.amount) FROM provider_bill
    JOIN entry ON entry.transfer_id = provider_bill.transfer_id AND entry.bucket = 'cogs_openai'
    WHERE first_day = $1 AND last_day = $2
), 0))::bigint

-- name: overlapping_bill
SELECT first_day, last_day FROM provider_bill
WHERE first_day <= $2 AND last_day >= $1 AND NOT (first_day = $1 AND last_day = $2) LIMIT 1

-- name: insert_bill
INSERT INTO provider_bill (first_day, last_day, amount, source, transfer_id) VALUES ($1, $2, $3, $4, $5::uuid)

-- The ledger's side of a reconciliation, and its reports. Days are UTC, of recorded_at.

-- name: outstanding
-- Customers' balances, what they were ever given or sold (less what was taken back), and what their calls were charged.
SELECT (SELECT coalesce(sum(amount), 0)::bigint FROM balance WHERE bucket IN ('promo', 'paid', 'debt')) AS balances,
       (SELECT coalesce(sum(entry.amount), 0)::bigint FROM entry
        JOIN transfer ON transfer.id = entry.transfer_id AND transfer.recorded_at = entry.recorded_at
        WHERE entry.bucket IN ('promo', 'paid', 'debt') AND transfer.request_id IS NULL) AS granted,
       (SELECT coalesce(sum(charged), 0)::bigint FROM call_usage) AS debited

-- name: sample
-- The same calls for the same seed: in the order of a hash that nobody can choose beforehand.
SELECT request_id::text, phase, rate_version, rate_key, usage, cost, rounding FROM call_usage
WHERE recorded_at >= $1 AND recorded_at < $2 AND rate_key <> ''
ORDER BY md5($3::text || request_id::text), phase LIMIT $4

-- name: shadow
-- What calls were billed in shadow that day, by rate: their shadow entries, and what their prices are made of.
SELECT rate_version, rate_key, count(*) AS calls, sum(-shadow_entry.amount)::bigint AS due,
       sum(cost)::bigint AS cost, sum(rounding)::bigint AS rounding,
       coalesce(sum((usage ->> 'input')::bigint), 0)::bigint AS input,
       coalesce(sum((usage ->> 'input_cached')::bigint), 0)::bigint AS input_cached,
       coalesce(sum((usage ->> 'input_cache_write')::bigint), 0)::bigint AS input_cache_write,
       coalesce(sum((usage ->> 'input_audio')::bigint), 0)::bigint AS input_audio,
       coalesce(sum((usage ->> 'input_image')::bigint), 0)::bigint AS input_image,
       coalesce(sum((usage ->> 'output')::bigint), 0)::bigint AS output,
       coalesce(sum((usage ->> 'output_reasoning')::bigint), 0)::bigint AS output_reasoning,
       coalesce(sum((usage ->> 'output_audio')::bigint), 0)::bigint AS output_audio,
       coalesce(sum((usage ->> 'output_image')::bigint), 0)::bigint AS output_image
FROM shadow_entry
JOIN call_usage ON call_usage.request_id = shadow_entry.request_id AND call_usage.phase = shadow_entry.phase
    AND call_usage.recorded_at = shadow_entry.recorded_at
WHERE shadow_entry.bucket = 'shadow_due' AND shadow_entry.recorded_at >= $1 AND shadow_entry.recorded_at < $2
GROUP BY 1, 2

-- name: payments
-- What the books have of these payments. A refund that we decided on may not be at Stripe yet.
SELECT payment_intent_id, amount_cents, currency, is_live, bonus, posted_paid, posted_tax, posted_fees,
       posted_refunded + posted_withdrawn AS posted_returned,
       coalesce((SELECT json_object_agg(refund.id, cents) FROM refund
                 WHERE purchase_id = purchase.id AND refund.state <> 'refused'), '{}')::text AS refunds
FROM purchase WHERE payment_intent_id = ANY($1::text[]) AND posted_paid > 0

-- name: topped_up
-- The payments whose top-ups were recorded on that day.
SELECT DISTINCT purchase.payment_intent_id FROM transfer
JOIN purchase_transfer ON purchase_transfer.transfer_id = transfer.id
JOIN purchase ON purchase.id = purchase_transfer.purchase_id
WHERE transfer.kind = 'top_up' AND transfer.recorded_at >= $1 AND transfer.recorded_at < $2

-- name: payouts
-- These, and those that came to be known on that day; but for those of the other mode, as Stripe's events have it ($4:
-- whether this one is live).
SELECT id, posted FROM payout WHERE id = ANY($1::text[]) OR (
    created_at >= $2 AND created_at < $3
    AND NOT EXISTS (SELECT FROM stripe_event WHERE object_id = payout.id AND is_live <> $4))

-- name: own_fees
SELECT id, cents FROM stripe_own_fee WHERE id = ANY($1::text[])

-- name: keep
INSERT INTO reconciliation (day, agrees, report) VALUES ($1, $2, $3::text::jsonb)

-- name: newest
-- The newest report, of one day or of all.
SELECT report::text, recorded_at FROM reconciliation WHERE $1::date IS NULL OR day = $1 ORDER BY id DESC LIMIT 1

-- name: due
-- Of the days from $1 to $2 on which the ledger was in use, and that have no whole report yet, the one that was not tried
-- for longest, the newest first: one that nobody can tell of keeps no other waiting.
SELECT day.day::date FROM generate_series($1::timestamp, $2::timestamp, interval '1 day') AS day
WHERE NOT EXISTS (
    SELECT FROM reconciliation WHERE reconciliation.day = day.day::date AND (report ->> 'is_whole')::boolean
) AND EXISTS (SELECT FROM transfer WHERE recorded_at < (day.day + interval '1 day') AT TIME ZONE 'UTC')
ORDER BY (SELECT max(id) FROM reconciliation WHERE reconciliation.day = day.day::date) NULLS FIRST, day.day DESC LIMIT 1

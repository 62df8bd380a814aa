-- The invariants that a query can check. Each returns one row of text for each violation; none is what is wanted.
-- The names are what `tollgate audit` prints, numbered as in the design.

-- name: 1. the entries of a transfer sum to zero
SELECT format('transfer %s sums to %s', transfer_id, sum(amount))
FROM entry GROUP BY transfer_id HAVING sum(amount) <> 0

-- name: 1. every transfer has entries, and every entry a transfer
SELECT format('transfer %s without entries', id) FROM transfer
WHERE NOT EXISTS (SELECT FROM entry WHERE transfer_id = transfer.id)
UNION ALL
SELECT format('entry of no transfer %s, or of another time', transfer_id) FROM entry
WHERE NOT EXISTS (SELECT FROM transfer WHERE id = entry.transfer_id AND transfer.recorded_at = entry.recorded_at)

-- name: 2. a balance is the sum of its entries
SELECT format('account %s, bucket %s, shard %s: balance %s, entries %s', account_id, bucket, shard,
              coalesce(balance.amount, 0), coalesce(summed.amount, 0))
FROM balance
FULL JOIN (SELECT account_id, bucket, shard, sum(amount) AS amount FROM entry GROUP BY 1, 2, 3) AS summed
    USING (account_id, bucket, shard)
WHERE coalesce(balance.amount, 0) <> coalesce(summed.amount, 0)

-- name: 2. what is owed is debt, and nothing else is below zero
SELECT format('account %s, bucket %s: %s', account_id, bucket, amount) FROM balance
WHERE (bucket IN ('promo', 'paid') AND amount < 0) OR (bucket = 'debt' AND amount > 0)

-- name: 2. every account has its buckets
SELECT format('account %s', account.id) FROM account
LEFT JOIN balance ON balance.account_id = account.id AND balance.bucket IN ('promo', 'paid', 'debt')
GROUP BY account.id HAVING count(balance.bucket) <> 3

-- name: 4. a hold ends once
SELECT format('request %s, %s: %s usage lines', request_id, phase, count(*))
FROM call_usage GROUP BY request_id, phase HAVING count(*) > 1

-- name: 5. a request is captured at most once
SELECT format('request %s: %s captures', request_id, count(*)) FROM transfer
WHERE request_id IS NOT NULL AND kind IN ('capture', 'lapse') GROUP BY request_id HAVING count(*) > 1
UNION ALL
SELECT format('request %s: %s corrections', request_id, count(*)) FROM transfer
WHERE request_id IS NOT NULL AND kind = 'correction' GROUP BY request_id HAVING count(*) > 1

-- name: 5. posted requests and usage lines are one to one
SELECT format('request %s, %s: %s', request_id, phase,
              CASE WHEN call_usage.account_id IS NULL THEN 'posted without usage' ELSE 'usage that was not posted' END)
FROM idem FULL JOIN call_usage USING (request_id, phase)
WHERE idem.kind IS NULL OR call_usage.account_id IS NULL

-- name: 5. what a usage line charged is what its transfer took
SELECT format('request %s, %s: charged %s, took %s', request_id, phase, coalesce(used.charged, 0), coalesce(taken, 0))
FROM (SELECT request_id, phase, charged FROM call_usage WHERE charged <> 0) AS used
FULL JOIN (
    SELECT transfer.request_id, CASE transfer.kind WHEN 'correction' THEN 'correction' ELSE 'end' END AS phase,
           -sum(entry.amount) AS taken
    FROM transfer JOIN entry ON entry.transfer_id = transfer.id AND entry.account_id = transfer.account_id
    WHERE transfer.request_id IS NOT NULL GROUP BY 1, 2
) AS moved USING (request_id, phase)
WHERE coalesce(used.charged, 0) <> coalesce(taken, 0)

-- name: 5. an end charges what it cost, unless it is only shadow-billed
SELECT format('request %s: cost %s, charged %s', request_id, cost, charged) FROM call_usage
WHERE phase = 'end' AND cost <> charged
  AND NOT EXISTS (SELECT FROM shadow_entry WHERE shadow_entry.request_id = call_usage.request_id)

-- name: 5. a correction follows a lapse, and together they charge the cost
SELECT format('request %s: lapse %s, correction %s, cost %s', later.request_id, first.charged, later.charged, later.cost)
FROM call_usage AS later
LEFT JOIN call_usage AS first ON first.request_id = later.request_id AND first.phase = 'end'
WHERE later.phase = 'correction'
  AND (first.outcome IS DISTINCT FROM 'lapsed' OR first.charged + later.charged <> later.cost)
  AND NOT EXISTS (SELECT FROM shadow_entry WHERE shadow_entry.request_id = later.request_id)

-- name: 6. every event is posted: no open dead letters
SELECT format('%s-%s of shard %s: %s', epoch, seq, shard, reason) FROM dead_letter
WHERE NOT EXISTS (SELECT FROM dead_letter_decision WHERE dead_letter_id = dead_letter.id)

-- name: 6. an answer that upstream began is captured, or says why not
SELECT format('request %s: void after status %s, without a flag', request_id, status) FROM call_usage
WHERE outcome = 'void' AND status BETWEEN 200 AND 299 AND flags = '{}'

-- name: 8. a paid purchase is one top-up, and no more is taken back than was granted
SELECT format('purchase %s: posted %s, in the ledger %s, %s top-ups', purchase.id,
              posted_paid + posted_bonus - posted_refund_reversed - posted_dispute_reversed, moved, topped_up)
FROM purchase
LEFT JOIN LATERAL (
    SELECT coalesce(sum(entry.amount) FILTER (WHERE entry.bucket IN ('promo', 'paid', 'debt')), 0) AS moved,
           count(DISTINCT transfer.id) FILTER (WHERE transfer.kind = 'top_up') AS topped_up
    FROM purchase_transfer
    JOIN transfer ON transfer.id = purchase_transfer.transfer_id
    JOIN entry ON entry.transfer_id = transfer.id AND entry.recorded_at = transfer.recorded_at
    WHERE purchase_transfer.purchase_id = purchase.id
) AS linked ON true
WHERE moved <> posted_paid + posted_bonus - posted_refund_reversed - posted_dispute_reversed
   OR topped_up <> CASE WHEN posted_paid > 0 THEN 1 ELSE 0 END
   OR posted_refund_reversed + posted_dispute_reversed NOT BETWEEN 0 AND posted_paid + posted_bonus
UNION ALL
SELECT format('transfer %s: a %s of no purchase', id, kind) FROM transfer
WHERE kind IN ('top_up', 'tax', 'refund', 'reversal')
  AND NOT EXISTS (SELECT FROM purchase_transfer WHERE purchase_transfer.transfer_id = transfer.id)

-- name: 8. what a purchase moved at Stripe, in tax and in fees is what its transfers did
SELECT format('purchase %s: posted %s of money, %s of tax and %s of fees; in the ledger %s, %s and %s',
              purchase.id, money, tax, fees, moved_money, moved_tax, moved_fees)
FROM purchase
CROSS JOIN LATERAL (
    SELECT posted_paid + posted_tax - posted_fees - posted_refunded - posted_withdrawn AS money,
           posted_tax - posted_tax_returned AS tax, posted_fees AS fees
) AS posted
CROSS JOIN LATERAL (
    SELECT coalesce(-sum(entry.amount) FILTER (WHERE entry.bucket = 'stripe_clearing'), 0) AS moved_money,
           coalesce(sum(entry.amount) FILTER (WHERE entry.bucket = 'tax_payable'), 0) AS moved_tax,
           coalesce(-sum(entry.amount) FILTER (WHERE entry.bucket = 'stripe_fees'), 0) AS moved_fees
    FROM purchase_transfer
    JOIN transfer ON transfer.id = purchase_transfer.transfer_id
    JOIN entry ON entry.transfer_id = transfer.id AND entry.recorded_at = transfer.recorded_at
    WHERE purchase_transfer.purchase_id = purchase.id
) AS linked
WHERE (money, tax, fees) <> (moved_money, moved_tax, moved_fees)

-- name: 8. what Stripe paid out, and took for itself, is what the ledger has of it
-- Both name Stripe's object in their reason, and nothing else: there is no other link.
WITH known AS (
    SELECT 'payout ' || id AS reason, posted FROM payout WHERE posted <> 0
    UNION ALL
    SELECT 'Stripe ' || id, cents * 10000000 FROM stripe_own_fee WHERE cents <> 0
), moved AS (
    SELECT reason, sum(entry.amount) AS amount
    FROM transfer JOIN entry ON entry.transfer_id = transfer.id AND entry.recorded_at = transfer.recorded_at
    WHERE kind IN ('payout', 'fees') AND bucket = 'stripe_clearing'
      AND NOT EXISTS (SELECT FROM purchase_transfer WHERE purchase_transfer.transfer_id = transfer.id)
    GROUP BY reason HAVING sum(entry.amount) <> 0
)
SELECT format('%s: posted %s, in the ledger %s', reason, coalesce(posted, 0), coalesce(amount, 0))
FROM known FULL JOIN moved USING (reason)
WHERE coalesce(posted, 0) <> coalesce(amount, 0)

-- name: 9. repeating an event changes nothing: what is posted is claimed, and a claim is made once
SELECT format('request %s moved money and is not claimed', request_id) FROM transfer
WHERE request_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM idem WHERE idem.request_id = transfer.request_id
      AND idem.phase = CASE transfer.kind WHEN 'correction' THEN 'correction' ELSE 'end' END
)
UNION ALL
SELECT 'idem lacks its key'
WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'idem'::regclass AND indisprimary AND indisvalid)
UNION ALL
SELECT format('account %s: credit %s waits, and only %s were made', account_id, credit_outbox.credit_seq, account.credit_seq)
FROM credit_outbox JOIN account ON account.id = account_id WHERE credit_outbox.credit_seq > account.credit_seq

-- name: 12. a shadow-billed call moves no balance, and its shadow entries are its cost
SELECT format('request %s, %s: %s', request_id, phase, wrong)
FROM (
    SELECT request_id, phase, sum(amount) AS total, -sum(amount) FILTER (WHERE bucket = 'shadow_due') AS due
    FROM shadow_entry GROUP BY 1, 2
) AS shadow
LEFT JOIN call_usage USING (request_id, phase)
LEFT JOIN (SELECT DISTINCT request_id FROM transfer WHERE request_id IS NOT NULL) AS moved USING (request_id)
CROSS JOIN LATERAL (VALUES
    (CASE WHEN call_usage.account_id IS NULL THEN 'has no usage line' END),
    (CASE WHEN charged <> 0 THEN format('charged %s', charged) END),
    (CASE WHEN due <> cost THEN format('cost %s, shadow entries of %s', cost, due) END),
    (CASE WHEN total <> 0 THEN format('its shadow entries sum to %s', total) END),
    (CASE WHEN moved.request_id IS NOT NULL THEN 'moved money' END)
) AS found (wrong)
WHERE wrong IS NOT NULL

-- name: 13. ledger rows never change or vanish: the triggers stand
SELECT format('%s lacks %s', tree.relid, wanted)
FROM unnest(ARRAY[
    'transfer', 'entry', 'call_usage', 'idem', 'rate_card', 'seal', 'dead_letter', 'dead_letter_decision',
    'cost_day', 'model_cost', 'provider_bill', 'statement', 'reconciliation', 'audit_log',
    'shadow_entry'
]) AS root
CROSS JOIN LATERAL (
    SELECT root::regclass AS relid UNION SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = root::regclass
) AS tree
CROSS JOIN unnest(ARRAY['keep_rows', 'keep_table']) AS wanted
WHERE NOT EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = tree.relid AND tgname = wanted AND tgenabled = 'A'
)
UNION ALL
SELECT 'entry lacks balanced'
WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'entry'::regclass AND tgname = 'balanced' AND tgenabled = 'A')

-- name: 13. ledger rows never change or vanish: the service may only add to them, and owns nothing
SELECT format('tollgate_service may %s %s', privilege, relation.oid::regclass)
FROM pg_class AS relation
CROSS JOIN unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
WHERE relation.relkind IN ('r', 'p')
  AND (relation.oid::regclass::text = ANY(ARRAY[
           'transfer', 'entry', 'call_usage', 'idem', 'rate_card', 'seal', 'dead_letter', 'dead_letter_decision',
    'cost_day', 'model_cost', 'provider_bill', 'statement', 'reconciliation', 'audit_log',
    'shadow_entry'
       ])
       OR relation.oid IN (SELECT inhrelid FROM pg_inherits
                           WHERE inhparent = ANY(ARRAY['transfer', 'entry', 'call_usage']::regclass[])))
  AND has_table_privilege('tollgate_service', relation.oid, privilege)
UNION ALL
SELECT format('tollgate_service owns %s', oid::regclass) FROM pg_class WHERE relowner = 'tollgate_service'::regrole

-- name: 14. a statement's opening and movements make its closing, which opens the next
SELECT format('account %s, %s: opens with %s and closes with %s; the ledger says %s and %s',
              statement.account_id, month, opening, closing, before, before + within)
FROM statement
CROSS JOIN LATERAL (
    SELECT coalesce(sum(amount) FILTER (WHERE recorded_at < month::timestamp AT TIME ZONE 'UTC'), 0) AS before,
           coalesce(sum(amount) FILTER (WHERE recorded_at >= month::timestamp AT TIME ZONE 'UTC'), 0) AS within
    FROM entry
    WHERE entry.account_id = statement.account_id
      AND recorded_at < (month + interval '1 month') AT TIME ZONE 'UTC'
) AS ledger
WHERE opening <> before OR closing <> before + within
   OR (convert_from(content, 'UTF8')::jsonb ->> 'opening')::bigint <> opening
   OR (convert_from(content, 'UTF8')::jsonb ->> 'closing')::bigint <> closing
   OR (SELECT coalesce(sum((movement ->> 'amount')::bigint), 0)
       FROM jsonb_array_elements(convert_from(content, 'UTF8')::jsonb -> 'movements') AS movement)
      <> closing - opening
UNION ALL
SELECT format('account %s: %s closes with %s, %s opens with %s',
              earlier.account_id, earlier.month, earlier.closing, later.month, later.opening)
FROM statement AS earlier
JOIN statement AS later ON later.account_id = earlier.account_id AND later.month = earlier.month + interval '1 month'
WHERE later.opening <> earlier.closing

-- name: 15. a suspended account admits nothing
-- A request's id begins with the milliseconds of its arrival. Gateways learn of a suspension within a second, and clocks
-- differ; a later change of the account hides earlier calls, so this finds too little, never too much.
SELECT format('request %s of account %s, which is %s since %s', request_id, account.id, account.status, changed_at)
FROM account JOIN call_usage ON call_usage.account_id = account.id AND call_usage.recorded_at > changed_at
WHERE account.status <> 'active'
  AND 'epoch'::timestamptz
      + ('x' || substr(replace(request_id::text, '-', ''), 1, 12))::bit(48)::bigint * interval '1 millisecond'
      > changed_at + interval '5 seconds'

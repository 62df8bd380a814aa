-- The ledger's statements. Amounts are µcr. A shard's row is locked before anything in the shard is read or moved.

-- name: lock_shards
SELECT id, epoch, position_epoch, position_seq
FROM shard WHERE id = ANY($1::smallint[]) ORDER BY id FOR UPDATE

-- name: positions
SELECT id, epoch, is_rebuilding, position_epoch, position_seq FROM shard ORDER BY id

-- name: buckets
-- The buckets of accounts. Call it only with their shards locked.
SELECT account_id,
       sum(amount) FILTER (WHERE bucket = 'promo')::bigint AS promo,
       sum(amount) FILTER (WHERE bucket = 'paid')::bigint AS paid,
       sum(amount) FILTER (WHERE bucket = 'debt')::bigint AS debt
FROM balance WHERE account_id = ANY($1::uuid[]) GROUP BY account_id

-- name: claims
SELECT request_id, phase, kind, epoch, seq, fingerprint FROM idem WHERE request_id = ANY($1::uuid[])

-- name: taken
-- What the transfers of requests took from their accounts.
SELECT transfer_id,
       coalesce(sum(amount) FILTER (WHERE bucket = 'promo'), 0)::bigint AS promo,
       coalesce(sum(amount) FILTER (WHERE bucket = 'paid'), 0)::bigint AS paid,
       coalesce(sum(amount) FILTER (WHERE bucket = 'debt'), 0)::bigint AS debt
FROM entry WHERE transfer_id = ANY($1::uuid[]) GROUP BY transfer_id

-- name: insert_idem
INSERT INTO idem (request_id, phase, kind, epoch, seq, fingerprint)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[])

-- name: insert_transfers
INSERT INTO transfer (id, kind, account_id, request_id, reason, event_at)
SELECT id, kind, account_id, request_id, reason, 'epoch'::timestamptz + event_at_ms * interval '1 millisecond'
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[])
    AS given (id, kind, account_id, request_id, reason, event_at_ms)

-- name: insert_entries
INSERT INTO entry (transfer_id, line, shard, account_id, bucket, amount)
SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::uuid[], $5::text[], $6::bigint[])

-- name: insert_usage
INSERT INTO call_usage (
    request_id, phase, account_id, key_id, endpoint, model, rate_version, rate_key, outcome, usage, held, cost, charged,
    rounding, flags, status, upstream_request_id, event_at, member_id
)
SELECT request_id, phase, account_id, key_id, endpoint, model, rate_version, rate_key, outcome, usage, held, cost,
       charged, rounding, string_to_array(flags, ','), status, upstream_request_id,
       'epoch'::timestamptz + event_at_ms * interval '1 millisecond', member_id
FROM unnest(
    $1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::jsonb[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::text[], $16::smallint[],
    $17::text[], $18::bigint[], $19::text[]
) AS given (
    request_id, phase, account_id, key_id, endpoint, model, rate_version, rate_key, outcome, usage, held, cost, charged,
    rounding, flags, status, upstream_request_id, event_at_ms, member_id
)

-- name: insert_shadow_entries
INSERT INTO shadow_entry (request_id, phase, line, account_id, bucket, amount)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::smallint[], $4::uuid[], $5::text[], $6::bigint[])

-- name: add_to_balances
UPDATE balance SET amount = balance.amount + given.amount
FROM unnest($1::smallint[], $2::uuid[], $3::text[], $4::bigint[]) AS given (shard, account_id, bucket, amount)
WHERE balance.account_id = given.account_id AND balance.bucket = given.bucket AND balance.shard = given.shard

-- name: advance_shards
UPDATE shard SET position_epoch = given.epoch, position_seq = given.seq, changed_at = now()
FROM unnest($1::smallint[], $2::bigint[], $3::bigint[]) AS given (id, epoch, seq)
WHERE shard.id = given.id AND (shard.position_epoch, shard.position_seq) < (given.epoch, given.seq)

-- name: insert_dead_letters
INSERT INTO dead_letter (shard, epoch, seq, reason, payload, fingerprint)
SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bigint[], $4::text[], $5::jsonb[], $6::bytea[])
ON CONFLICT DO NOTHING
RETURNING reason

-- name: credit
-- Number a movement that Redis must learn of, and queue it. The account's row orders them.
WITH numbered AS (
    UPDATE account SET credit_seq = credit_seq + 1 WHERE id = $1::uuid RETURNING id, credit_seq
)
INSERT INTO credit_outbox (account_id, credit_seq, amount)
SELECT id, credit_seq, $2::bigint FROM numbered RETURNING credit_seq

-- name: ended
-- Requests whose end is posted and final: a lapse may still be corrected by a late settlement.
SELECT DISTINCT request_id FROM idem
WHERE request_id = ANY($1::uuid[]) AND (phase = 'correction' OR kind <> 'lapse')

-- name: quarantined
SELECT DISTINCT payload ->> 'request_id' AS request_id FROM dead_letter
WHERE payload ->> 'request_id' = ANY($1::text[])

-- name: lapses
SELECT call_usage.request_id, call_usage.charged
FROM idem JOIN call_usage USING (request_id, phase)
WHERE idem.request_id = ANY($1::uuid[]) AND idem.phase = 'end' AND idem.kind = 'lapse'
  AND NOT EXISTS (SELECT FROM idem AS later WHERE later.request_id = idem.request_id AND later.phase = 'correction')

-- name: mark_for_rebuild
UPDATE shard SET is_rebuilding = true, changed_at = now() WHERE id = ANY($1::smallint[])

-- name: ensure_partitions
SELECT ensure_partitions($1::integer)

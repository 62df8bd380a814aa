-- The chain of seals over the ledger. A leaf is the SHA-256 of a transfer's row, its entries and its usage line, written
-- as one JSON array; times are whole microseconds, so that no setting of a session changes a hash.
-- What one posting writes has one recorded_at, which finds a transfer's other rows in their partitions.

-- name: last_ordinal
SELECT last_value FROM transfer_ordinal

-- name: newest_transaction
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint

-- name: oldest_transaction
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint

-- name: leaves
-- The leaves of the transfers behind ordinal $1, up to $2, at most $3.
SELECT ordinal, id, sha256(convert_to(jsonb_build_array(
    ordinal, id, kind, account_id, request_id, reason,
    (extract(epoch FROM event_at) * 1000000)::bigint, (extract(epoch FROM recorded_at) * 1000000)::bigint,
    (
        SELECT jsonb_agg(jsonb_build_array(line, shard, entry.account_id, bucket, amount) ORDER BY line)
        FROM entry WHERE entry.transfer_id = transfer.id AND entry.recorded_at = transfer.recorded_at
    ),
    (
        SELECT jsonb_build_array(
            used.account_id, key_id, endpoint, model, rate_version, rate_key, outcome, usage, held, cost, charged,
            rounding, flags, status, upstream_request_id, (extract(epoch FROM used.event_at) * 1000000)::bigint
        )
        FROM call_usage AS used
        WHERE used.request_id = transfer.request_id AND used.recorded_at = transfer.recorded_at
          AND used.phase = CASE transfer.kind WHEN 'correction' THEN 'correction' ELSE 'end' END
    )
)::text, 'UTF8')) AS leaf
FROM transfer WHERE ordinal > $1 AND ordinal <= $2 ORDER BY ordinal LIMIT $3

-- name: lock
SELECT pg_try_advisory_xact_lock($1)

-- name: insert_seal
INSERT INTO seal (number, ordinal_last, transfer_ids, leaves, head)
VALUES ($1, $2, $3::uuid[], $4, $5)

-- name: newest_seal
SELECT number, ordinal_last, transfer_ids, leaves, head FROM seal ORDER BY number DESC LIMIT 1

-- name: seals_behind
SELECT number, ordinal_last, transfer_ids, leaves, head FROM seal WHERE number > $1 ORDER BY number LIMIT $2

-- name: count_transfers
SELECT count(*) FROM transfer WHERE ordinal > $1

-- name: strays
-- No leaf holds an entry that has another time than its transfer, so whoever adds one changes no hash.
SELECT DISTINCT transfer_id FROM entry
WHERE NOT EXISTS (SELECT FROM transfer WHERE transfer.id = entry.transfer_id AND transfer.recorded_at = entry.recorded_at)
LIMIT $1

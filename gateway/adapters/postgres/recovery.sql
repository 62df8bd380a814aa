-- Recovery: what is read and raised when Redis must be told anew.

-- name: snapshot
-- One account as Redis must know it, and whether its shard may be loaded now: all of one moment.
SELECT account.credit_seq, shard.epoch, shard.is_rebuilding,
       (SELECT sum(amount)::bigint FROM balance WHERE account_id = account.id) AS balance
FROM account JOIN shard ON shard.id = $2::smallint WHERE account.id = $1::uuid

-- name: lock
SELECT pg_try_advisory_lock($1::integer, 0)

-- name: raise_epochs
-- Above Redis' epoch too, should Postgres have been restored from a backup.
UPDATE shard SET epoch = greatest(shard.epoch, given.epoch) + 1, is_rebuilding = true, changed_at = now()
FROM unnest($1::smallint[], $2::bigint[]) AS given (id, epoch)
WHERE shard.id = given.id
RETURNING shard.id, shard.epoch, shard.position_seq

-- name: rebuilt
UPDATE shard SET is_rebuilding = false, changed_at = now()
FROM unnest($1::smallint[], $2::bigint[]) AS given (id, epoch)
WHERE shard.id = given.id AND shard.epoch = given.epoch

-- name: mark_for_rebuild
UPDATE shard SET is_rebuilding = true, changed_at = now() WHERE id = ANY($1::smallint[])

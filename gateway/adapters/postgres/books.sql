-- The daily journal and the ledger's lines, by recorded_at: what is over stays as it is. A posting's rows have one time.

-- name: opening
SELECT bucket, sum(amount)::bigint AS amount FROM entry WHERE recorded_at < $1 GROUP BY bucket

-- name: journals
SELECT transfer.kind, entry.bucket, sum(entry.amount)::bigint AS amount
FROM entry
JOIN transfer ON transfer.id = entry.transfer_id AND transfer.recorded_at = entry.recorded_at
WHERE entry.recorded_at >= $1 AND entry.recorded_at < $2
  AND transfer.recorded_at >= $1 AND transfer.recorded_at < $2
GROUP BY 1, 2 ORDER BY 1, 2

-- name: lines
SELECT entry.recorded_at, transfer.event_at, transfer.kind, transfer.id, transfer.request_id, transfer.reason,
       entry.line, entry.account_id, entry.bucket, entry.amount
FROM entry
JOIN transfer ON transfer.id = entry.transfer_id AND transfer.recorded_at = entry.recorded_at
WHERE entry.recorded_at >= $1 AND entry.recorded_at < $2
  AND transfer.recorded_at >= $1 AND transfer.recorded_at < $2
ORDER BY entry.recorded_at, entry.transfer_id, entry.line

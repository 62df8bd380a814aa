-- The ledger as its account reads it, page by page: the newest first, or the oldest first. A page is one short query,
-- found by where the last one ended, so nothing is held open between two of them. The bound is a condition of the index
-- whatever the page ("or there is none yet" would make a prepared plan walk all lines before it): the nil id stands at it.

-- name: back
SELECT page.id, page.kind, page.request_id, page.reason, page.event_at, page.recorded_at,
       (SELECT sum(amount)::bigint FROM entry
        WHERE entry.transfer_id = page.id AND entry.account_id = $1::uuid
          AND entry.recorded_at = page.recorded_at) AS amount,
       call_usage.model, call_usage.outcome, call_usage.rate_version
FROM (
    SELECT id, kind, request_id, reason, event_at, recorded_at FROM transfer
    WHERE account_id = $1::uuid AND recorded_at >= $2 AND recorded_at <= $3 AND ($4 = '' OR kind = $4)
      AND (recorded_at, id) < ($3, $5::uuid)
    ORDER BY recorded_at DESC, id DESC LIMIT $6
) AS page
LEFT JOIN call_usage ON call_usage.request_id = page.request_id AND call_usage.recorded_at = page.recorded_at
    AND call_usage.phase = CASE page.kind WHEN 'correction' THEN 'correction' ELSE 'end' END
ORDER BY page.recorded_at DESC, page.id DESC

-- name: forth
SELECT page.id, page.kind, page.request_id, page.reason, page.event_at, page.recorded_at,
       (SELECT sum(amount)::bigint FROM entry
        WHERE entry.transfer_id = page.id AND entry.account_id = $1::uuid
          AND entry.recorded_at = page.recorded_at) AS amount,
       call_usage.model, call_usage.outcome, call_usage.rate_version
FROM (
    SELECT id, kind, request_id, reason, event_at, recorded_at FROM transfer
    WHERE account_id = $1::uuid AND recorded_at >= $2 AND recorded_at < $3 AND ($4 = '' OR kind = $4)
      AND (recorded_at, id) > ($2, $5::uuid)
    ORDER BY recorded_at, id LIMIT $6
) AS page
LEFT JOIN call_usage ON call_usage.request_id = page.request_id AND call_usage.recorded_at = page.recorded_at
    AND call_usage.phase = CASE page.kind WHEN 'correction' THEN 'correction' ELSE 'end' END
ORDER BY page.recorded_at, page.id

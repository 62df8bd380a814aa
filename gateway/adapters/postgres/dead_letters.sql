-- Events that could not be posted, and what operators decided about them.

-- name: list
SELECT dead_letter.id, shard, epoch, seq, dead_letter.reason, payload::text AS payload, dead_letter.at,
       coalesce(decision, 'open') AS state, coalesce(decided.reason, '') AS decision_reason
FROM dead_letter LEFT JOIN dead_letter_decision AS decided ON decided.dead_letter_id = dead_letter.id
WHERE ($1::bigint IS NULL OR dead_letter.id = $1) AND ($2 OR decision IS NULL)
ORDER BY dead_letter.id LIMIT $3

-- name: count_open
SELECT count(*) FROM dead_letter WHERE NOT EXISTS (SELECT FROM dead_letter_decision WHERE dead_letter_id = dead_letter.id)

-- name: decide
INSERT INTO dead_letter_decision (dead_letter_id, decision, reason) VALUES ($1, $2, $3)

-- name: account_exists
SELECT EXISTS (SELECT FROM account WHERE id = $1::uuid)

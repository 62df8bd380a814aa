-- What an account has used, summed by day, model, member or key.

-- name: by
-- A call belongs to the day that it was opened in, by the time in its request id, as its caps count it. The pages go on
-- behind the group that the last one ended with: days backwards, all else in the order of its bytes.
WITH line AS (
    SELECT CASE $6
               WHEN 'day' THEN
                   to_char(to_timestamp(
                       ('x' || left(replace(request_id::text, '-', ''), 12))::bit(48)::bigint / 1000
                   ) AT TIME ZONE $7, 'YYYY-MM-DD')
               WHEN 'model' THEN model
               WHEN 'member' THEN member_id
               ELSE key_id
           END COLLATE "C" AS grp,
           phase, charged, usage
    FROM call_usage
    WHERE account_id = $1::uuid AND recorded_at >= $2 AND request_id >= $3::uuid AND request_id < $4::uuid
)
SELECT grp, count(*) FILTER (WHERE phase = 'end') AS calls, sum(charged)::bigint AS charged,
       sum(tokens.input)::bigint AS input_tokens, sum(tokens.output)::bigint AS output_tokens
FROM line, LATERAL (
    SELECT coalesce(sum(value::bigint) FILTER (WHERE name LIKE 'input%'), 0) AS input,
           coalesce(sum(value::bigint) FILTER (WHERE name LIKE 'output%'), 0) AS output
    FROM jsonb_each_text(CASE phase WHEN 'end' THEN usage ELSE '{}' END) AS class (name, value)
) AS tokens
WHERE $5::text IS NULL OR CASE $6 WHEN 'day' THEN grp < $5 ELSE grp > $5 END
GROUP BY grp ORDER BY CASE $6 WHEN 'day' THEN grp END DESC, grp LIMIT $8

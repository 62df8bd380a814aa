-- Shadow billing beside real billing.

-- name: report
-- By account and model, of a window: what was charged, and what would have been. A lapse that was corrected is one call.
-- The $3 largest, each beside the sums of all.
WITH compared AS (
    SELECT account.id AS account_id, account.name AS account, model,
           count(DISTINCT request_id) FILTER (WHERE charged <> 0) AS charged_calls,
           coalesce(sum(charged), 0)::bigint AS charged,
           count(DISTINCT request_id) FILTER (WHERE is_shadow) AS shadow_calls,
           coalesce(sum(cost) FILTER (WHERE is_shadow), 0)::bigint AS shadow
    FROM call_usage
    JOIN account ON account.id = call_usage.account_id
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM shadow_entry
            WHERE shadow_entry.request_id = call_usage.request_id AND shadow_entry.phase = call_usage.phase
        ) AS is_shadow
    ) AS marked
    WHERE recorded_at > now() - $1::interval AND ($2::uuid IS NULL OR account.id = $2)
    GROUP BY 1, 2, 3 HAVING bool_or(outcome <> 'void')
)
SELECT compared.*, count(*) OVER () AS lines_total,
       (sum(charged_calls) OVER ())::bigint AS all_charged_calls, (sum(charged) OVER ())::bigint AS all_charged,
       (sum(shadow_calls) OVER ())::bigint AS all_shadow_calls, (sum(shadow) OVER ())::bigint AS all_shadow
FROM compared ORDER BY greatest(charged, shadow) DESC, account, model LIMIT $3

-- What Stripe brought to the bank, and what it took for itself.

-- name: begin
INSERT INTO payout (id, amount_cents, status) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING

-- name: lock
SELECT status, posted FROM payout WHERE id = $1 FOR UPDATE

-- name: posted
-- What failed or was canceled stays so.
UPDATE payout SET posted = $3, changed_at = now(),
       status = CASE WHEN status IN ('failed', 'canceled') THEN status ELSE $2 END
WHERE id = $1

-- name: charge
INSERT INTO stripe_own_fee (id, cents) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id

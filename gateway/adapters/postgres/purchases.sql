-- Purchases, their refunds and Stripe's customers. A purchase is locked after its shard, never before.

-- name: one_at_a_time
-- What an account begins is counted, so it begins one at a time.
SELECT FROM account WHERE id = $1::uuid FOR NO KEY UPDATE

-- name: begin
-- Nothing is written once the hour has had its share.
INSERT INTO purchase (
    id, account_id, idempotency_key, fingerprint, package, amount_cents, currency, bonus, is_live, saves_card
)
SELECT $1::uuid, $2::uuid, $3, $4, $5, $6, $7, $8, $9, $10
WHERE (SELECT count(*) FROM purchase WHERE account_id = $2::uuid AND created_at > now() - interval '1 hour') < $11
RETURNING *

-- name: by_key
SELECT * FROM purchase WHERE account_id = $1::uuid AND idempotency_key = $2

-- name: find
SELECT * FROM purchase WHERE id = $1::uuid

-- name: of_payment
SELECT * FROM purchase WHERE payment_intent_id = $1

-- name: listing
-- The newest purchases of one account, or of all; those that are older than the one that $3 and $4 name.
SELECT * FROM purchase
WHERE ($1::uuid IS NULL OR account_id = $1::uuid) AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
ORDER BY created_at DESC, id DESC LIMIT $2

-- name: opened
UPDATE purchase SET session_id = $2, checkout_url = $3, changed_at = now(),
       state = CASE state WHEN 'created' THEN 'open' ELSE state END
WHERE id = $1::uuid

-- name: lock
SELECT * FROM purchase WHERE id = $1::uuid FOR UPDATE

-- name: begin_reading
SELECT nextval('stripe_reading')

-- name: set_state
-- What is paid stays paid, and an older reading changes nothing.
UPDATE purchase SET state = $2, version = $3, changed_at = now() WHERE id = $1::uuid AND state <> 'paid' AND version <= $3

-- name: read
-- What an older reading finds from now on is not posted.
UPDATE purchase SET version = $2 WHERE id = $1::uuid

-- name: posted
UPDATE purchase SET
    state = 'paid', payment_intent_id = $2, receipt_url = $3, changed_at = now(),
    paid_at = coalesce(paid_at, now()),
    posted_paid = $4, posted_bonus = $5, posted_tax = $6, posted_fees = $7, posted_refunded = $8,
    posted_tax_returned = $9, posted_refund_reversed = $10, posted_withdrawn = $11, posted_dispute_reversed = $12,
    posted_promo_taken = $13
WHERE id = $1::uuid

-- name: link
INSERT INTO purchase_transfer (transfer_id, purchase_id) VALUES ($1::uuid, $2::uuid)

-- name: promised
-- Refunds that Stripe does not show yet, though we decided on them.
SELECT coalesce(sum(cents), 0)::bigint FROM refund
WHERE purchase_id = $1::uuid AND state <> 'refused' AND id <> ALL($2::uuid[])

-- name: customer
SELECT stripe_id FROM stripe_customer WHERE account_id = $1::uuid AND NOT is_deleted

-- name: keep_customer
INSERT INTO stripe_customer (account_id, stripe_id) VALUES ($1::uuid, $2)
ON CONFLICT (account_id) DO UPDATE SET stripe_id = $2, is_deleted = false, card_id = '', card = '', tax_ids = '',
                                      changed_at = now()

-- name: customer_changed
UPDATE stripe_customer SET is_deleted = $2, card_id = $3, card = $4, tax_ids = $5, version = $6, changed_at = now()
WHERE stripe_id = $1 AND version <= $6

-- name: credit_seq
SELECT credit_seq FROM account WHERE id = $1::uuid FOR NO KEY UPDATE

-- name: begin_refund
INSERT INTO refund (id, purchase_id, idempotency_key, cents, reason) VALUES ($1::uuid, $2::uuid, $3, $4, $5)

-- name: refund_by_key
SELECT refund.*, purchase.payment_intent_id FROM refund JOIN purchase ON purchase.id = purchase_id
WHERE purchase_id = $1::uuid AND refund.idempotency_key = $2

-- name: refunds_requested
-- $2: whether Stripe is asked in live mode; refunds in the other one are at another Stripe.
SELECT refund.*, purchase.payment_intent_id FROM refund JOIN purchase ON purchase.id = purchase_id
WHERE refund.state = 'requested' AND refund.changed_at < now() - $1::interval AND purchase.is_live = $2
ORDER BY refund.changed_at LIMIT 20

-- name: claim_refund
-- Of those that saw it so, one may ask Stripe for it or give it up; if that one dies, another after this long.
UPDATE refund SET changed_at = now()
WHERE id = $1::uuid AND state = 'requested' AND changed_at = $2
  AND (changed_at = created_at OR changed_at < now() - $3::interval)
RETURNING id

-- name: refunds_shown
-- What Stripe shows is made, whatever was thought of it; and what failed there, after all, is not.
UPDATE refund SET state = shown.state, stripe_id = shown.stripe_id, changed_at = now(),
       answer = CASE shown.state WHEN 'made' THEN '' ELSE 'the bank sent the money back' END
FROM (
    SELECT id, stripe_id, CASE WHEN counts THEN 'made' ELSE 'refused' END AS state
    FROM unnest($2::uuid[], $3::text[], $4::boolean[]) AS of_stripe (id, stripe_id, counts)
) AS shown
WHERE refund.id = shown.id AND purchase_id = $1::uuid AND refund.state <> shown.state

-- name: postpone_refund
UPDATE refund SET changed_at = now() WHERE id = $1::uuid AND state = 'requested'

-- name: refund_refused
UPDATE refund SET state = 'refused', answer = $2, changed_at = now() WHERE id = $1::uuid AND state = 'requested'

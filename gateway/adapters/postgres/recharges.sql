-- Automatic recharge: terms, attempts, and what a decision needs.

-- name: find
SELECT recharge.*, stripe_customer.card, coalesce(stripe_customer.card_id, '') AS card_id,
       purchase.checkout_url, purchase.state AS checkout_state
FROM recharge LEFT JOIN stripe_customer USING (account_id) LEFT JOIN purchase ON purchase.id = checkout_id
WHERE recharge.account_id = $1::uuid

-- name: lock
SELECT is_on, threshold, amount_cents, month_cents_max FROM recharge WHERE account_id = $1::uuid FOR UPDATE

-- name: set
-- Said anew, it starts anew: what was paused goes on.
INSERT INTO recharge (account_id, is_on, threshold, amount_cents, month_cents_max) VALUES ($1::uuid, $2, $3, $4, $5)
ON CONFLICT (account_id) DO UPDATE SET
    is_on = $2, threshold = $3, amount_cents = $4, month_cents_max = $5,
    paused = '', declines = 0, retry_at = now(), checkout_id = NULL, changed_at = now()

-- name: turn_off
UPDATE recharge SET is_on = false, changed_at = now() WHERE account_id = $1::uuid

-- name: resume
-- A customer who paid on the page that was offered may be charged again.
UPDATE recharge SET paused = '', declines = 0, retry_at = now(), checkout_id = NULL, changed_at = now()
FROM purchase WHERE purchase.id = checkout_id AND purchase.state = 'paid' AND paused = 'authentication_required'

-- name: watched
-- Whose balance is to be looked at: no attempt is open, none has to wait, and fewer than $1 were declined in a day.
SELECT recharge.account_id, threshold, amount_cents, month_cents_max, stripe_customer.stripe_id AS customer_id, card_id
FROM recharge
JOIN account ON account.id = recharge.account_id AND account.status = 'active'
JOIN stripe_customer ON stripe_customer.account_id = recharge.account_id AND card_id <> '' AND NOT is_deleted
WHERE is_on AND paused = '' AND retry_at <= now()
  AND NOT EXISTS (SELECT FROM recharge_attempt
                  WHERE recharge_attempt.account_id = recharge.account_id AND state = 'open')
  AND (SELECT count(*) FROM recharge_attempt
       WHERE recharge_attempt.account_id = recharge.account_id AND state = 'declined'
         AND created_at > now() - interval '1 day') < $1

-- name: agreed
-- What an attempt was begun for, if its account still agrees to it, and the card may still be charged.
SELECT recharge.account_id, threshold, recharge.amount_cents, month_cents_max, customer_id, attempt.card_id
FROM recharge_attempt AS attempt
JOIN purchase ON purchase.id = purchase_id
JOIN recharge ON recharge.account_id = attempt.account_id AND recharge.amount_cents = purchase.amount_cents
JOIN account ON account.id = attempt.account_id AND account.status = 'active'
JOIN stripe_customer ON stripe_id = customer_id AND stripe_customer.card_id = attempt.card_id AND NOT is_deleted
WHERE purchase_id = $1::uuid AND is_on AND paused = ''

-- name: begin_purchase
INSERT INTO purchase (
    id, account_id, idempotency_key, fingerprint, package, amount_cents, currency, bonus, is_live
)
VALUES ($1::uuid, $2::uuid, 'recharge-' || $1::text, ''::bytea, 'recharge', $3, $4, 0, $5)

-- name: begin
INSERT INTO recharge_attempt (purchase_id, account_id, customer_id, card_id) VALUES ($1::uuid, $2::uuid, $3, $4)

-- name: coming
-- Credit that the ledger has and Redis may not, and payments that a bank is still making.
SELECT coalesce((SELECT sum(amount) FROM credit_outbox WHERE account_id = $1::uuid AND amount > 0), 0)::bigint AS queued,
       coalesce((SELECT sum(amount_cents) FROM purchase
                 WHERE account_id = $1::uuid AND state = 'processing'), 0)::bigint AS processing_cents

-- name: month_cents
-- Of this month in the account's time zone, one apart. What is under way counts in whichever month it is; what was paid,
-- in the month in which it was: an attempt may be made on one side of midnight, and its charge on the other. What was paid
-- is the purchase's to say: a charge may land when its attempt was given up already.
SELECT coalesce(sum(purchase.amount_cents), 0)::bigint
FROM recharge_attempt AS attempt
JOIN purchase ON purchase.id = attempt.purchase_id
JOIN account ON account.id = attempt.account_id
WHERE attempt.account_id = $1::uuid AND attempt.purchase_id <> $2::uuid
  AND (attempt.state = 'open'
       OR purchase.state = 'paid' AND purchase.paid_at >=
          date_trunc('month', now() AT TIME ZONE account.time_zone) AT TIME ZONE account.time_zone)

-- name: drop
UPDATE recharge_attempt SET state = 'dropped', answer = $2 WHERE purchase_id = $1::uuid AND state = 'open'

-- name: close_purchase
UPDATE purchase SET state = $2, changed_at = now() WHERE id = $1::uuid AND state <> 'paid'

-- name: close_paid
-- What was paid, whoever noticed, is over.
UPDATE recharge_attempt SET state = 'paid' FROM purchase
WHERE purchase.id = purchase_id AND purchase.state = 'paid' AND recharge_attempt.state = 'open'
RETURNING recharge_attempt.account_id

-- name: forgive
UPDATE recharge SET declines = 0, retry_at = now() WHERE account_id = ANY($1::uuid[])

-- name: unsure
-- Attempts whose outcome is not known, taken for this long.
UPDATE recharge_attempt SET looked_at = now()
WHERE purchase_id IN (
    SELECT purchase_id FROM recharge_attempt WHERE state = 'open' AND looked_at < now() - $1::interval
    ORDER BY looked_at LIMIT 20 FOR UPDATE SKIP LOCKED
)
RETURNING purchase_id

-- name: attempt
SELECT attempt.*, purchase.amount_cents, purchase.currency
FROM recharge_attempt AS attempt JOIN purchase ON purchase.id = attempt.purchase_id
WHERE attempt.purchase_id = $1::uuid

-- name: declined
UPDATE recharge_attempt SET state = 'declined', answer = $2, looked_at = now() WHERE purchase_id = $1::uuid AND state = 'open'
RETURNING account_id

-- name: count_decline
UPDATE recharge SET declines = declines + 1, changed_at = now() WHERE account_id = $1::uuid RETURNING declines

-- name: unoffered
-- Refused attempts whose customers still have no page to pay on, taken for this long.
UPDATE recharge_attempt SET looked_at = now()
WHERE purchase_id IN (
    SELECT purchase_id FROM recharge_attempt AS refused JOIN recharge USING (account_id)
    WHERE is_on AND paused = 'authentication_required' AND checkout_id IS NULL
      AND refused.state = 'declined' AND refused.looked_at < now() - $1::interval
      AND NOT EXISTS (SELECT FROM recharge_attempt AS later
                      WHERE later.account_id = refused.account_id AND later.created_at > refused.created_at)
    LIMIT 20 FOR UPDATE OF refused SKIP LOCKED
)
RETURNING purchase_id

-- name: wait
UPDATE recharge SET retry_at = now() + $2::interval WHERE account_id = $1::uuid

-- name: pause
UPDATE recharge SET paused = $2 WHERE account_id = $1::uuid

-- name: offer
UPDATE recharge SET checkout_id = $2::uuid
WHERE account_id = $1::uuid AND paused = 'authentication_required' AND checkout_id IS NULL RETURNING account_id

-- name: attempts
SELECT attempt.purchase_id, attempt.state, attempt.answer, attempt.created_at, purchase.amount_cents
FROM recharge_attempt AS attempt JOIN purchase ON purchase.id = attempt.purchase_id
WHERE attempt.account_id = $1::uuid ORDER BY attempt.created_at DESC LIMIT $2

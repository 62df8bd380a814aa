-- Payouts: what Stripe brought to the bank. Amounts are cents where the name says so, otherwise µcr.

INSERT INTO balance (shard, account_id, bucket)
SELECT id, '00000000-0000-0000-0000-000000000000', 'bank' FROM shard;

-- `posted` is what of it is in the ledger; it changes in the same transaction as the ledger does.
CREATE TABLE payout (
    id           text PRIMARY KEY,  -- Stripe's
    amount_cents bigint NOT NULL,   -- negative: Stripe took it from the bank
    status       text NOT NULL,
    posted       bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    changed_at   timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT, UPDATE ON payout TO tollgate_service;

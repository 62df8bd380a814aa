-- Automatic recharge: an account's card is charged when its balance falls below a threshold.

CREATE TABLE recharge (
    account_id      uuid PRIMARY KEY REFERENCES account,
    is_on           boolean NOT NULL,
    threshold       bigint NOT NULL CHECK (threshold >= 0),  -- µcr
    amount_cents    bigint NOT NULL CHECK (amount_cents > 0),
    month_cents_max bigint NOT NULL CHECK (month_cents_max >= amount_cents),
    paused          text NOT NULL DEFAULT '' CHECK (paused IN ('', 'authentication_required', 'declined')),
    declines        integer NOT NULL DEFAULT 0,  -- since the last success
    retry_at        timestamptz NOT NULL DEFAULT now(),
    checkout_id     uuid REFERENCES purchase,  -- the page that a paused one offers
    changed_at      timestamptz NOT NULL DEFAULT now()
);

-- One attempt is one purchase. It is written before Stripe is asked, with all that the question holds, so that it can be
-- asked again in the same words under the same key.
CREATE TABLE recharge_attempt (
    purchase_id uuid PRIMARY KEY REFERENCES purchase,
    account_id  uuid NOT NULL REFERENCES account,
    customer_id text NOT NULL,
    card_id     text NOT NULL,
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'paid', 'declined', 'dropped')),
    answer      text NOT NULL DEFAULT '',  -- Stripe's word
    created_at  timestamptz NOT NULL DEFAULT now(),
    looked_at   timestamptz NOT NULL DEFAULT now()
);
-- Whatever the workers believe, an account has one attempt at a time.
CREATE UNIQUE INDEX recharge_attempt_open ON recharge_attempt (account_id) WHERE state = 'open';
CREATE INDEX recharge_attempt_account ON recharge_attempt (account_id, created_at);

GRANT SELECT, INSERT, UPDATE ON recharge, recharge_attempt TO tollgate_service;

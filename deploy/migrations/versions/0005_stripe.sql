-- Money in and out through Stripe. Amounts are cents where the name says so, otherwise µcr.

CREATE TABLE stripe_customer (
    account_id  uuid PRIMARY KEY REFERENCES account,
    stripe_id   text NOT NULL UNIQUE,
    card_id     text NOT NULL DEFAULT '',  -- the payment method saved for later, if there is one
    card        text NOT NULL DEFAULT '',  -- as people know it: "visa 4242"
    is_deleted  boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now()
);

-- One purchase, written before Stripe is asked. The posted_… columns say what of it is in the ledger: they change in the
-- same transaction as the ledger does, and `version` with them, so that nobody posts on the ground of an older reading.
CREATE TABLE purchase (
    id                      uuid PRIMARY KEY,
    account_id              uuid NOT NULL REFERENCES account,
    idempotency_key         text NOT NULL,
    fingerprint             bytea NOT NULL,  -- of what was asked for under the key
    package                 text NOT NULL,
    amount_cents            bigint NOT NULL CHECK (amount_cents > 0),  -- without tax
    currency                text NOT NULL,
    bonus                   bigint NOT NULL CHECK (bonus >= 0),
    is_live                 boolean NOT NULL,
    saves_card              boolean NOT NULL DEFAULT false,
    state                   text NOT NULL DEFAULT 'created'
        CHECK (state IN ('created', 'open', 'processing', 'paid', 'failed', 'expired', 'mismatched')),
    session_id              text UNIQUE,
    checkout_url            text NOT NULL DEFAULT '',
    payment_intent_id       text UNIQUE,
    receipt_url             text NOT NULL DEFAULT '',
    version                 bigint NOT NULL DEFAULT 0,
    posted_paid             bigint NOT NULL DEFAULT 0 CHECK (posted_paid IN (0, amount_cents * 10000000)),
    posted_bonus            bigint NOT NULL DEFAULT 0 CHECK (posted_bonus IN (0, bonus)),
    posted_tax              bigint NOT NULL DEFAULT 0,
    posted_fees             bigint NOT NULL DEFAULT 0,
    posted_refunded         bigint NOT NULL DEFAULT 0,
    posted_tax_returned     bigint NOT NULL DEFAULT 0,
    posted_refund_reversed  bigint NOT NULL DEFAULT 0,
    posted_withdrawn        bigint NOT NULL DEFAULT 0,
    posted_dispute_reversed bigint NOT NULL DEFAULT 0,
    posted_promo_taken      bigint NOT NULL DEFAULT 0,
    created_at              timestamptz NOT NULL DEFAULT now(),
    paid_at                 timestamptz,
    changed_at              timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account_id, idempotency_key),
    CHECK (posted_refund_reversed + posted_dispute_reversed BETWEEN 0 AND posted_paid + posted_bonus)
);
CREATE INDEX purchase_account ON purchase (account_id, created_at);

-- Which transfers a purchase made.
CREATE TABLE purchase_transfer (
    transfer_id uuid PRIMARY KEY,
    purchase_id uuid NOT NULL REFERENCES purchase
);
CREATE INDEX purchase_transfer_purchase ON purchase_transfer (purchase_id);

-- Refunds that we decided on. An undecided one counts against the purchase from here on, whatever Stripe shows yet.
CREATE TABLE refund (
    id              uuid PRIMARY KEY,
    purchase_id     uuid NOT NULL REFERENCES purchase,
    idempotency_key text NOT NULL,
    cents           bigint NOT NULL CHECK (cents > 0),
    reason          text NOT NULL,
    state           text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'made', 'refused')),
    stripe_id       text UNIQUE,
    answer          text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT now(),
    changed_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (purchase_id, idempotency_key)
);
CREATE INDEX refund_requested ON refund (changed_at) WHERE state = 'requested';

-- What Stripe told us, as it came. Dedupe is by id; whether its work is done is the state's to say.
CREATE TABLE stripe_event (
    id              text PRIMARY KEY,
    type            text NOT NULL,
    object_id       text NOT NULL,
    payment_id      text NOT NULL DEFAULT '',  -- the PaymentIntent that the object names
    is_live         boolean NOT NULL,
    created_at      timestamptz NOT NULL,  -- at Stripe
    received_at     timestamptz NOT NULL DEFAULT now(),
    source          text NOT NULL CHECK (source IN ('webhook', 'backfill')),
    body            bytea NOT NULL,
    headers         jsonb NOT NULL,
    state           text NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'processed', 'retrying', 'dead')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    reason          text NOT NULL DEFAULT '',
    processed_at    timestamptz
);
CREATE INDEX stripe_event_due ON stripe_event (next_attempt_at) WHERE state IN ('received', 'retrying');
CREATE INDEX stripe_event_received ON stripe_event (received_at);

-- Why an account is in review: a dispute, a fraud warning, a Radar review. It is active again when none is open.
CREATE TABLE account_review (
    cause       text PRIMARY KEY,  -- Stripe's id
    account_id  uuid NOT NULL REFERENCES account,
    took_status boolean NOT NULL,  -- whether it was this that took the account out of service
    opened_at   timestamptz NOT NULL DEFAULT now(),
    closed_at   timestamptz
);
CREATE INDEX account_review_open ON account_review (account_id) WHERE closed_at IS NULL;

SELECT protect('purchase_transfer'::regclass);

GRANT SELECT, INSERT, UPDATE ON stripe_customer, purchase, refund, stripe_event, account_review TO tollgate_service;
GRANT SELECT, INSERT ON purchase_transfer TO tollgate_service;

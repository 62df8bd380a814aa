-- The books: what the calls cost at OpenAI, frozen statements, reconciliations. Amounts are whole µcr.

INSERT INTO balance (shard, account_id, bucket)
SELECT id, '00000000-0000-0000-0000-000000000000', 'openai_payable' FROM shard;

-- Exports and statements read by day. Rows come in the order of their times, so an index of ranges is enough, and
-- costs the poster next to nothing.
CREATE INDEX transfer_recorded ON transfer USING brin (recorded_at) WITH (pages_per_range = 16);
CREATE INDEX entry_recorded ON entry USING brin (recorded_at) WITH (pages_per_range = 16);
CREATE INDEX call_usage_recorded ON call_usage USING brin (recorded_at) WITH (pages_per_range = 16);
-- What a customer reads of the ledger, page by page.
CREATE INDEX transfer_account ON transfer (account_id, recorded_at, id);

-- The days whose calls are booked at cost, and what each model's came to. Days are UTC, of recorded_at.
CREATE TABLE cost_day (
    day         date PRIMARY KEY,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE model_cost (
    day         date NOT NULL REFERENCES cost_day,
    model       text NOT NULL,
    calls       bigint NOT NULL,
    charged     bigint NOT NULL,  -- to customers
    cost        bigint NOT NULL,  -- to us
    transfer_id uuid,             -- none, if the cost is 0
    PRIMARY KEY (day, model)
);

-- What OpenAI says that days cost, each time it was asked or an invoice came; the difference is booked.
CREATE TABLE provider_bill (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    first_day   date NOT NULL,
    last_day    date NOT NULL CHECK (last_day >= first_day),
    amount      bigint NOT NULL CHECK (amount >= 0),
    source      text NOT NULL,
    transfer_id uuid,             -- none, if nothing had to be corrected
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX provider_bill_days ON provider_bill (first_day);

-- A closed month of an account, told once and for ever.
CREATE TABLE statement (
    account_id  uuid NOT NULL REFERENCES account,
    month       date NOT NULL CHECK (extract(day FROM month) = 1),
    opening     bigint NOT NULL,
    closing     bigint NOT NULL,
    content     bytea NOT NULL,   -- JSON; what PDF and CSV are made of
    hash        bytea NOT NULL CHECK (hash = sha256(content)),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, month)
);

CREATE TABLE reconciliation (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day         date NOT NULL,
    agrees      boolean NOT NULL,
    report      jsonb NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reconciliation_day ON reconciliation (day);

SELECT protect(name::regclass)
FROM unnest(ARRAY['cost_day', 'model_cost', 'provider_bill', 'statement', 'reconciliation']) AS name;

GRANT SELECT, INSERT ON cost_day, model_cost, provider_bill, statement, reconciliation TO tollgate_service;

-- Usage that a trusted service reports. The row is there before anything is debited, and is kept for ever: an idempotency
-- key stands for one debit, however late it comes again. Amounts are µcr.

CREATE TABLE usage_report (
    account_id      uuid NOT NULL REFERENCES account,
    idempotency_key text NOT NULL CHECK (idempotency_key <> ''),
    fingerprint     bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    request_id      uuid NOT NULL UNIQUE,  -- of the call in the ledger; another one after a refusal
    content         jsonb NOT NULL,        -- what was reported, and its price, which stays
    created_at      timestamptz NOT NULL DEFAULT now(),
    settled_at      timestamptz,
    PRIMARY KEY (account_id, idempotency_key)
);

GRANT SELECT, INSERT ON usage_report TO tollgate_service;
GRANT UPDATE (request_id, settled_at) ON usage_report TO tollgate_service;

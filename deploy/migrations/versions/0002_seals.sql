-- Seals over the ledger, and what operators decide about dead letters. Only expands: older processes go on beside it.

-- In which order the ledger is sealed. Whoever inserts a transfer has locked its shard's row before the number is drawn.
CREATE SEQUENCE transfer_ordinal CACHE 1;
ALTER TABLE transfer ADD COLUMN ordinal bigint NOT NULL DEFAULT nextval('transfer_ordinal');
ALTER SEQUENCE transfer_ordinal OWNED BY transfer.ordinal;
CREATE INDEX transfer_by_ordinal ON transfer (ordinal);

-- A seal holds a hash of each transfer that it covers, in their order; its head is the hash of the head before it and of
-- these, so no transfer and no seal can be changed without changing every head after it.
CREATE TABLE seal (
    number       bigint PRIMARY KEY,
    ordinal_last bigint NOT NULL,
    transfer_ids uuid[] NOT NULL,
    leaves       bytea NOT NULL CHECK (octet_length(leaves) = 32 * cardinality(transfer_ids)),
    head         bytea NOT NULL CHECK (octet_length(head) = 32),
    sealed_at    timestamptz NOT NULL DEFAULT now()
);

-- How a dead letter was settled by an operator: posted after all, or given up.
CREATE TABLE dead_letter_decision (
    dead_letter_id bigint PRIMARY KEY REFERENCES dead_letter,
    decision       text NOT NULL CHECK (decision IN ('posted', 'dismissed')),
    reason         text NOT NULL CHECK (reason <> ''),
    at             timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letter_request ON dead_letter ((payload ->> 'request_id'));

SELECT protect(name::regclass) FROM unnest(ARRAY['seal', 'dead_letter', 'dead_letter_decision']) AS name;

GRANT SELECT, USAGE ON SEQUENCE transfer_ordinal TO tollgate_service;
GRANT SELECT, INSERT ON seal, dead_letter_decision TO tollgate_service;

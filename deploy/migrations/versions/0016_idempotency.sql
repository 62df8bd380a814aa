-- Requests that create something, by the Idempotency-Key that they came with. What they create has an id of the row's,
-- so nothing of an answer is stored, and none of its secrets.
CREATE TABLE idempotency (
    account_id  uuid NOT NULL REFERENCES account,
    key         text NOT NULL CHECK (key <> ''),
    fingerprint bytea NOT NULL,
    object_id   uuid NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, key)
);

GRANT SELECT, INSERT, DELETE ON idempotency TO tollgate_service;

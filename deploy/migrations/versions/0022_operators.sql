-- Operators: the keys of the operations listener, and the corrections of balances that they make and approve.

-- Nothing but the hash of a key is kept. `name` is the author of whatever is done with it.
CREATE TABLE ops_key (
    id         text PRIMARY KEY,
    name       text NOT NULL CHECK (name <> ''),
    role       text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    prefix     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz
);

-- Every correction that was asked for. A posted one without `decided_by` was within what its author may do alone.
CREATE TABLE correction (
    id              uuid PRIMARY KEY,
    account_id      uuid NOT NULL REFERENCES account,
    kind            text NOT NULL CHECK (kind IN ('adjustment', 'write_off', 'expiry')),
    amount          bigint NOT NULL CHECK (amount <> 0),
    reason          text NOT NULL CHECK (reason <> ''),
    author          text NOT NULL CHECK (author <> ''),
    asked_at        timestamptz NOT NULL DEFAULT now(),
    state           text NOT NULL CHECK (state IN ('proposed', 'posted', 'rejected')),
    decided_by      text,
    decision_reason text,
    decided_at      timestamptz,
    CHECK (state <> 'posted' OR decided_by IS DISTINCT FROM author),
    CHECK (state <> 'rejected' OR decided_by IS NOT NULL)
);
CREATE INDEX correction_open ON correction (asked_at) WHERE state = 'proposed';
CREATE INDEX correction_author ON correction (author, asked_at);

GRANT SELECT, INSERT ON ops_key, correction TO tollgate_service;
GRANT UPDATE (revoked_at) ON ops_key TO tollgate_service;
GRANT UPDATE (state, decided_by, decision_reason, decided_at) ON correction TO tollgate_service;

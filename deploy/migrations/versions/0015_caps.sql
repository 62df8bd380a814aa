-- Caps on what an account, a member or a key may use, with defaults by plan.

-- NULL inherits, or there is no such cap; the largest number lifts one that would be inherited. No row is ever deleted:
-- gateways follow changed_at.
CREATE TABLE cap (
    level             text NOT NULL CHECK (level IN ('plan', 'account', 'member', 'key')),
    holder            text NOT NULL CHECK (holder <> ''),  -- a plan's name, or an id
    account_id        uuid REFERENCES account,             -- whose it is; NULL for a plan
    request           bigint CHECK (request BETWEEN 0 AND 9007199254740991),  -- µcr, as day and month
    day               bigint CHECK (day BETWEEN 0 AND 9007199254740991),
    month             bigint CHECK (month BETWEEN 0 AND 9007199254740991),
    output_tokens     bigint CHECK (output_tokens BETWEEN 1 AND 9007199254740991),
    requests_a_minute bigint CHECK (requests_a_minute BETWEEN 0 AND 9007199254740991),
    tokens_a_minute   bigint CHECK (tokens_a_minute BETWEEN 0 AND 9007199254740991),
    concurrent        bigint CHECK (concurrent BETWEEN 0 AND 9007199254740991),
    models_allowed    text[],
    models_denied     text[],
    on_output         text CHECK (on_output IN ('clamp', 'refuse')),
    on_unaffordable   text CHECK (on_unaffordable IN ('clamp', 'refuse')),
    changed_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (level, holder),
    CHECK ((account_id IS NULL) = (level = 'plan'))
);
CREATE INDEX cap_changed_at ON cap (changed_at);
CREATE INDEX cap_account ON cap (account_id);
GRANT SELECT, INSERT, UPDATE ON cap TO tollgate_service;

-- What a member has used is the sum of its calls, whichever key or token they came with; '' is nobody.
ALTER TABLE call_usage ADD COLUMN IF NOT EXISTS member_id text NOT NULL DEFAULT '';

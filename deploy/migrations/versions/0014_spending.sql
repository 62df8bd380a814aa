-- What was spent lately, by minute and by hour: sums of call_usage that can be made again from it at any time. Amounts
-- are µcr.

CREATE TABLE spending_minute (
    account_id uuid NOT NULL,
    key_id     text NOT NULL,
    minute     timestamptz NOT NULL,
    amount     bigint NOT NULL,
    PRIMARY KEY (account_id, key_id, minute)
) WITH (fillfactor = 70);
CREATE INDEX spending_minute_minute ON spending_minute (minute);

CREATE TABLE spending_hour (
    account_id uuid NOT NULL,
    key_id     text NOT NULL,
    hour       timestamptz NOT NULL,
    amount     bigint NOT NULL,
    PRIMARY KEY (account_id, key_id, hour)
) WITH (fillfactor = 70);
CREATE INDEX spending_hour_hour ON spending_hour (hour);

-- The newest usage is read every second, and an index of ranges does not know the newest rows. All rows of one posting
-- have one time, so that this index holds little more than a time for each posting.
DROP INDEX call_usage_recorded;
CREATE INDEX call_usage_recorded ON call_usage (recorded_at);

-- When an account wants to be warned; without a row, as configured.
CREATE TABLE alert (
    account_id uuid PRIMARY KEY REFERENCES account,
    below      bigint NOT NULL CHECK (below >= 0),   -- µcr; 0: never
    days       integer NOT NULL CHECK (days >= 0),   -- of use at the usual rate; 0: never
    changed_at timestamptz NOT NULL DEFAULT now()
);

-- However many watchers see the same spending, there is one review of it.
CREATE UNIQUE INDEX account_review_unusual ON account_review
    (account_id, coalesce(member_id::text, ''), coalesce(key_id, ''))
    WHERE closed_at IS NULL AND cause LIKE 'unusual:%';
CREATE INDEX account_review_account ON account_review (account_id, opened_at);

GRANT SELECT, INSERT, UPDATE, DELETE ON spending_minute, spending_hour TO tollgate_service;
GRANT SELECT, INSERT, UPDATE ON alert TO tollgate_service;

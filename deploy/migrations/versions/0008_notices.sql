-- Notices and whom they reach; and why an account, one member or one key is in review.

-- Who is told: an account's own targets, or the operators' (no account). `url` and `secret` are never shown again.
CREATE TABLE notice_target (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id uuid REFERENCES account,
    kind       text NOT NULL CHECK (kind IN ('apprise', 'webhook')),
    url        text NOT NULL,
    secret     text NOT NULL DEFAULT '',  -- of a webhook: what its deliveries are signed with
    shown      text NOT NULL,             -- the URL without what is secret in it
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
CREATE INDEX notice_target_account ON notice_target (account_id) WHERE removed_at IS NULL;

CREATE TABLE notice (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind       text NOT NULL,
    account_id uuid REFERENCES account,
    dedupe_key text NOT NULL,
    fields     jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notice_created ON notice (created_at);
CREATE INDEX notice_account ON notice (account_id, created_at);

-- Until when the same notice is not raised again. Its row is also the lock of those who raise it at once.
CREATE TABLE notice_quiet (
    dedupe_key text PRIMARY KEY,
    until      timestamptz NOT NULL
);
CREATE INDEX notice_quiet_until ON notice_quiet (until);

-- A notice on its way to one target.
CREATE TABLE notice_delivery (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    notice_id  uuid NOT NULL REFERENCES notice,
    target_id  uuid NOT NULL REFERENCES notice_target,
    state      text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'retrying', 'sent', 'dead')),
    attempts   integer NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    last_error text NOT NULL DEFAULT '',
    UNIQUE (notice_id, target_id)
);
CREATE INDEX notice_delivery_due ON notice_delivery (due_at) WHERE state IN ('pending', 'retrying');

-- Every attempt at a delivery, as it went.
CREATE TABLE notice_attempt (
    delivery_id bigint NOT NULL REFERENCES notice_delivery,
    error       text NOT NULL,  -- empty: it arrived
    took_ms     integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX notice_attempt_delivery ON notice_attempt (delivery_id);

-- A review may be of one member or key alone, has a reference that callers are told, and ends by an operator's word.
ALTER TABLE account_review
    ADD reference text NOT NULL UNIQUE
        DEFAULT 'rev_' || substr(translate(gen_random_uuid()::text, '-', ''), 1, 12),
    ADD member_id uuid,
    ADD key_id text REFERENCES api_key,
    ADD reason text NOT NULL DEFAULT '',
    ADD figures jsonb NOT NULL DEFAULT '{}',
    ADD closed_by text NOT NULL DEFAULT '',
    ADD close_reason text NOT NULL DEFAULT '',
    ADD CHECK (member_id IS NULL OR key_id IS NULL);
CREATE INDEX account_review_opened ON account_review (opened_at);

SELECT protect('notice_attempt'::regclass);

GRANT SELECT, INSERT ON notice, notice_attempt TO tollgate_service;
GRANT SELECT, INSERT, UPDATE ON notice_target, notice_delivery TO tollgate_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON notice_quiet TO tollgate_service;

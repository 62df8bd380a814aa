-- Members of accounts, and what a key may do.

CREATE TABLE member (
    id         uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    email      text NOT NULL CHECK (email <> ''),
    name       text NOT NULL DEFAULT '',
    subject    text CHECK (subject <> ''),  -- who it is at the identity provider: the `sub` of its JWTs
    role       text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    status     text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'removed')),
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Who was removed stays, for the books, and may be invited again.
CREATE UNIQUE INDEX member_email ON member (account_id, lower(email)) WHERE status <> 'removed';
CREATE UNIQUE INDEX member_subject ON member (account_id, subject) WHERE status <> 'removed';
CREATE INDEX member_changed_at ON member (changed_at);

ALTER TABLE api_key
    ADD member_id    uuid REFERENCES member,
    ADD scopes       text[] NOT NULL DEFAULT '{calls,read,buy}',
    ADD expires_at   timestamptz,
    ADD models       text[] NOT NULL DEFAULT '{}',  -- patterns like gpt-4o*; none: every model
    ADD endpoints    text[] NOT NULL DEFAULT '{}',  -- patterns of paths; none: every endpoint
    ADD networks     cidr[] NOT NULL DEFAULT '{}',  -- none: from everywhere
    ADD rotated_from text REFERENCES api_key;
CREATE INDEX api_key_member ON api_key (member_id) WHERE member_id IS NOT NULL;

ALTER TABLE account
    ADD time_zone text NOT NULL DEFAULT 'UTC' CHECK (time_zone <> ''),
    ADD plan      text NOT NULL DEFAULT 'default' CHECK (plan <> ''),
    ADD priority  text NOT NULL DEFAULT 'normal' CHECK (priority IN ('normal', 'low'));

CREATE INDEX account_review_closed ON account_review (closed_at) WHERE closed_at IS NOT NULL;

GRANT SELECT, INSERT ON member TO tollgate_service;
GRANT UPDATE (email, name, subject, role, status, changed_at) ON member TO tollgate_service;
GRANT UPDATE (expires_at) ON api_key TO tollgate_service;
GRANT UPDATE (time_zone, plan, priority) ON account TO tollgate_service;

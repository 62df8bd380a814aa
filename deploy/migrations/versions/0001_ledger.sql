-- The first schema. PostgreSQL 15 or newer, no extensions. Amounts are whole micro-credits (µcr).

-- The service's role owns nothing and cannot log in: logins that are its members take it on when they connect.
-- Roles belong to the whole server, so a migration of another database may be creating it at this moment.
DO $$
BEGIN
    IF to_regrole('tollgate_service') IS NULL THEN
        CREATE ROLE tollgate_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;

-- Whoever migrates may also serve: it becomes a member, unless it can take the role on already.
DO $$
BEGIN
    BEGIN
        EXECUTE 'SET LOCAL ROLE tollgate_service';
        EXECUTE 'RESET ROLE';
    EXCEPTION WHEN insufficient_privilege THEN
        EXECUTE format('GRANT tollgate_service TO %I', current_user);
    END;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO tollgate_service', current_schema());
END
$$;

-- Who pays, and with what they prove it ------------------------------------------------------------------------------

CREATE TABLE account (
    id            uuid PRIMARY KEY,
    name          text NOT NULL UNIQUE CHECK (name <> ''),
    status        text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'in_review')),
    on_disconnect text NOT NULL DEFAULT 'drain' CHECK (on_disconnect IN ('drain', 'cancel')),
    credit_seq    bigint NOT NULL DEFAULT 0,  -- of the last movement that started here and goes to Redis
    created_at    timestamptz NOT NULL DEFAULT now(),
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp()  -- of what a gateway caches: status, on_disconnect
);
CREATE INDEX account_changed_at ON account (changed_at);

CREATE TABLE api_key (
    id         text PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    -- Plain SHA-256: the secret has 256 random bits, so there is nothing to guess that a slow hash would protect.
    hash       bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    prefix     text NOT NULL,
    name       text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX api_key_account ON api_key (account_id);
CREATE INDEX api_key_changed_at ON api_key (changed_at);

CREATE TABLE rate_card (
    version     text PRIMARY KEY,
    hash        text NOT NULL,
    name        text NOT NULL,
    text        text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);

-- The append-only ledger ---------------------------------------------------------------------------------------------

CREATE TABLE transfer (
    id          uuid NOT NULL,  -- of a capture or lapse: its request's
    kind        text NOT NULL,
    account_id  uuid NOT NULL,
    request_id  uuid,
    reason      text NOT NULL DEFAULT '',
    event_at    timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (id, recorded_at)
) PARTITION BY RANGE (recorded_at);

CREATE TABLE entry (
    transfer_id uuid NOT NULL,
    line        smallint NOT NULL,
    shard       smallint NOT NULL,
    account_id  uuid NOT NULL,  -- nil for the system's buckets
    bucket      text NOT NULL,
    amount      bigint NOT NULL CHECK (amount <> 0),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transfer_id, line, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX entry_account ON entry (account_id, recorded_at)
    WHERE account_id <> '00000000-0000-0000-0000-000000000000';

CREATE TABLE call_usage (
    request_id          uuid NOT NULL,
    phase               text NOT NULL CHECK (phase IN ('end', 'correction')),
    account_id          uuid NOT NULL,
    key_id              text NOT NULL,
    endpoint            text NOT NULL,
    model               text NOT NULL,
    rate_version        text NOT NULL,
    rate_key            text NOT NULL,
    outcome             text NOT NULL,
    usage               jsonb NOT NULL,
    held                bigint NOT NULL,
    cost                bigint NOT NULL,  -- of the whole call
    charged             bigint NOT NULL,  -- by this line: the cost, or what a correction changed
    rounding            bigint NOT NULL,
    flags               text[] NOT NULL,
    status              smallint NOT NULL,
    upstream_request_id text NOT NULL,
    event_at            timestamptz NOT NULL,
    recorded_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, phase, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX call_usage_account ON call_usage (account_id, recorded_at);

-- Never partitioned, never expires: a request is posted at most once for ever.
CREATE TABLE idem (
    request_id  uuid NOT NULL,
    phase       text NOT NULL,
    kind        text NOT NULL,    -- capture, void, lapse
    epoch       bigint NOT NULL,  -- with seq: the event that was posted
    seq         bigint NOT NULL,
    fingerprint bytea NOT NULL,   -- of the event's content
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, phase)
);

-- What the poster could not post: kept with its reason, for an operator to decide on.
CREATE TABLE dead_letter (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard       smallint NOT NULL,
    epoch       bigint NOT NULL,
    seq         bigint NOT NULL,
    reason      text NOT NULL,
    payload     jsonb NOT NULL,
    fingerprint bytea NOT NULL,
    at          timestamptz NOT NULL DEFAULT now(),
    UNIQUE (shard, epoch, seq, reason, fingerprint)
);

-- Current state: sums and positions, all of which the ledger can rebuild ----------------------------------------------

-- A shard's row is also the lock of every balance in it: whoever moves money in the shard updates it first.
CREATE TABLE shard (
    id             smallint PRIMARY KEY CHECK (id BETWEEN 0 AND 63),
    epoch          bigint NOT NULL DEFAULT 0,
    is_rebuilding  boolean NOT NULL DEFAULT false,
    position_epoch bigint NOT NULL DEFAULT 0,  -- the last event of the outbox that is posted
    position_seq   bigint NOT NULL DEFAULT 0,
    changed_at     timestamptz NOT NULL DEFAULT now()
);
INSERT INTO shard (id) SELECT generate_series(0, 63);

-- The system's buckets are striped by shard, so that the writers of two shards never wait for each other.
CREATE TABLE balance (
    shard      smallint NOT NULL,
    account_id uuid NOT NULL,
    bucket     text NOT NULL,
    amount     bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, bucket, shard)
) WITH (fillfactor = 70);
INSERT INTO balance (shard, account_id, bucket)
SELECT shard.id, '00000000-0000-0000-0000-000000000000', bucket
FROM shard
CROSS JOIN unnest(ARRAY[
    'stripe_clearing', 'deferred_revenue', 'revenue', 'tax_payable', 'stripe_fees', 'cogs_openai',
    'breakage', 'rounding', 'write_off', 'promotions'
]) AS bucket;

-- Movements that started here and are not yet known to be in Redis.
CREATE TABLE credit_outbox (
    account_id uuid NOT NULL,
    credit_seq bigint NOT NULL,
    amount     bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, credit_seq)
);

-- What keeps the ledger append-only and balanced -----------------------------------------------------------------------

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: the ledger is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- All entries of a transfer are inserted by one statement, so one check after it sees them all.
CREATE FUNCTION refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced uuid;
BEGIN
    SELECT transfer_id INTO unbalanced FROM added GROUP BY transfer_id HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the entries of transfer % do not sum to zero', unbalanced USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER balanced AFTER INSERT ON entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced();
ALTER TABLE entry ENABLE ALWAYS TRIGGER balanced;

-- ALWAYS: also under session_replication_role = replica. Row triggers do not see TRUNCATE, so that has its own.
CREATE FUNCTION protect(target regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = target AND tgname = 'keep_rows') THEN
        EXECUTE format(
            'CREATE TRIGGER keep_rows BEFORE UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION refuse_change()',
            target);
    END IF;
    EXECUTE format(
        'CREATE TRIGGER keep_table BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', target);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER keep_rows, ENABLE ALWAYS TRIGGER keep_table', target);
END
$$;

SELECT protect(name::regclass) FROM unnest(ARRAY['transfer', 'entry', 'call_usage', 'idem', 'rate_card']) AS name;

-- Creates the partitions of this month and the next `months_ahead`, with their protection; cheap when all are there.
-- The default partitions take what comes should nobody call this in time, so that nothing is ever lost.
CREATE FUNCTION ensure_partitions(months_ahead integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    parent text;
    month  timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    first  timestamp;
    child  text;
    made   integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.ensure_partitions'));
    FOREACH parent IN ARRAY ARRAY['transfer', 'entry', 'call_usage'] LOOP
        FOR ahead IN 0 .. months_ahead LOOP
            first := month + make_interval(months => ahead);
            child := parent || to_char(first, '_YYYY_MM');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            BEGIN
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    child, parent, to_char(first, 'YYYY-MM-DD"T"HH24:MI:SS"+00"'),
                    to_char(first + interval '1 month', 'YYYY-MM-DD"T"HH24:MI:SS"+00"'));
                PERFORM protect(child::regclass);
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- The default partition already holds rows of that month: they are safe where they are.
                RAISE WARNING 'partition % not made: its rows stay in the default partition', child;
            END;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;

CREATE TABLE transfer_default PARTITION OF transfer DEFAULT;
CREATE TABLE entry_default PARTITION OF entry DEFAULT;
CREATE TABLE call_usage_default PARTITION OF call_usage DEFAULT;
SELECT protect(name::regclass) FROM unnest(ARRAY['transfer_default', 'entry_default', 'call_usage_default']) AS name;
SELECT ensure_partitions(3);

-- A function that runs as its owner must not look names up where its caller says.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['ensure_partitions(integer)', 'protect(regclass)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', name, current_schema());
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', name);
    END LOOP;
END
$$;

-- What the service may do ------------------------------------------------------------------------------------------------

GRANT EXECUTE ON FUNCTION ensure_partitions(integer) TO tollgate_service;
GRANT SELECT, INSERT ON transfer, entry, call_usage, idem, rate_card, dead_letter TO tollgate_service;
GRANT SELECT, INSERT ON account, api_key TO tollgate_service;
GRANT UPDATE (name, status, on_disconnect, credit_seq, changed_at) ON account TO tollgate_service;
GRANT UPDATE (name, revoked_at, changed_at) ON api_key TO tollgate_service;
GRANT SELECT, UPDATE ON shard TO tollgate_service;
GRANT SELECT, INSERT, UPDATE ON balance TO tollgate_service;
GRANT SELECT, INSERT, DELETE ON credit_outbox TO tollgate_service;
GRANT SELECT ON alembic_version TO tollgate_service;

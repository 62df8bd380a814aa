-- What operators steer with, and the record of every change that they make.

-- Append-only, as the ledger is. Written in the transaction of the change that it tells of.
CREATE TABLE audit_log (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    author  text NOT NULL CHECK (author <> ''),
    action  text NOT NULL CHECK (action <> ''),   -- flag.set, account.suspend, …
    subject text NOT NULL CHECK (subject <> ''),  -- what was changed
    reason  text NOT NULL CHECK (reason <> ''),
    before  jsonb,                                -- NULL: there was nothing
    after   jsonb,                                -- NULL: there is nothing any more
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX audit_log_subject ON audit_log (subject, id);
SELECT protect('audit_log'::regclass);

-- One row a flag that is not at its default. Within its scope it has its value, outside of it the other one.
CREATE TABLE flag (
    name       text PRIMARY KEY CHECK (name <> ''),
    value      boolean NOT NULL,
    percent    smallint CHECK (percent BETWEEN 0 AND 100),  -- a cohort of the accounts
    accounts   uuid[],                                      -- an allow list; neither: everybody
    reason     text NOT NULL CHECK (reason <> ''),
    banner     text NOT NULL DEFAULT '',                    -- what callers are told instead of the reason
    author     text NOT NULL CHECK (author <> ''),
    expires_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (percent IS NULL OR accounts IS NULL)
);

-- Raised by every change of a table that gateways follow, in the change's own transaction, which holds its row until it
-- commits: whoever reads a version has all changes up to it. One look at it tells whether there is anything to read.
CREATE TABLE controls_version (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version bigint NOT NULL DEFAULT 0
);
INSERT INTO controls_version DEFAULT VALUES;

CREATE FUNCTION raise_controls_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    UPDATE controls_version SET version = version + 1;
    RETURN NULL;
END
$$;
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION raise_controls_version() SET search_path = %I, pg_temp', current_schema());
END
$$;

CREATE TRIGGER followed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON flag
    FOR EACH STATEMENT EXECUTE FUNCTION raise_controls_version();
ALTER TABLE flag ENABLE ALWAYS TRIGGER followed;

GRANT SELECT, INSERT ON audit_log TO tollgate_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON flag TO tollgate_service;
GRANT SELECT ON controls_version TO tollgate_service;

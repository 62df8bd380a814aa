-- What reduces a model or a family for a time: set by an operator, or by a rule. One row for each name or pattern.

CREATE TABLE brownout (
    models        text PRIMARY KEY CHECK (models <> ''),
    level         smallint NOT NULL CHECK (level BETWEEN 1 AND 4),
    shed_percent  smallint NOT NULL CHECK (shed_percent BETWEEN 0 AND 100),  -- of the accounts of low priority
    output_tokens integer NOT NULL CHECK (output_tokens > 0),                -- of each choice, from level 2 on
    reroute_to    text NOT NULL DEFAULT '',                                  -- at level 3; '' = nobody is rerouted
    reason        text NOT NULL CHECK (reason <> ''),
    banner        text NOT NULL DEFAULT '',                                  -- what callers are told instead of the reason
    author        text NOT NULL CHECK (author <> ''),
    set_at        timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL CHECK (expires_at > set_at)
);

CREATE TRIGGER followed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON brownout
    FOR EACH STATEMENT EXECUTE FUNCTION raise_controls_version();
ALTER TABLE brownout ENABLE ALWAYS TRIGGER followed;

GRANT SELECT, INSERT, UPDATE, DELETE ON brownout TO tollgate_service;

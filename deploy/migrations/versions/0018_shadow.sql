-- What calls outside of the charging cohort would have cost: a ledger of its own, of which no balance is made.

-- Two or more entries a usage line, which sum to zero. Its usage line has the cost, and charged nothing.
CREATE TABLE shadow_entry (
    request_id  uuid NOT NULL,
    phase       text NOT NULL,
    line        smallint NOT NULL,
    account_id  uuid NOT NULL,  -- nil for the system's bucket
    bucket      text NOT NULL CHECK (bucket IN ('shadow_due', 'shadow_revenue')),
    amount      bigint NOT NULL CHECK (amount <> 0),
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (request_id, phase, line)
);
CREATE INDEX shadow_entry_recorded ON shadow_entry (recorded_at);

CREATE FUNCTION refuse_unbalanced_shadow() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    unbalanced uuid;
BEGIN
    SELECT request_id INTO unbalanced FROM added GROUP BY request_id, phase HAVING sum(amount) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the shadow entries of request % do not sum to zero', unbalanced
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER balanced AFTER INSERT ON shadow_entry
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION refuse_unbalanced_shadow();
ALTER TABLE shadow_entry ENABLE ALWAYS TRIGGER balanced;
SELECT protect('shadow_entry'::regclass);

GRANT SELECT, INSERT ON shadow_entry TO tollgate_service;

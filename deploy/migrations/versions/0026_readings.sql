-- Each reading of Stripe takes a number before it begins; `version` is that of the newest reading that was posted, so
-- that an older one, which comes late, undoes nothing. The numbers begin above every version that was counted before.
CREATE SEQUENCE stripe_reading START 1000000000;
ALTER TABLE stripe_customer ADD COLUMN version bigint NOT NULL DEFAULT 0;

GRANT SELECT, USAGE ON SEQUENCE stripe_reading TO tollgate_service;

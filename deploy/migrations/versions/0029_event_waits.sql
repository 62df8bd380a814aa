-- How many of an event's attempts only found Stripe or this database away: they do not bring it nearer to being given up.
ALTER TABLE stripe_event ADD COLUMN waits integer NOT NULL DEFAULT 0;

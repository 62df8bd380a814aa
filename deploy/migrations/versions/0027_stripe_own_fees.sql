-- What Stripe charges beside payments (Radar, Billing, Tax …), by its balance transaction: each is booked once.
CREATE TABLE stripe_own_fee (
    id         text PRIMARY KEY,  -- Stripe's
    cents      bigint NOT NULL,   -- negative: Stripe gave it back
    created_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT ON stripe_own_fee TO tollgate_service;

-- The tax ids of a business, as Stripe has them, for its documents: "DE123456789 (eu_vat)", parted by ", ".
ALTER TABLE stripe_customer ADD COLUMN tax_ids text NOT NULL DEFAULT '';

-- A key may be of low priority in an account that is not: brownouts refuse it first. A normal one has its account's.

ALTER TABLE api_key ADD priority text NOT NULL DEFAULT 'normal' CHECK (priority IN ('normal', 'low'));

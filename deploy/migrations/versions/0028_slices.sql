-- An account, or a plan, may have its long streams held in slices where there is too little credit for the whole.

ALTER TABLE cap DROP CONSTRAINT cap_on_unaffordable_check;
ALTER TABLE cap ADD CONSTRAINT cap_on_unaffordable_check CHECK (on_unaffordable IN ('clamp', 'refuse', 'slice'));

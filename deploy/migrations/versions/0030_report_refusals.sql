-- When a report was refused that has not been tried again since: its next try is another call, of its own time. And whether
-- it is measured only, as was decided when that call began; NULL before this version: as is decided now.
ALTER TABLE usage_report ADD COLUMN refused_at timestamptz, ADD COLUMN is_shadow boolean;
GRANT UPDATE (refused_at, is_shadow) ON usage_report TO tollgate_service;

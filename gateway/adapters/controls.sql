-- What operators have decided: one version for all of it, and the rows of each part.

-- name: version
SELECT version FROM controls_version

-- name: flags
SELECT name, value, percent, accounts, reason, author, banner, expires_at FROM flag ORDER BY name

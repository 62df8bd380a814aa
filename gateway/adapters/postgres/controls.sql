-- What operators have decided: one version for all of it, and the rows of each part.

-- name: version
SELECT version FROM controls_version

-- name: flags
SELECT name, value, percent, accounts, reason, author, banner, expires_at FROM flag ORDER BY name

-- name: brownouts
SELECT models, level, shed_percent, output_tokens, reroute_to, reason, banner, author, set_at, expires_at
FROM brownout ORDER BY models

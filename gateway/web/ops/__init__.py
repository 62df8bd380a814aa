"""The operations listener: /ops/*, /metrics and readiness."""

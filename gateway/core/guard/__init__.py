"""What protects customers and the business: caps, limits, flags, brownouts, breakers, anomalies, and who is told."""

"""PostgreSQL: the truth. The SQL of each module stands beside it."""

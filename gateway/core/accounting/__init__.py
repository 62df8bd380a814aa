"""Double entry: what moves, why, and what it must agree with."""

"""The bench: Tollgate measured beside its yardsticks, in one run, in ratios. Never a test, never timed by CI."""

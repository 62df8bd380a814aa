"""How long a test waits for what must come. No test says how soon: that is measured, in `bench/`."""

PATIENCE_S = 60.0  # what has not come by then on a loaded machine does not come

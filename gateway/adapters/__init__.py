"""One outside system each: the only files that await it."""

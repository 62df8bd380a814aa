"""What runs beside the calls: each worker exports a `step() -> int`, the work it did."""

"""What runs beside the calls: each worker has a `step() -> int`, the work it did.

The rest are parts that they share with commands and routes: payments, checkout, what is unused, the sources of a day.
"""

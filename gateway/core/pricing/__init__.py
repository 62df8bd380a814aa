"""Rates, dated and versioned, and what is made of them."""

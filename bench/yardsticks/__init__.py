"""Relays that meter nothing: what the same bytes cost without a gateway's work."""

"""The composition root: a `Config` in, running services out. The only package that builds clients.

`process` runs what `gateway` and `workers` build on `stores`; time, randomness and ids enter in `sources`.
"""

"""The load generator: raw `asyncio.Protocol` clients on uvloop, in a process of their own (`python -m bench.load`)."""

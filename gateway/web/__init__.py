"""The control plane, on aiohttp."""

"""HTTP/1.1 on both sides, as asyncio protocols on llhttp. Knows nothing of money."""

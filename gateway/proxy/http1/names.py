"""An upstream's name: looked up for each new connection, whose attempt goes to one of its addresses after the other.

An address where nobody answers must not cost the calls that another one would serve.
"""

import asyncio
from collections.abc import Awaitable, Callable
from socket import SOCK_STREAM
from ssl import SSLError
from typing import TypeVar

T = TypeVar("T")


class Name:
    def __init__(self, host: str, port: int, *, connect_s: float) -> None:
        self.host = host
        self.port = port
        self._connect_s = connect_s
        self._silent: set[str] = set()  # addresses that let an attempt run out of time: tried last

    async def reach(self, connect: Callable[[str], Awaitable[T]]) -> T:
        """`connect` to the first address that lets it; each gets half of the time left, the last one all of it.

        Raises OSError: TimeoutError, that of the look-up, that of the last address, or what refuses a certificate.
        """
        async with asyncio.timeout(self._connect_s):
            *others, last = await self._addresses()
            share_s = self._connect_s
            for address in others:
                share_s /= 2
                try:
                    async with asyncio.timeout(share_s):
                        return await connect(address)
                except SSLError:
                    raise
                except TimeoutError:
                    self._silent.add(address)
                except OSError:
                    pass  # nobody there; the next one may be
            return await connect(last)

    async def _addresses(self) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, self.port, type=SOCK_STREAM)
        addresses = [str(address[0]) for *_, address in found]
        self._silent &= set(addresses)
        return sorted(addresses, key=self._silent.__contains__)

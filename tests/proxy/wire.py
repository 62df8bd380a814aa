"""Both far ends of the gateway as plain sockets: a client and an upstream that see and send exact bytes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Self

Fields = list[tuple[bytes, bytes]]
Serve = Callable[["Received", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Received(NamedTuple):
    """One message as it was on the wire: its first line, its fields in their order and case, its body decoded."""

    line: bytes
    fields: Fields
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split(b" ")[1])

    @property
    def target(self) -> bytes:
        return self.line.split(b" ")[1]

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: bytes) -> bytes | None:
        return next(iter(self.all(name)), None)


async def read_head(reader: asyncio.StreamReader) -> Received:
    line, *rest = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    fields = [(name, value.strip()) for name, _, value in (field.partition(b":") for field in rest)]
    return Received(line, fields, b"")


async def read_message(reader: asyncio.StreamReader) -> Received:
    """Read one message to its end; raises IncompleteReadError when it is cut."""
    head = await read_head(reader)
    return head._replace(body=b"".join([piece async for piece in body_pieces(head, reader)]))


async def body_pieces(head: Received, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body behind `head`, chunk by chunk where it is chunked."""
    if head.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
    elif length := head.get(b"content-length"):
        yield await reader.readexactly(int(length))


def request(target: str, key: str, body: bytes = b"", fields: Fields | None = None, method: str = "POST") -> bytes:
    """A request head with `fields` in their order, and its body."""
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target.encode("latin-1")), b"Host: gateway"]
    lines += [b"%b: %b" % field for field in ([(b"Authorization", b"Bearer " + key.encode())] if key else [])]
    lines += [b"%b: %b" % field for field in fields or []]
    if body or method == "POST":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


class Client:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @asynccontextmanager
    async def connect(cls, address: tuple[str, int]) -> AsyncIterator[Self]:
        client = cls(*await asyncio.open_connection(*address, limit=1 << 26))
        try:
            yield client
        finally:
            client.leave()
            try:
                await client.writer.wait_closed()
            except ConnectionError:
                pass  # the other side was first

    async def ask(self, data: bytes) -> Received:
        """Send a request; return its whole answer."""
        self.writer.write(data)
        return await read_message(self.reader)

    async def begin(self, data: bytes) -> Received:
        """Send a request; return the head of its answer."""
        self.writer.write(data)
        return await read_head(self.reader)

    async def read_until(self, marker: bytes) -> bytes:
        """Read up to and including `marker`, wherever chunks end."""
        return await self.reader.readuntil(marker)

    def leave(self) -> None:
        self.writer.close()


async def ask(address: tuple[str, int], data: bytes) -> Received:
    """One request on a connection of its own."""
    async with Client.connect(address) as client:
        return await client.ask(data)


class ScriptedUpstream:
    """An upstream that keeps what it got and answers with `serve`, or with `answer` as it stands."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer = answer
        self.serve: Serve = self._serve_answer
        self.requests: list[Received] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=1 << 26)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while not writer.is_closing():
                received = await read_message(reader)
                self.requests.append(received)
                await self.serve(received, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway has left
        finally:
            writer.close()
            self._open.discard(writer)

    async def _serve_answer(self, _: Received, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.answer)
        await writer.drain()


def answer(body: bytes, fields: Fields | None = None, status: bytes = b"200 OK") -> bytes:
    """A whole answer of known length."""
    lines = [
        b"HTTP/1.1 " + status,
        *(b"%b: %b" % field for field in fields or [(b"Content-Type", b"application/json")]),
    ]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def events(*pieces: bytes, fields: Fields | None = None) -> bytes:
    """A whole event stream, one chunk a piece."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Transfer-Encoding: chunked"]
    lines += [b"%b: %b" % field for field in fields or []]
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return b"\r\n".join([*lines, b"", b""]) + b"".join(chunks) + b"0\r\n\r\n"

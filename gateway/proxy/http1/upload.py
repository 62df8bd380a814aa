"""A request's body on its way out: cut into pieces where it is at hand, and framed."""

from collections.abc import AsyncGenerator, AsyncIterator

PIECE_BYTES = 64 * 1024


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


async def framed(body: AsyncIterator[bytes], length: int | None) -> AsyncGenerator[bytes, None]:
    """`body` as it stands on the wire: in chunks if its `length` is not known.

    Raises ValueError when it is not as long as that, and never yields more.
    """
    sent_bytes = 0
    async for piece in body:
        if not piece:
            continue
        sent_bytes += len(piece)
        if length is None:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
        elif sent_bytes > length:
            break
        else:
            yield piece
    if length is None:
        yield b"0\r\n\r\n"
    elif sent_bytes != length:
        raise ValueError(f"a body of {length} bytes was announced, and is not")

"""Reads one `Order` a line on stdin, writes one `Outcome` a line on stdout, ends at end of file."""

import asyncio
import sys

import msgspec
import uvloop

from bench.load.closed import closed_loop
from bench.load.held import HeldStreams
from bench.load.scheduled import open_loop
from bench.orders import AwaitStreams, ClosedLoop, HoldStreams, OpenLoop, Order

ORDER_BYTES_MAX = 64 * 2**20  # an order holds its request's body


async def obey(orders: asyncio.StreamReader) -> None:
    held: HeldStreams | None = None
    decoder = msgspec.json.Decoder(Order)
    while line := await orders.readline():
        order = decoder.decode(line)
        match order:
            case ClosedLoop():
                outcome = await closed_loop(order)
            case OpenLoop():
                outcome = await open_loop(order)
            case HoldStreams():
                held = held or HeldStreams()
                outcome = await held.open(order)
            case AwaitStreams():
                assert held is not None, "no streams were opened"
                outcome, held = await held.ended(), None
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.buffer.flush()


async def main() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=ORDER_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await obey(orders)


if __name__ == "__main__":
    uvloop.run(main())

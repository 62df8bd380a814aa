"""The closed loop: every connection sends its next call when the last is answered."""

import asyncio

from bench.load.connection import GRACE_S, Connection, Tally, connect, now_s
from bench.load.requests import Requests
from bench.orders import ClosedLoop, Outcome


async def closed_loop(order: ClosedLoop) -> Outcome:
    tally, finished = Tally(), asyncio.Event()
    started = 0
    idle: set[Connection] = set()

    def next_call(connection: Connection) -> None:
        nonlocal started
        over = now_s() >= stop_at or (order.calls_max is not None and started >= order.calls_max)
        if over or not connection.open:
            idle.add(connection)
            if len(idle) == order.connections:
                finished.set()
            return
        started += 1
        connection.call(now_s())

    requests = Requests(order.shot)
    connections = [await connect(requests, index, tally, next_call) for index in range(order.connections)]
    started_at = now_s()
    stop_at = started_at + order.duration_s
    for connection in connections:
        next_call(connection)
    try:
        await asyncio.wait_for(finished.wait(), order.duration_s + GRACE_S)
    except TimeoutError:
        tally.wrong(f"unanswered after {GRACE_S:.0f} s", order.connections - len(idle))
    elapsed_s = now_s() - started_at
    for connection in connections:
        connection.close()
    return tally.outcome(elapsed_s)

"""Loops end when they are told to, also where a library lost the telling."""

import asyncio

from gateway.loops import end
from tests.patience import PATIENCE_S


async def test_a_loop_whose_cancellation_python_3_11_loses_is_cancelled_again() -> None:
    waiting, answer = asyncio.Event(), asyncio.Event()

    async def loop() -> None:
        waiting.set()
        await asyncio.wait_for(answer.wait(), PATIENCE_S)
        await asyncio.Event().wait()

    task = asyncio.create_task(loop())
    await waiting.wait()
    await asyncio.sleep(0)  # the wait for the answer begins
    answer.set()
    await asyncio.sleep(0)  # it has come, and `loop` is not told yet
    async with asyncio.timeout(PATIENCE_S):
        await end([task], again_s=0.01)
    assert task.cancelled()


async def test_what_a_loop_died_of_is_left_to_be_asked_for() -> None:
    async def loop() -> None:
        raise OSError("a broken disk")

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await end([task])
    assert str(task.exception()) == "a broken disk"

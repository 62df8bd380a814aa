"""A stack on a Redis of its own, which a test may stop, kill and empty."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

from gateway.sandbox.valkey import EmbeddedRedis
from tests.proxy.stack import Stack

OwnStack = Callable[..., AbstractAsyncContextManager[Stack]]


@contextmanager
def stopped(redis: EmbeddedRedis) -> Iterator[None]:
    """Redis accepts connections, and answers nothing."""
    assert redis.pid is not None
    os.kill(redis.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis.pid, signal.SIGCONT)

"""`tollgate sandbox stripe`, as a person starts it."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE

import pytest

from tests.commands import tollgate
from tests.sandbox.stripe.parties import SECRET, Receiver, connected


async def test_the_command_serves_and_forwards_until_it_is_stopped(receiver: Receiver) -> None:
    arguments = ("sandbox", "stripe", "--listen", "127.0.0.1:0", "--json")
    forwarding = ("--forward-to", receiver.url, "--secret", SECRET)
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, *forwarding, stdout=PIPE
    )
    assert running.stdout is not None
    ready = json.loads(await running.stdout.readline())
    async with connected(ready["base_url"]) as client:
        await client.v1.customers.create_async()
    await receiver.until(1)
    running.terminate()
    assert await running.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--listen", "0.0.0.0:1"), "loopback"),
        (("--listen", "nowhere"), "--listen"),
        (("--listen", "127.0.0.1:0", "--forward-to", "https://example.com/", "--secret", "whsec_x"), "loopback"),
        (("--listen", "127.0.0.1:0", "--forward-to", "http://127.0.0.1:1/"), "--secret"),
    ],
)
def test_a_mistake_is_told_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    done = tollgate("sandbox", "stripe", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr

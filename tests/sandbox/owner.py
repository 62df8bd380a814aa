"""A program that owns embedded stores: started by tests as a process of its own, so that it can be killed.

python owner.py DIRECTORY → one JSON line {"database_url", "redis_url", "pids"} or {"error"}; runs until its standard
input is closed, then stops its stores and exits.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from gateway.sandbox.errors import SandboxError
from gateway.sandbox.stores import Stores


async def main(directory: Path) -> None:
    try:
        async with Stores(directory, durable=False) as stores:
            pids = [stores.postgres.pid, stores.redis.pid]
            said = {"database_url": stores.database_url, "redis_url": stores.redis_url, "pids": pids}
            print(json.dumps(said | {"uid": os.geteuid()}), flush=True)
            await asyncio.to_thread(sys.stdin.read)
    except SandboxError as error:
        print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

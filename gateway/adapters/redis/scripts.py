"""The Lua scripts: read from their folder once, called by hash, sent whole when Redis does not know them (yet, or any
more: it forgets them at restart, failover and SCRIPT FLUSH).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gateway.adapters.redis.link import Argument, RedisLink, RedisScriptError

PRELUDE = "prelude"


class Scripts:
    """The scripts of one folder, by file name without `.lua`; each is sent with prelude.lua in front."""

    def __init__(self, folder: Path) -> None:
        prelude = (folder / f"{PRELUDE}.lua").read_bytes()
        files = [file for file in sorted(folder.glob("*.lua")) if file.stem != PRELUDE]
        self._sources = {file.stem: prelude + file.read_bytes() for file in files}
        self.sha1 = {
            name: hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
            for name, source in self._sources.items()
        }

    @property
    def names(self) -> list[str]:
        return list(self._sources)

    async def run(self, link: RedisLink, name: str, keys: Sequence[bytes], *arguments: Argument) -> Any:
        """Run one script; returns its reply. It may run twice, which every script allows."""
        try:
            return await link.command(b"EVALSHA", self.sha1[name], len(keys), *keys, *arguments)
        except RedisScriptError as error:
            return await self.send_whole(error, link, name, keys, *arguments)

    async def send_whole(
        self, error: RedisScriptError, link: RedisLink, name: str, keys: Sequence[bytes], *arguments: Argument
    ) -> Any:
        """What to do about an error of EVALSHA: run the script that Redis does not know; any other is raised again."""
        if error.code != "NOSCRIPT":
            raise error
        return await link.command(b"EVAL", self._sources[name], len(keys), *keys, *arguments)

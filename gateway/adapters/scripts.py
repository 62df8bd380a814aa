"""The Lua scripts: read from their folder once, called by hash, sent whole when Redis does not know them (yet, or any
more: it forgets them at restart, failover and SCRIPT FLUSH).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.adapters.redis_link import Argument, RedisLink, RedisScriptError

PRELUDE = "prelude"


class Script(msgspec.Struct, frozen=True):
    source: bytes
    sha1: bytes


class Scripts:
    """The scripts of one folder, by file name without `.lua`; each is sent with prelude.lua in front."""

    def __init__(self, folder: Path) -> None:
        prelude = (folder / f"{PRELUDE}.lua").read_bytes()
        self._scripts: dict[str, Script] = {}
        for file in sorted(folder.glob("*.lua")):
            if file.stem != PRELUDE:
                source = prelude + file.read_bytes()
                self._scripts[file.stem] = Script(
                    source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
                )

    @property
    def names(self) -> list[str]:
        return list(self._scripts)

    async def run(self, link: RedisLink, name: str, keys: Sequence[bytes], *arguments: Argument) -> Any:
        """Run one script; returns its reply. It may run twice, which every script allows."""
        script = self._scripts[name]
        try:
            return await link.command(b"EVALSHA", script.sha1, len(keys), *keys, *arguments)
        except RedisScriptError as error:
            if error.code != "NOSCRIPT":
                raise
        return await link.command(b"EVAL", script.source, len(keys), *keys, *arguments)

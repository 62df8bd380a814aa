"""Portkey's gateway from npm (`@portkey-ai/gateway`): a relay for OpenAI, with no key check and no metering."""

import json
import shutil
from pathlib import Path

from bench.peers.peer import Peer, install_step
from bench.processes import BenchError, Children, free_port, tree
from bench.target import Kind, Target

START_TIMEOUT_S = 60.0
# With newer ones of node-server every stream fails ("TypeError: immutable", as in Portkey-AI/gateway#1389).
PACKAGE = {"dependencies": {"@portkey-ai/gateway": "^1.15"}, "overrides": {"@hono/node-server": "1.13.8"}}


class Portkey(Peer):
    name = "portkey"

    def installed(self, home: Path) -> bool:
        return _script(home).exists()

    def install(self, home: Path) -> None:
        (home / "package.json").write_text(json.dumps(PACKAGE))
        install_step("npm", "install", "--no-audit", "--no-fund", "--prefix", home)

    def start(self, children: Children, upstream_port: int, home: Path) -> Target:
        node = shutil.which("node")
        if node is None:
            raise BenchError("portkey is installed, but node is not")
        port = free_port()
        command: list[str | Path] = [node, _script(home), f"--port={port}", "--headless"]
        child = children.start_server(self.name, command, port, timeout_s=START_TIMEOUT_S)
        return Target(
            name=self.name,
            kind=Kind.PEER,
            port=port,
            pids=tree(child.pid),
            headers=(
                ("x-portkey-provider", "openai"),
                ("x-portkey-custom-host", f"http://127.0.0.1:{upstream_port}/v1"),
            ),
            verbatim=False,
            stream_connections=8,
        )


def _script(home: Path) -> Path:
    return home / "node_modules/@portkey-ai/gateway/build/start-server.js"

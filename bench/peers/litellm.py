"""LiteLLM's proxy from PyPI, one worker, with a master key and no database: less than what Tollgate does per call."""

import sys
from pathlib import Path

from bench import wire
from bench.peers.peer import Peer, install_step
from bench.processes import Children, free_port, tree
from bench.target import Kind, Target

START_TIMEOUT_S = 120.0
KEY = "sk-bench"
_CONFIG = """\
model_list:
- model_name: {model}
  litellm_params: {{model: openai/{model}, api_key: sk-upstream-bench, api_base: "http://127.0.0.1:{upstream}/v1"}}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


class LiteLLM(Peer):
    name = "litellm"

    def installed(self, home: Path) -> bool:
        return _binary(home).exists()

    def install(self, home: Path) -> None:
        install_step(sys.executable, "-m", "venv", home / "venv")
        install_step(home / "venv/bin/python", "-m", "pip", "install", "-q", "litellm[proxy]")

    def start(self, children: Children, upstream_port: int, home: Path) -> Target:
        port = free_port()
        config = home / "config.yaml"
        config.write_text(_CONFIG.format(model=wire.MODEL, upstream=upstream_port, key=KEY))
        where = ("--host", "127.0.0.1", "--port", str(port))
        command: list[str | Path] = [_binary(home), "--config", config, *where, "--num_workers", "1"]
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DO_NOT_TRACK": "1"}
        child = children.start_server(self.name, command, port, env=env, timeout_s=START_TIMEOUT_S)
        return Target(
            name=self.name,
            kind=Kind.PEER,
            port=port,
            pids=tree(child.pid),
            keys=(KEY,),
            verbatim=False,
            stream_connections=2,
        )


def _binary(home: Path) -> Path:
    return home / "venv/bin/litellm"

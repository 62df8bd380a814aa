"""`tollgate sandbox …`: simulated outside parties, on loopback only."""

import asyncio
from typing import Annotated

import typer

from gateway.cli.target import AsJson, until_signalled
from gateway.config import ConfigError, parse_listen, why

app = typer.Typer(help="Simulated outside parties, for trying and testing.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Simulated outside parties, for trying and testing."""


@app.command("openai")
def openai(
    listen: Annotated[str, typer.Option(help="HOST:PORT, on loopback.")] = "127.0.0.1:9090",
    ttft_ms: Annotated[float, typer.Option(min=0, help="Time to the first token.")] = 0.0,
    tokens_per_s: Annotated[float, typer.Option(min=0, help="Pace; 0 is as fast as possible.")] = 0.0,
    api_key: Annotated[str | None, typer.Option(help="The only key accepted; any, if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the simulated OpenAI until it is stopped."""
    from gateway.sandbox.openai import SandboxOpenAISettings, serve

    try:
        host, port = parse_listen(listen)
    except ValueError as error:
        raise ConfigError(f"--listen {listen}: {error}") from error
    settings = SandboxOpenAISettings(ttft_ms=ttft_ms, tokens_per_s=tokens_per_s, api_key=api_key)

    def announce(url: str) -> None:
        line = (
            f'{{"event":"ready","base_url":"{url}"}}' if as_json else f"simulated OpenAI on {url}/v1; Ctrl-C stops it"
        )
        print(line, flush=True)

    try:
        asyncio.run(until_signalled(serve(host, port, settings, on_ready=announce)))
    except OSError as error:
        raise ConfigError(f"--listen {listen}: {why(error)}") from error
    except ValueError as error:
        raise ConfigError(f"--listen {listen}: {error}") from error

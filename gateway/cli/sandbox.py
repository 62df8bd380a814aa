"""`tollgate sandbox …`: simulated outside parties, on loopback only."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Annotated, Any

import typer

from gateway.cli.output import AsJson
from gateway.cli.target import until_signalled
from gateway.config import ConfigError, parse_listen, why

_Listen = Annotated[str, typer.Option(help="HOST:PORT, on loopback.")]

app = typer.Typer(help="Simulated outside parties, for trying and testing.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Simulated outside parties, for trying and testing."""


@app.command("openai")
def openai(
    listen: _Listen = "127.0.0.1:9090",
    ttft_ms: Annotated[float, typer.Option(min=0, help="Time to the first token.")] = 0.0,
    tokens_per_s: Annotated[float, typer.Option(min=0, help="Pace; 0 is as fast as possible.")] = 0.0,
    api_key: Annotated[str | None, typer.Option(help="The only key accepted; any, if not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the simulated OpenAI until it is stopped."""
    from gateway.sandbox.openai import SandboxOpenAISettings, serve

    settings = SandboxOpenAISettings(ttft_ms=ttft_ms, tokens_per_s=tokens_per_s, api_key=api_key)
    _run(listen, "simulated OpenAI on {url}/v1", as_json, partial(serve, settings=settings))


@app.command("stripe")
def stripe(
    listen: _Listen = "127.0.0.1:9091",
    forward_to: Annotated[str | None, typer.Option(help="Send webhooks to this URL, on loopback.")] = None,
    secret: Annotated[str | None, typer.Option(help="What signs them: whsec_….")] = None,
    api_key: Annotated[str | None, typer.Option(help="The only key accepted; any sk_test_…, if not given.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides ids and scenarios; another in each run, if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the simulated Stripe until it is stopped."""
    from gateway.sandbox.stripe import Endpoint, SandboxStripeSettings, StripeError, serve

    if (forward_to is None) != (secret is None):
        raise ConfigError("--forward-to and --secret belong together")
    endpoints = () if forward_to is None or secret is None else (Endpoint(url=forward_to, secret=secret),)
    settings = SandboxStripeSettings(api_key=api_key, seed=seed, endpoints=endpoints)
    try:
        _run(listen, "simulated Stripe on {url}", as_json, partial(serve, settings=settings))
    except StripeError as error:
        raise ConfigError(f"--forward-to {forward_to}: {error}") from error


def _run(listen: str, ready: str, as_json: bool, serve: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Serve on `listen` until a signal comes; `ready` is what people are told, with the URL in it."""
    try:
        host, port = parse_listen(listen)
    except ValueError as error:
        raise ConfigError(f"--listen {listen}: {error}") from error

    def announce(url: str) -> None:
        line = f'{{"event":"ready","base_url":"{url}"}}' if as_json else f"{ready.format(url=url)}; Ctrl-C stops it"
        print(line, flush=True)

    try:
        asyncio.run(until_signalled(serve(host, port, on_ready=announce)))
    except OSError as error:
        raise ConfigError(f"--listen {listen}: {why(error)}") from error
    except ValueError as error:
        raise ConfigError(f"--listen {listen}: {error}") from error

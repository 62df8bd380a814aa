"""`tollgate breakers …`: what the fleet lets alone, since when, and what it counts."""

from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.output import AsJson, show, table
from gateway.cli.target import ConfigFile, Data, on_stores, target
from gateway.core.guard.breaker import NOTHING, Counts, State
from gateway.core.guard.shared_breaker import Standing

if TYPE_CHECKING:
    from gateway.app.stores import Stores

app = typer.Typer(help="Circuit breakers: one for each model, and one for the upstream.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keeps `show` a command of its own."""


@app.command("show")
def show_breakers(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show every breaker that has opened within the last day; all others are closed."""
    settings = target(data, config)

    async def look(stores: "Stores") -> dict[str, Standing]:
        from gateway.app.breakers import breaker_store

        store = breaker_store(settings, stores)
        looked = {name: await store.look(name) for name in sorted(await store.opened())}
        return {name: standing for name, standing in looked.items() if standing is not None}

    standings = on_stores(settings, look)
    rows = [
        (
            name,
            standing.breaker.state.replace("_", " "),
            _span(standing.age_ms),
            f"probed in {_span(standing.left_ms)}" if standing.breaker.state is State.OPEN else "",
            standing.breaker.openings,
            standing.breaker.cause.replace("_", " "),
            _counted(standing),
        )
        for name, standing in standings.items()
    ]
    columns = ("breaker", "state", "since", "then", "openings", "why it opened", "ok / failed")
    shown = table("breakers", columns, rows, right=("openings",), unfolded=("breaker",))
    show(as_json, [told(*each) for each in standings.items()], shown if rows else "every breaker is closed")


def told(name: str, standing: Standing) -> dict[str, Any]:
    """A breaker for machines."""
    breaker = standing.breaker
    return {
        "breaker": name,
        "state": breaker.state.value,
        "version": breaker.version,
        "age_ms": standing.age_ms,
        "left_ms": standing.left_ms if breaker.state is State.OPEN else 0,
        "openings": breaker.openings,
        "probes_answered": breaker.successes,
        "cause": breaker.cause.value,
        "window": _total(standing)._asdict(),
    }


def _total(standing: Standing) -> Counts:
    total = NOTHING
    for _, counts in standing.buckets:
        total = total.plus(counts)
    return total


def _counted(standing: Standing) -> str:
    total = _total(standing)
    return f"{total.ok} / {sum(total[1:5])}"


def _span(ms: int) -> str:
    seconds = ms // 1000
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"

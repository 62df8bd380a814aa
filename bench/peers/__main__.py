"""`python -m bench.peers install NAME`, `python -m bench.peers list`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from bench.peers.catalogue import PEERS
from bench.processes import BenchError

HOMES = Path(__file__).parent.parent / "out" / "peers"

app = typer.Typer(help="The peers that the bench drives when they are installed.", no_args_is_help=True)
console = Console()


@app.command("list")
def show() -> None:
    """Say which peers are installed."""
    for name, peer in PEERS.items():
        console.print(f"{name:<10} {'installed' if peer.installed(HOMES / name) else 'not installed'}", highlight=False)


@app.command()
def install(name: Annotated[str, typer.Argument(help=", ".join(PEERS))]) -> None:
    """Install a peer into a directory of its own under bench/out/."""
    peer = PEERS.get(name)
    if peer is None:
        console.print(f"[bold red]bench:[/] no such peer: {name}; there are {', '.join(PEERS)}")
        raise typer.Exit(2)
    home = HOMES / name
    home.mkdir(parents=True, exist_ok=True)
    try:
        peer.install(home)
    except BenchError as error:
        console.print(f"[bold red]bench:[/] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from error
    console.print(f"{name} is installed; `python -m bench` measures it from now on.")


if __name__ == "__main__":
    app()

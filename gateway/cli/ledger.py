"""`tollgate audit`: every invariant that a query can check, on live data."""

from typing import Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.text import Text

from gateway.cli.target import AsJson, ConfigFile, Data, run, show, table, target
from gateway.config import Config

EXIT_VIOLATED = 1


def register(app: typer.Typer) -> None:
    app.command()(audit)


def audit(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check the books; exit 0 only if every invariant holds."""

    async def main(settings: Config) -> list[dict[str, Any]]:
        from gateway.adapters.audit import run_audit
        from gateway.app.stores import open_stores

        console = Console(stderr=True, quiet=as_json)
        columns = SpinnerColumn(), TextColumn("{task.description}")
        is_watched = console.is_terminal and not as_json
        with Progress(*columns, console=console, transient=True, disable=not is_watched) as progress:
            task = progress.add_task("checking")

            def report(name: str) -> None:
                progress.update(task, description=f"checking: {name}")

            async with open_stores(settings) as stores:
                findings = await run_audit(stores.pool, stores.link, on_progress=report)
        return [
            {
                "invariant": finding.name,
                "holds": finding.holds,
                "violations": finding.violations,
                "examples": list(finding.examples),
            }
            for finding in findings
        ]

    findings = run(main(target(data, config)))
    is_clean = all(finding["holds"] for finding in findings)
    rows = [
        [
            Text("holds", "green") if finding["holds"] else Text(f"{finding['violations']} violations", "red"),
            finding["invariant"],
            "; ".join(finding["examples"]),
        ]
        for finding in findings
    ]
    verdict = "the books are right" if is_clean else "the books are wrong: see the examples"
    show(as_json, {"clean": is_clean, "findings": findings}, table(verdict, ["", "invariant", "examples"], rows))
    if not is_clean:
        raise typer.Exit(EXIT_VIOLATED)

"""`tollgate audit` and `tollgate ledger …`: what the books say of themselves."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from gateway.cli.operator import BY_COMMAND, Author, Reason, signed
from gateway.cli.output import AsJson, show, spinner, table
from gateway.cli.target import ConfigFile, Data, on_stores, target
from gateway.core.money import format_credits

if TYPE_CHECKING:
    from gateway.adapters.postgres.dead_letters import Letter
    from gateway.adapters.postgres.seals import Verdict
    from gateway.app.stores import Stores

EXIT_VIOLATED = 1

app = typer.Typer(help="The ledger: dead letters, seals.", no_args_is_help=True)
letters_app = typer.Typer(help="Events that could not be posted: list, show, retry, dismiss.", no_args_is_help=True)
app.add_typer(letters_app, name="dead-letters")

LetterId = Annotated[int, typer.Argument(metavar="ID", min=1, help="As `list` shows it.")]


def audit(data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check the books; exit 0 only if every invariant holds."""
    settings = target(data, config)

    async def check(stores: "Stores") -> list[dict[str, Any]]:
        from gateway.adapters.postgres.audit import run_audit
        from gateway.app.stores import open_audit_link

        with spinner("checking", as_json) as report:
            async with open_audit_link(settings) as link:
                findings = await run_audit(
                    stores.pool, link, read_at_once=settings.audit.read_at_once, on_progress=report
                )
        return [
            {
                "invariant": finding.name,
                "holds": finding.holds,
                "violations": finding.violations,
                "examples": list(finding.examples),
            }
            for finding in findings
        ]

    findings = on_stores(settings, check)
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


@app.command("verify")
def verify(
    head: Annotated[str, typer.Option(help="A head printed earlier, in hex: it must be in the chain.")] = "",
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the chain of seals from the ledger's rows; exit 0 only if nothing was changed, and print its head."""

    async def recompute(stores: "Stores") -> "Verdict":
        console = Console(stderr=True, quiet=as_json)
        with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as progress:
            task = progress.add_task("verifying", total=None)

            def report(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            return await stores.seals.verify(known_head=head.strip(), on_progress=report)

    verdict = on_stores(target(data, config), recompute)
    is_sound = not verdict.findings
    lines = [
        "the ledger is as it was sealed" if is_sound else "the ledger was changed after it was sealed",
        *(f"  {finding}" for finding in verdict.findings),
        f"transfers sealed: {verdict.transfers}, in seals: {verdict.seals}, not sealed yet: {verdict.unsealed}",
        f"head {verdict.head}" if verdict.head else "no seal yet",
    ]
    values = {"sound": is_sound} | {name: getattr(verdict, name) for name in verdict.__struct_fields__}
    show(as_json, values, "\n".join(lines))
    if not is_sound:
        raise typer.Exit(EXIT_VIOLATED)


@letters_app.command("list")
def list_letters(
    with_decided: Annotated[bool, typer.Option("--all", help="Also those that are decided.")] = False,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the dead letters that are open, the oldest first."""
    found = on_stores(target(data, config), lambda stores: stores.dead_letters.list(with_decided=with_decided))
    letters = [_shown(letter) for letter in found]
    rows = [[each["id"], each["at"], each["state"], each["cost"], each["reason"]] for each in letters]
    columns = ["id", "at", "state", "credits", "reason"]
    shown = table(f"{len(letters)} dead letters", columns, rows, right=["id", "credits"])
    show(as_json, {"dead_letters": letters}, shown if letters else "no dead letters")


@letters_app.command("show")
def show_letter(letter_id: LetterId, data: Data = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show one dead letter with the fields of its event."""
    _tell(as_json, on_stores(target(data, config), lambda stores: stores.dead_letters.get(letter_id)))


@letters_app.command("retry")
def retry_letter(
    letter_id: LetterId,
    reason: Reason = BY_COMMAND,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Post the event of a dead letter after all, once what kept it from being posted is mended."""
    signature = signed(author, reason)
    _tell(as_json, on_stores(target(data, config), lambda stores: stores.dead_letters.retry(letter_id, signature)))


@letters_app.command("dismiss")
def dismiss_letter(
    letter_id: LetterId,
    reason: Reason,
    author: Author = None,
    data: Data = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Give a dead letter up: it is never posted, and what was debited for it goes back to the account."""
    signature = signed(author, reason)
    _tell(as_json, on_stores(target(data, config), lambda stores: stores.dead_letters.dismiss(letter_id, signature)))


def _tell(as_json: bool, letter: "Letter") -> None:
    values = _shown(letter)
    rows = [[name, value] for name, value in values.items() if name != "fields"]
    rows += [[f"field {name}", value] for name, value in values["fields"].items()]
    show(as_json, values, table("", ["", ""], rows))


def _shown(letter: "Letter") -> dict[str, Any]:
    event = letter.event()
    return {
        "id": letter.id,
        "at": f"{letter.at:%Y-%m-%d %H:%M:%S}Z",
        "state": letter.state,
        "reason": letter.reason,
        "decision_reason": letter.decision_reason,
        "shard": letter.shard,
        "event_id": letter.event_id,
        "request": letter.fields.get("request_id", ""),
        "account": letter.fields.get("account", ""),
        "cost": "" if event is None else format_credits(event.charged),
        "cost_ucr": None if event is None else event.charged,
        "fields": letter.fields,
    }

"""The `tollgate` command: assembles the groups, and turns what a user can mend into one line on stderr."""

import sys
from typing import Annotated

import typer

from gateway import __version__
from gateway.adapters.postgres.accounts import AccountError
from gateway.adapters.postgres.audit_log import ChangeRefused
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.dead_letters import DeadLetterError
from gateway.adapters.postgres.notices import NoticeError
from gateway.adapters.postgres.provider_costs import BillRefused
from gateway.adapters.postgres.reviews import ReviewError
from gateway.adapters.postgres.schema import SchemaError
from gateway.adapters.postgres.statements import NoStatement, NotYetSealed
from gateway.adapters.redis.credits import CreditsError
from gateway.adapters.redis.link import RedisScriptError, RedisUnavailable
from gateway.cli import (
    accounts,
    alerts,
    audit_log,
    books,
    breakers,
    brownout,
    caps,
    corrections,
    flags,
    keys,
    ledger,
    members,
    notices,
    ops,
    purchases,
    rates,
    recharge,
    reconcile,
    reviews,
    run,
    sandbox,
    shadow,
    statements,
    stripe,
)
from gateway.cli.target import CommandFailed
from gateway.config import ConfigError
from gateway.core.pricing.provider_costs import CostUnknown
from gateway.logs import configure_logs
from gateway.sandbox.errors import SandboxError
from gateway.supervisor import EXIT_MISCONFIGURED, StartFailed

app = typer.Typer(
    name="tollgate",
    help="Tollgate: hold, meter and settle every call to the OpenAI API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RUNNING, CUSTOMERS, TRAFFIC, PAYMENTS, BOOKS, OPERATORS = (
    "Run it",
    "Customers",
    "What is served",
    "Payments",
    "Books",
    "Operators",
)
# In the order of the help: panel, name, group, an example that is shown below the group's commands.
GROUPS = (
    (CUSTOMERS, "accounts", accounts.app, 'accounts grant acme 5000 --reason "pilot"'),
    (CUSTOMERS, "members", members.app, "members add acme ada@example.com --role owner"),
    (CUSTOMERS, "keys", keys.app, "keys create acme --member ada@example.com --expires 90d"),
    (CUSTOMERS, "caps", caps.app, "caps set acme --day 5000 --rpm 600 --models 'gpt-4o*,o3'"),
    (CUSTOMERS, "alerts", alerts.app, "alerts set acme --below 500 --days 3"),
    (CUSTOMERS, "reviews", reviews.app, 'reviews release REFERENCE --reason "a load test"'),
    (TRAFFIC, "flags", flags.app, 'flags set maintenance on --for 30m --reason "upgrade"'),
    (TRAFFIC, "brownout", brownout.app, 'brownout set gpt-5 2 --for 30m --reason "slow"'),
    (TRAFFIC, "breakers", breakers.app, "breakers show"),
    (TRAFFIC, "rates", rates.app, "rates show gpt-4o-mini"),
    (TRAFFIC, "shadow", shadow.app, "shadow report --window 24h"),
    (PAYMENTS, "purchases", purchases.app, "purchases list --account acme"),
    (PAYMENTS, "refunds", purchases.refunds, 'refunds create PURCHASE --credits 1000 --reason "asked for"'),
    (PAYMENTS, "recharge", recharge.app, "recharge set acme --below 500 --dollars 20 --month-dollars 100"),
    (PAYMENTS, "stripe", stripe.app, "stripe events list --state dead"),
    (BOOKS, "ledger", ledger.app, "ledger dead-letters list"),
    (BOOKS, "books", books.app, "books export --from 2026-10-01 --to 2026-10-31 --out october.csv"),
    (BOOKS, "statements", statements.app, "statements close 2026-10"),
    (BOOKS, "reconcile", reconcile.app, "reconcile --day 2026-11-20"),
    (BOOKS, "corrections", corrections.app, 'corrections approve ID --reason "checked"'),
    (OPERATORS, "ops", ops.app, 'ops keys create "Ada" --role operator --reason "on call"'),
    (OPERATORS, "audit-log", audit_log.app, "audit-log show --author ada"),
    (OPERATORS, "notices", notices.app, "notices targets add https://example.com/hook"),
    (OPERATORS, "sandbox", sandbox.app, "sandbox openai --ttft-ms 300"),
)

run.register(app, RUNNING)
app.command(rich_help_panel=BOOKS)(ledger.audit)
for panel, name, group, example in GROUPS:
    app.add_typer(group, name=name, rich_help_panel=panel, epilog=f"Example: tollgate {example}")


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        print(f"tollgate {__version__}")
        raise typer.Exit


@app.callback()
def tollgate(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tollgate: hold, meter and settle every call to the OpenAI API."""


EXIT_FAILED, EXIT_INTERRUPTED = 1, 130

REFUSED = (
    CommandFailed,
    AccountError,
    ChangeRefused,
    BillRefused,
    CostUnknown,
    NoStatement,
    NotYetSealed,
    DeadLetterError,
    NoticeError,
    ReviewError,
    LedgerUnavailable,
    RedisUnavailable,
    RedisScriptError,
    CreditsError,
)
MISCONFIGURED = (ConfigError, SandboxError, StartFailed, SchemaError)


def main() -> None:
    """Run the command line; what a user can mend is one line on stderr, never a traceback."""
    configure_logs("warning", "auto")  # what runs for long sets its own
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as error:
        # Asked for nothing, a group has printed its help, and there is nothing to add.
        message = error.format_message().replace("Value error, ", "").rstrip(".") + _choices(error)
        status = _fail(f"{message}; see --help", EXIT_MISCONFIGURED) if message else EXIT_MISCONFIGURED
    except REFUSED as error:
        status = _fail(str(error), EXIT_FAILED)
    except MISCONFIGURED as error:
        status = _fail(str(error), EXIT_MISCONFIGURED)
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _choices(error: typer.TyperException) -> str:
    """What there is instead of a command that there is not."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is None or "No such command" not in message or "Did you mean" in message:
        return ""
    names = ", ".join(context.command.list_commands(context))
    return f" of `{context.command_path}`, which has {names}"


def _fail(message: str, status: int) -> int:
    if message:
        print("tollgate:", " ".join(message.split()), file=sys.stderr)
    return status

"""The `tollgate` command: assembles the groups, and turns what a user can mend into one line on stderr."""

import sys

import typer

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
from gateway.core.provider_costs import CostUnknown
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
run.register(app)
ledger.register(app)
app.add_typer(accounts.app, name="accounts")
app.add_typer(audit_log.app, name="audit-log")
app.add_typer(alerts.app, name="alerts")
app.add_typer(books.app, name="books")
app.add_typer(breakers.app, name="breakers")
app.add_typer(brownout.app, name="brownout")
app.add_typer(caps.app, name="caps")
app.add_typer(corrections.app, name="corrections")
app.add_typer(flags.app, name="flags")
app.add_typer(ops.app, name="ops")
app.add_typer(keys.app, name="keys")
app.add_typer(members.app, name="members")
app.add_typer(notices.app, name="notices")
app.add_typer(rates.app, name="rates")
app.add_typer(recharge.app, name="recharge")
app.add_typer(reviews.app, name="reviews")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(purchases.app, name="purchases")
app.add_typer(purchases.refunds, name="refunds")
app.add_typer(shadow.app, name="shadow")
app.add_typer(stripe.app, name="stripe")
app.add_typer(statements.app, name="statements")
app.add_typer(reconcile.app, name="reconcile")

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
        message = error.format_message().rstrip(".")
        status = _fail(f"{message}; see --help", EXIT_MISCONFIGURED) if message else EXIT_MISCONFIGURED
    except REFUSED as error:
        status = _fail(str(error), EXIT_FAILED)
    except MISCONFIGURED as error:
        status = _fail(str(error), EXIT_MISCONFIGURED)
    except (KeyboardInterrupt, typer.Abort):
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _fail(message: str, status: int) -> int:
    if message:
        print("tollgate:", " ".join(message.split()), file=sys.stderr)
    return status

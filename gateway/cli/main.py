"""The `tollgate` command: assembles the groups, and turns what a user can mend into one line on stderr."""

import sys

import typer

from gateway.cli import accounts, keys, ledger, rates, run, sandbox
from gateway.cli.target import CommandFailed
from gateway.config import ConfigError
from gateway.logs import configure_logs
from gateway.sandbox.errors import SandboxError
from gateway.supervisor import StartFailed

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
app.add_typer(keys.app, name="keys")
app.add_typer(rates.app, name="rates")
app.add_typer(sandbox.app, name="sandbox")

EXIT_FAILED, EXIT_MISCONFIGURED = 1, 2


def main() -> None:
    """Run the command line; what a user can mend is one line on stderr, never a traceback."""
    configure_logs("warning", "auto")  # what runs for long sets its own
    try:
        app()
    except CommandFailed as error:
        print(f"tollgate: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except (ConfigError, SandboxError, StartFailed) as error:
        print(f"tollgate: {error}", file=sys.stderr)
        sys.exit(EXIT_MISCONFIGURED)

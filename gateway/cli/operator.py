"""How an operator's command says who gives it and why: both are kept in the audit log."""

import getpass
from typing import Annotated

import typer

from gateway.adapters.postgres.audit_log import Signature
from gateway.cli.target import CommandFailed

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")]
Author = Annotated[str | None, typer.Option("--author", help="Who does it; the user of this system, if not given.")]

BY_COMMAND = "by command"


def signed(author: str | None, reason: str) -> Signature:
    """Raises `CommandFailed` when nobody can be named."""
    if author is None:
        try:
            author = getpass.getuser()
        except (KeyError, OSError) as error:
            raise CommandFailed("the user of this system has no name; give --author") from error
    return Signature(author, reason)

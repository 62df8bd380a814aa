"""What the command line says of itself, and what the documents say of it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gateway.cli.main import app

ROOT = Path(__file__).parents[2]
COLUMNS = 80
COMMAND: Any = typer.main.get_command(app)
WRITES_A_FILE = {("books", "export"), ("statements", "show")}  # `--format` is what others have --json for


def leaves(command: Any = COMMAND, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not getattr(command, "commands", None):
        yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))


def options_of(command: Any) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)}


def written(document: str) -> list[str]:
    """The `tollgate` commands in a document's blocks of shell."""
    blocks = re.findall(
        r"^```(?:sh)?\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    lines = [re.split(r"  +# |\|\||\|| > | < |;", line) for block in blocks for line in block.splitlines()]
    return [part.strip() for parts in lines for part in parts if part.strip().startswith("tollgate ")]


@pytest.mark.parametrize("path", [path for path, _ in leaves()], ids=" ".join)
def test_help_fits_a_terminal(path: tuple[str, ...]) -> None:
    said = CliRunner(env={"COLUMNS": str(COLUMNS)}).invoke(app, [*path, "--help"]).output
    assert "Usage: tollgate" in said
    assert [line for line in said.splitlines() if len(line) > COLUMNS] == []


def test_every_argument_and_option_says_what_it_takes() -> None:
    silent = [
        (*path, each.name) for path, command in leaves() for each in command.params if not (each.hidden or each.help)
    ]
    assert silent == []


def test_every_command_can_print_json() -> None:
    assert {path for path, command in leaves() if "--json" not in options_of(command)} == WRITES_A_FILE


@pytest.mark.parametrize("line", written("README.md") + written("deploy/runbook.md"))
def test_a_command_of_the_documents_exists_with_its_options(line: str) -> None:
    check(line)


def test_the_examples_of_groups_exist_with_their_options() -> None:
    for group in COMMAND.commands.values():
        if getattr(group, "commands", None):
            check(group.epilog.removeprefix("Example: "))


def check(line: str) -> None:
    words, command = shlex.split(line, comments=True)[1:], COMMAND
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    named = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert named <= options_of(command)
    given = any(each.param_type_name == "argument" for each in command.params) or getattr(command, "commands", None)
    assert given or not words or words[0].startswith("-")

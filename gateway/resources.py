"""Where the files that are not Python lie: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_IN_CHECKOUT = {"lua": "lua", "config": "config", "migrations": "deploy/migrations"}


def shipped(name: str) -> Path:
    """The folder of shipped files called `name`: lua, config or migrations.

    >>> shipped("lua").name
    'lua'
    """
    installed = _PACKAGE / "shipped" / name
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_CHECKOUT[name]

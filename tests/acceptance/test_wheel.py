"""The built wheel works outside of the checkout: scripts, settings, rate cards, schema and vocabularies are in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
COUNT = (
    "from gateway.adapters.openai.tokens import load_encoding; print(len(load_encoding('o200k_base').encode('hello')))"
)


def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, env=os.environ | (env or {}), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds nothing but what the wheel installs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-input")
    build = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder), str(CHECKOUT))
    run(*pip, *build, cwd=folder)
    [wheel] = folder.glob("*.whl")
    target = folder / "site"
    run(*pip, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel), cwd=folder)
    return target


def from_wheel(installed: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    return run(*arguments, cwd=installed.parent, env={"PYTHONPATH": str(installed)} | (env or {}))


def test_the_wheel_is_what_runs(installed: Path) -> None:
    assert Path(from_wheel(installed, "-c", "import gateway; print(gateway.__path__[0])").strip()).parent == installed
    assert "gateway.__main__:main" in next(installed.glob("tollgate-*/entry_points.txt")).read_text()


def test_its_rate_cards_are_there(installed: Path) -> None:
    assert json.loads(from_wheel(installed, "-m", "gateway", "rates", "check", "--json"))["cards"]


def test_its_vocabularies_are_there(installed: Path) -> None:
    assert from_wheel(installed, "-c", COUNT) == "1\n"


def test_its_schema_migrates_an_empty_database_and_its_scripts_take_a_grant(
    installed: Path, empty_database_url: str, redis_url: str
) -> None:
    env = {"TOLLGATE_DATABASE_URL": empty_database_url, "TOLLGATE_REDIS_URL": redis_url}
    for command in (("migrate",), ("accounts", "create", "a"), ("accounts", "grant", "a", "5", "--reason", "r")):
        from_wheel(installed, "-m", "gateway", *command, env=env)
    shown = json.loads(from_wheel(installed, "-m", "gateway", "accounts", "show", "a", "--json", env=env))
    assert shown["available"] == "5"

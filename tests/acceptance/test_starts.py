"""What cannot start says why in one line and ends with status 2, having started and changed nothing."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import tollgate
from tests.up import Stack

ANYWHERE = ("--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--upstream", "sandbox")


def refusal(*arguments: str, env: dict[str, str] | None = None) -> str:
    done = tollgate(*arguments, env=env)
    assert (done.returncode, done.stdout) == (2, ""), done
    said = [line for line in done.stderr.splitlines() if '"level": "info"' not in line]
    assert len(said) == 1, done.stderr
    assert re.match(r"tollgate: \S", said[0])
    return said[0]


@pytest.fixture
def taken_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("option", ["--listen", "--ops-listen"])
def test_a_port_in_use_is_named_with_its_option(tmp_path: Path, taken_port: str, option: str) -> None:
    others = ("--listen", "127.0.0.1:0") if option == "--ops-listen" else ("--ops-listen", "127.0.0.1:0")
    said = refusal("up", "--data", str(tmp_path / "data"), "--upstream", "sandbox", *others, option, taken_port)
    assert taken_port in said
    assert "Address already in use" in said
    assert option in said


def test_a_data_directory_in_use_is_refused_and_its_user_goes_on(stack: Stack) -> None:
    assert "in use by another Tollgate" in refusal("up", "--data", str(stack.data), *ANYWHERE)
    assert stack.tollgate("audit")["clean"]  # the running one is still found by its directory


def test_a_data_directory_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tollgate.json").write_text('{"layout": 99}')
    assert "data layout 99" in refusal("up", "--data", str(tmp_path), *ANYWHERE)


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "holds other files" in refusal("up", "--data", str(tmp_path), *ANYWHERE)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert "choose another --data" in refusal("up", "--data", str(tmp_path / "thesis.txt"), *ANYWHERE)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TOLLGATE_RATE_CARD": "2001-01-01-nobody"}, "rate_card: "),
        ({"TOLLGATE_FROBNICATE": "1"}, "TOLLGATE_FROBNICATE"),
        ({"TOLLGATE_UPSTREAM_URL": "https://api.openai.com/v1"}, "without a path"),
        ({"TOLLGATE_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"}, "database"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_starts(tmp_path: Path, env: dict[str, str], said: str) -> None:
    assert said in refusal("up", "--data", str(tmp_path / "data"), *ANYWHERE, env=env)


def test_a_rate_card_that_cannot_be_used_is_told_with_its_key(tmp_path: Path) -> None:
    card = tmp_path / "mine.toml"
    card.write_text('effective_from = 2026-01-01\nrounding = "exact"\n')
    said = refusal("up", "--data", str(tmp_path / "data"), *ANYWHERE, env={"TOLLGATE_RATE_CARD": str(card)})
    assert "mine.toml: models" in said


def test_a_spool_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    env = {"TOLLGATE_SPOOL_DIR": str(tmp_path / "file" / "spool")}
    assert "spool_dir: " in refusal("up", "--data", str(tmp_path / "data"), *ANYWHERE, env=env)


@pytest.mark.parametrize(
    "arguments",
    [("accounts", "show", "x"), ("keys", "list", "x"), ("audit",), ("migrate",)],
)
def test_a_command_that_finds_no_tollgate_says_how_to_name_one(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    said = refusal(*arguments, "--data", str(tmp_path / "nothing"))
    assert "no `tollgate up` is running" in said
    assert "TOLLGATE_DATABASE_URL" in said


@pytest.mark.parametrize("command", ["serve", "work"])
def test_serving_alone_needs_both_stores(command: str) -> None:
    assert "TOLLGATE_DATABASE_URL" in refusal(command)
    assert "TOLLGATE_REDIS_URL" in refusal(command, env={"TOLLGATE_DATABASE_URL": "postgresql://u:p@127.0.0.1:1/x"})


@pytest.mark.parametrize("command", ["serve", "work", "migrate", "audit"])
def test_a_database_that_cannot_be_reached_is_told(command: str) -> None:
    env = {"TOLLGATE_DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/x", "TOLLGATE_REDIS_URL": "redis://127.0.0.1:1"}
    said = refusal(command, env=env)
    assert "database" in said
    assert "secret" not in said


def test_a_wrong_password_is_told_and_not_repeated(stack: Stack) -> None:
    url = re.sub(r":[^:@/]+@", ":wrong-secret@", stack.ready["database_url"])
    env = {"TOLLGATE_DATABASE_URL": url, "TOLLGATE_REDIS_URL": stack.ready["redis_url"]}
    for command in ("serve", "migrate"):
        said = refusal(command, env=env)
        assert "password authentication failed" in said
        assert "wrong-secret" not in said


@pytest.mark.parametrize("command", ["serve", "work"])
def test_a_schema_that_is_behind_is_refused(stack: Stack, empty_database_url: str, command: str) -> None:
    env = {"TOLLGATE_DATABASE_URL": empty_database_url, "TOLLGATE_REDIS_URL": stack.ready["redis_url"]}
    assert "tollgate migrate" in refusal(command, env=env)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:port", "rediss://127.0.0.1:1?ssl_ca_certs=/nowhere.pem"])
def test_a_redis_url_that_cannot_be_used_is_told(stack: Stack, url: str) -> None:
    env = {"TOLLGATE_DATABASE_URL": stack.ready["database_url"], "TOLLGATE_REDIS_URL": url}
    assert "redis_url: " in refusal("serve", env=env)


@pytest.mark.parametrize("port", [0, 1])
def test_a_simulated_openai_stays_on_loopback(port: int) -> None:
    assert "loopback" in refusal("sandbox", "openai", "--listen", f"0.0.0.0:{port}")


def test_commands_take_the_stores_from_a_file(stack: Stack, tmp_path: Path) -> None:
    config = tmp_path / "stores.toml"
    urls = {name: stack.ready[name] for name in ("database_url", "redis_url")}
    config.write_text("".join(f"{name} = {json.dumps(url)}\n" for name, url in urls.items()))
    stack.tollgate("accounts", "create", "from-a-file")
    done = tollgate("accounts", "show", "from-a-file", "--json", "--config", str(config))
    by_environment = tollgate(
        "accounts", "show", "from-a-file", "--json", env={f"TOLLGATE_{n.upper()}": u for n, u in urls.items()}
    )
    assert json.loads(done.stdout) == json.loads(by_environment.stdout)
    assert json.loads(done.stdout) == stack.tollgate("accounts", "show", "from-a-file")

"""Configuration: what wins over what, and that every mistake is one line with its place and its remedy."""

from pathlib import Path

import pytest

from gateway.config import ConfigError, load, parse_listen
from gateway.resources import shipped


@pytest.fixture(autouse=True)
def _no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("TOLLGATE_DATABASE_URL", "TOLLGATE_REDIS_URL", "TOLLGATE_UPSTREAM_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_default_is_in_the_shipped_file() -> None:
    assert load().holds.lease_ms == 60_000
    assert (shipped("config") / "gateway.toml").exists()


def test_a_file_wins_over_the_defaults_key_by_key(tmp_path: Path) -> None:
    config = load(written(tmp_path, "[holds]\nlease_ms = 5000\nrenew_ms = 2000\n"))
    assert (config.holds.lease_ms, config.holds.renew_ms, config.holds.tombstone_ms) == (5000, 2000, 900_000)


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_HOLDS__LEASE_MS", "7000")
    config = load(written(tmp_path, "[holds]\nlease_ms = 5000\nrenew_ms = 2000\n"))
    assert (config.holds.lease_ms, config.holds.renew_ms) == (7000, 2000)


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_LISTEN", "127.0.0.1:1")
    assert load(listen="127.0.0.1:2").listen == "127.0.0.1:2"
    assert load(listen=None).listen == "127.0.0.1:1"


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_REDIS_URL", "")
    assert load().redis_url == ""


def test_the_upstreams_key_comes_from_openais_own_variable_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    config = load()
    assert config.upstream_key == "sk-secret"
    assert "sk-secret" not in repr(config)


def test_an_origin_may_end_in_a_slash() -> None:
    assert load(upstream_url="https://api.openai.com/").upstream_url == "https://api.openai.com"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listen = = 1", "not valid TOML"),
        ("frobnicate = 1", "frobnicate: no such key"),
        ("[holds]\nfrobnicate = 1", "holds.frobnicate: no such key"),
        ('[edge]\ntrusted_proxies = ["10.0.0.0/99"]', "edge.trusted_proxies.0: value is not a valid IPv4"),
        ("holds = 5", "holds: is a section"),
        ('[holds]\nlease_ms = "soon"', "holds.lease_ms:"),
        ("[holds]\nlease_ms = 10", "holds.lease_ms:"),
        ("[holds]\nlease_ms = 2000", "renew_ms must be at most half of lease_ms"),
        ("[callers]\npoll_ms = 5000", "callers.poll_ms:"),
        ('[disconnect]\npolicy = "wait"', "disconnect.policy:"),
        ('listen = "8080"', "listen: must be HOST:PORT"),
        ('listen = "127.0.0.1:70000"', "listen: must be HOST:PORT"),
        ('upstream_url = "https://api.openai.com/v1"', "without a path: https://api.openai.com"),
        ('upstream_url = "api.openai.com"', "must be an origin"),
        ('upstream_url = "https://key@api.openai.com"', "without a path: https://api.openai.com"),
        ('upstream_url = "https://api.openai.com:99999"', "upstream_url: Port out of range"),
        ('database_url = "mysql://localhost/x"', "must start with postgresql://"),
        ('database_url = "postgresql://localhost:x/y"', "database_url: Port could not be"),
        ('[stripe]\nreturn_url = ""', "return_url: "),
        ('redis_url = "localhost:6379"', "must start with redis://"),
        ('log_level = "loud"', "log_level:"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        load(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TOLLGATE_FROBNICATE", "1", "no such setting"),
        ("TOLLGATE_HOLDS__FROBNICATE", "1", "no such key"),
        ("TOLLGATE_HOLDS__LEASE_MS", "soon", "holds.lease_ms"),
        ("TOLLGATE_HOLDS", "soon", "TOLLGATE_SECTION__KEY"),
        ("TOLLGATE_HOLDS", "5", "TOLLGATE_HOLDS__KEY"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match="environment") as refused:
        load()
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_mistake_in_an_option_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^option --upstream: .*without a path"):
        load(upstream_url="https://api.openai.com/v1")


@pytest.mark.parametrize("name", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--config"):
        load(tmp_path / name)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().listen = "127.0.0.1:1"


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert parse_listen("[::1]:8080") == ("::1", 8080)
    for wrong in ("::", "host:", ":80", "host:port", "host:-1"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_listen(wrong)

"""Configuration: config/gateway.toml, then `--config FILE`, then the environment; read once, frozen, relations checked.

Every default is written out in the shipped file, so there is one page to read. A mistake is one line that names the
file or variable, the key and the remedy.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway.core.sessions import Selling
from gateway.resources import shipped


class ConfigError(Exception):
    """The configuration cannot be used."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Positive = Field(gt=0)


class Estimate(_Section):
    auto_service_tier: Literal["default", "flex", "priority"]


class Holds(_Section):
    lease_ms: int = Field(ge=1000)
    renew_ms: int = Field(ge=100)
    refusal_memory_ms: int = Positive
    tombstone_ms: int = Positive
    rebuild_grace_ms: int = Field(ge=0)

    @model_validator(mode="after")
    def _renewed_before_it_lapses(self) -> "Holds":
        if self.renew_ms * 2 > self.lease_ms:
            raise ValueError("renew_ms must be at most half of lease_ms")
        return self


class Redis(_Section):
    command_timeout_ms: int = Positive
    pending_commands_max: int = Positive
    reconnect_backoff_ms_max: int = Positive
    require_durable: bool
    ready_memory_percent_max: int = Field(gt=0, le=100)


class Database(_Section):
    pool_connections_max: int = Field(ge=2)
    connect_timeout_ms: int = Positive
    command_timeout_ms: int = Positive


class Callers(_Section):
    poll_ms: int = Field(gt=0, le=500)
    cached_keys_max: int = Positive
    unknown_key_ttl_ms: int = Field(gt=0, le=1000)
    stale_s_max: int = Field(ge=0)


class Edge(_Section):
    connections_max: int = Positive
    head_bytes_max: int = Positive
    header_count_max: int = Positive
    head_timeout_ms: int = Positive
    body_bytes_max: int = Positive
    bodies_bytes_max: int = Positive
    control_body_bytes_max: int = Positive
    body_idle_timeout_ms: int = Positive
    write_stall_timeout_ms: int = Positive
    bytes_per_s_min: int = Positive
    keepalive_timeout_ms: int = Positive
    write_high_water_bytes: int = Positive
    drain_s: int = Field(ge=0)


class Upstream(_Section):
    connect_timeout_ms: int = Positive
    head_timeout_ms: int = Positive
    body_idle_timeout_ms: int = Positive
    connections_max: int = Positive
    connection_idle_ms: int = Positive
    connection_age_ms: int = Positive
    answer_buffer_bytes_max: int = Positive


class Disconnect(_Section):
    policy: Literal["drain", "cancel"]
    drain_s: int = Field(ge=0)
    drains_max: int = Field(ge=0)


class Realtime(_Section):
    sessions: Selling
    sessions_max: int = Field(ge=0)
    recheck_ms: int = Field(gt=0, le=500)
    idle_timeout_ms: int = Positive
    session_s_max: int = Positive
    closing_timeout_ms: int = Positive


class SettlementConfig(_Section):
    ready_backlog_events_max: int = Positive
    retained_max: int = Positive
    position_poll_ms: int = Positive
    journal_bytes_max: int = Positive
    replay_ms: int = Positive


class TokenizerConfig(_Section):
    counted_bytes_max: int = Positive


class Poster(_Section):
    batch_events_max: int = Field(gt=0, le=5000)
    batch_ms: int = Field(ge=0)
    ack_ms: int = Field(ge=0)
    block_ms: int = Positive


class Workers(_Section):
    sweep_ms: int = Positive
    sweep_batch_max: int = Positive
    credit_ms: int = Positive
    rebuild_check_ms: int = Positive
    seal_ms: int = Positive
    seal_batch_max: int = Field(gt=0, le=10_000)
    book_ms: int = Positive
    ready_lag_s_max: int = Positive


class Stripe(_Section):
    api_url: str
    timeout_ms: int = Positive
    retries_max: int = Field(ge=0, le=5)
    signature_tolerance_s: int = Positive
    return_url: str
    automatic_tax: bool
    tax_ids: bool
    invoices: bool
    freeze: Literal["account", "amount"]
    events_ms: int = Positive
    events_at_once_max: int = Field(gt=0, le=64)
    event_attempts_max: int = Positive
    refunds_s: int = Positive
    backfill_s: int = Positive

    @field_validator("api_url", "return_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return _checked_scheme(url, "https", "http")


class Purchases(_Section):
    enabled: bool
    banner: str
    per_hour_max: int = Positive
    refund_days_max: int = Positive


class Config(BaseSettings):
    """The whole configuration; see config/gateway.toml for what each key means."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="TOLLGATE_", env_nested_delimiter="__", env_ignore_empty=True
    )

    database_url: str
    replica_url: str
    redis_url: str
    upstream_url: str
    upstream_key: str = Field("", repr=False, validation_alias="OPENAI_API_KEY")
    listen: str
    ops_listen: str
    rate_card: str
    spool_dir: str
    log_level: Literal["debug", "info", "warning", "error"]
    log_format: Literal["auto", "json", "console"]
    estimate: Estimate
    holds: Holds
    redis: Redis
    database: Database
    callers: Callers
    edge: Edge
    upstream: Upstream
    disconnect: Disconnect
    realtime: Realtime
    settlement: SettlementConfig
    tokenizer: TokenizerConfig
    poster: Poster
    workers: Workers
    stripe_key: str = Field("", repr=False, validation_alias="STRIPE_SECRET_KEY")
    stripe_webhook_secrets: str = Field("", repr=False, validation_alias="STRIPE_WEBHOOK_SECRETS")
    stripe: Stripe
    purchases: Purchases

    @field_validator("upstream_url")
    @classmethod
    def _is_origin(cls, url: str) -> str:
        parts = _split(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an origin such as https://api.openai.com")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError(f"must be an origin without a path: {parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        return url.rstrip("/")

    @field_validator("database_url", "replica_url")
    @classmethod
    def _is_postgres(cls, url: str) -> str:
        return _checked_scheme(url, "postgresql", "postgres")

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        return _checked_scheme(url, "redis", "rediss", "unix")

    @field_validator("listen", "ops_listen")
    @classmethod
    def _is_address(cls, text: str) -> str:
        parse_listen(text)
        return text


def _checked_scheme(url: str, *schemes: str) -> str:
    if url and _split(url).scheme not in schemes:
        raise ValueError("must start with " + " or ".join(f"{scheme}://" for scheme in schemes))
    return url


def _split(url: str) -> SplitResult:
    parts = urlsplit(url)
    parts.port  # noqa: B018  it is only checked when it is read: a ValueError
    return parts


def parse_listen(text: str) -> tuple[str, int]:
    """Read HOST:PORT (an IPv6 host in brackets); raises ValueError.

    >>> parse_listen("127.0.0.1:8080"), parse_listen("[::1]:0")
    (('127.0.0.1', 8080), ('::1', 0))
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def why(error: OSError) -> str:
    """What the system says is wrong; asyncio puts whole sentences around it."""
    is_system = error.errno is not None and error.errno > 0
    return os.strerror(error.errno or 0) if is_system else error.strerror or str(error)


def load(file: Path | None = None, **overrides: Any) -> Config:
    """Read the configuration; `overrides` (None = not given) win over everything. Raises `ConfigError`, one line."""
    settings = _read(shipped("config") / "gateway.toml")
    if file is not None:
        for key, value in _read(file).items():
            section = settings.get(key)
            settings[key] = section | value if isinstance(section, dict) and isinstance(value, dict) else value

    class Layered(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=settings)

    _refuse_unknown_variables()
    try:
        return Layered(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(_explain(error, file, overrides)) from error
    except SettingsError as error:
        raise ConfigError(f"environment: {error}; write a section's keys as TOLLGATE_SECTION__KEY=value") from error


def _refuse_unknown_variables() -> None:
    """A misspelt variable would be a setting that silently does nothing."""
    for variable in os.environ:
        key = variable.removeprefix("TOLLGATE_").partition("__")[0].lower()
        if variable.startswith("TOLLGATE_") and key not in Config.model_fields and not key.startswith("test_"):
            raise ConfigError(f"environment variable {variable}: no such setting; config/gateway.toml lists them all")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name a readable TOML file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _explain(error: ValidationError, file: Path | None, overrides: dict[str, Any]) -> str:
    """One line for the first mistake: where it stands, what is wrong; the message says what would be right."""
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    variable = "TOLLGATE_" + "__".join(keys).upper()
    where = str(file or "configuration")
    if overrides.get(keys[0] if keys else "") is not None:
        where = f"option --{keys[0].removesuffix('_url').replace('_', '-')}"
    elif variable in os.environ:
        where = f"environment variable {variable}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "no such key; config/gateway.toml lists them all"
    if first["type"] == "model_type":
        message = f"is a section: [{keys[0]}] in a file, TOLLGATE_{keys[0].upper()}__KEY in the environment"
    return f"{where}: {'.'.join(keys) or 'settings'}: {message}"

"""Configuration: config/gateway.toml, then `--config FILE`, then the environment; read once, frozen, relations checked.

Every default is written out in the shipped file, so there is one page to read. A mistake is one line that names the
file or variable, the key and the remedy.
"""

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway.config.sections import (
    AlertsConfig,
    Anomaly,
    Audit,
    Breaker,
    BrownoutConfig,
    Callers,
    CapsConfig,
    Controls,
    Database,
    Disconnect,
    Edge,
    Estimate,
    Holds,
    Identity,
    Notify,
    OperatorIdentity,
    Operators,
    Poster,
    Purchases,
    Realtime,
    Reconcile,
    Redis,
    Reports,
    SettlementConfig,
    Slices,
    Stripe,
    TokenizerConfig,
    Upstream,
    Workers,
    checked_scheme,
    split_url,
)
from gateway.resources import shipped


class ConfigError(Exception):
    """The configuration cannot be used."""


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
    audit: Audit
    database: Database
    callers: Callers
    identity: Identity
    controls: Controls
    operators: Operators
    operator_identity: OperatorIdentity
    caps: CapsConfig
    slices: Slices
    breaker: Breaker
    brownout: BrownoutConfig
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
    notify: Notify
    openai_admin_key: str = Field("", repr=False, validation_alias="OPENAI_ADMIN_KEY")
    reconcile: Reconcile
    anomaly: Anomaly
    alerts: AlertsConfig
    reports: Reports

    @model_validator(mode="after")
    def _customers_are_no_operators(self) -> "Config":
        customers, operators = self.identity, self.operator_identity
        is_same = (customers.issuer, customers.audience) == (operators.issuer, operators.audience)
        if customers.is_given and operators.is_given and is_same:
            raise ValueError("operator_identity must have another issuer or audience than identity")
        return self

    @model_validator(mode="after")
    def _reports_leave_connections(self) -> "Config":
        if self.reports.at_once_max >= self.database.pool_connections_max:
            raise ValueError("reports.at_once_max must be below database.pool_connections_max")
        return self

    @field_validator("upstream_url")
    @classmethod
    def _is_origin(cls, url: str) -> str:
        parts = split_url(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an origin such as https://api.openai.com")
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError(f"must be an origin without a path: {parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        return url.rstrip("/")

    @field_validator("database_url", "replica_url")
    @classmethod
    def _is_postgres(cls, url: str) -> str:
        return checked_scheme(url, "postgresql", "postgres")

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: str) -> str:
        return checked_scheme(url, "redis", "rediss", "unix")

    @field_validator("listen", "ops_listen")
    @classmethod
    def _is_address(cls, text: str) -> str:
        parse_listen(text)
        return text


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

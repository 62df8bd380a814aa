"""The sections of the configuration, one class each. What a key means stands in config/gateway.toml."""

from typing import Literal
from urllib.parse import SplitResult, urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, field_validator, model_validator

from gateway.core.access.callers import Scope
from gateway.core.calls.sessions import Selling
from gateway.core.guard.anomaly import Width


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Positive = Field(gt=0)


class Estimate(Section):
    auto_service_tier: Literal["default", "flex", "priority"]


class Holds(Section):
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


class Redis(Section):
    command_timeout_ms: int = Positive
    pending_commands_max: int = Positive
    reconnect_backoff_ms_max: int = Positive
    require_durable: bool
    ready_memory_percent_max: int = Field(gt=0, le=100)


class Audit(Section):
    redis_timeout_ms: int = Positive
    read_at_once: int = Field(gt=0, le=5000)


class Database(Section):
    pool_connections_max: int = Field(ge=2)
    connect_timeout_ms: int = Positive
    command_timeout_ms: int = Positive


class Callers(Section):
    poll_ms: int = Field(gt=0, le=500)
    cached_keys_max: int = Positive
    unknown_key_ttl_ms: int = Field(gt=0, le=1000)
    stale_s_max: int = Field(ge=0)


class IdentityProvider(Section):
    issuer: str
    audience: str
    jwks_url: str
    public_key_file: str
    leeway_s: int = Field(ge=0, le=300)
    jwks_age_s_max: int = Positive
    jwks_refetch_s: int = Positive
    jwks_timeout_ms: int = Positive

    @property
    def is_given(self) -> bool:
        return bool(self.jwks_url or self.public_key_file)

    @field_validator("jwks_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return checked_scheme(url, "https", "http")

    @model_validator(mode="after")
    def _whole(self) -> "IdentityProvider":
        if self.jwks_url and self.public_key_file:
            raise ValueError("give jwks_url or public_key_file, not both")
        if self.is_given and not (self.issuer and self.audience):
            raise ValueError("issuer and audience must be given, or tokens for others would be taken")
        return self


class Identity(IdentityProvider):
    account_claim: str = Field(min_length=1)
    member_claim: str = Field(min_length=1)
    email_claim: str = Field(min_length=1)
    scopes: frozenset[Scope]
    create_members: Literal["", "viewer", "member"]
    link_by_email: bool
    cached_tokens_max: int = Positive


class OperatorIdentity(IdentityProvider):
    name_claim: str = Field(min_length=1)
    role_claim: str = Field(min_length=1)
    role_prefix: str
    lifetime_s_max: int = Positive


class Controls(Section):
    poll_ms: int = Field(gt=0, le=500)
    read_timeout_ms: int = Positive


class CapsConfig(Section):
    policies: str
    poll_ms: int = Field(gt=0, le=500)
    count_ms: int = Positive
    count_batch_max: int = Positive
    soft_percent: int = Field(gt=0, le=100)
    watch_ms: int = Positive


class Slices(Section):
    models: list[str]
    output_tokens: int = Positive
    output_tokens_min: int = Positive
    ahead_tokens: int = Field(ge=0)
    wait_ms: int = Field(ge=0)

    @model_validator(mode="after")
    def _asked_for_in_time(self) -> "Slices":
        if not self.ahead_tokens < self.output_tokens or self.output_tokens_min > self.output_tokens:
            raise ValueError("ahead_tokens must be less than output_tokens, and output_tokens_min no more than it")
        return self


class Breaker(Section):
    enabled: bool
    window_ms: int = Positive
    bucket_ms: int = Positive
    volume_min: int = Positive
    failure_percent: int = Field(gt=0, le=100)
    streak: int = Positive
    open_ms: int = Positive
    open_ms_max: int = Positive
    jitter_percent: int = Field(ge=0, le=50)
    probes_max: int = Positive
    probe_timeout_ms: int = Positive
    successes_to_close: int = Positive
    error_weight: float = Field(ge=0)
    timeout_weight: float = Field(ge=0)
    throttled_weight: float = Field(ge=0)
    unreachable_weight: float = Field(ge=0)
    flush_ms: int = Positive

    @model_validator(mode="after")
    def _fits_together(self) -> "Breaker":
        if self.bucket_ms * 2 > self.window_ms:
            raise ValueError("bucket_ms must be at most half of window_ms")
        if self.flush_ms > self.bucket_ms:
            raise ValueError("flush_ms must be at most bucket_ms")
        if self.open_ms > self.open_ms_max:
            raise ValueError("open_ms must be at most open_ms_max")
        return self


class BrownoutConfig(Section):
    shed_percent: int = Field(ge=0, le=100)
    output_tokens: int = Positive
    reroute: dict[str, str]
    expensive: tuple[str, ...]
    rule_level: int = Field(ge=1, le=4)
    rule_for_s: int = Positive
    rule_window_s: int = Field(ge=6)
    rule_calls_min: int = Positive
    slow_factor: float = Field(gt=1)
    slow_ms_min: int = Positive
    baseline_s: int = Positive
    error_percent: int = Field(gt=0, le=100)
    rule_ms: int = Positive

    @model_validator(mode="after")
    def _fits_together(self) -> "BrownoutConfig":
        if self.baseline_s < 5 * self.rule_window_s:
            raise ValueError("baseline_s must be at least five times rule_window_s")
        if self.rule_ms > self.rule_window_s * 1000:
            raise ValueError("rule_ms must be at most rule_window_s")
        if self.rule_level == 3 and not self.reroute:
            raise ValueError("rule_level 3 needs [brownout.reroute]")
        return self


class Operators(Section):
    alone_credits_per_day_max: int = Field(ge=0, le=1_000_000_000)


class Edge(Section):
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
    failed_keys_per_minute_max: int = Positive
    guarded_per_minute_max: int = Positive
    addresses_max: int = Positive
    drain_s: int = Field(ge=0)
    trusted_proxies: tuple[IPvAnyNetwork, ...]
    cors_origins: frozenset[str]

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: frozenset[str]) -> frozenset[str]:
        for origin in origins:
            parts = split_url(origin)
            if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}".lower():
                raise ValueError(f"{origin!r} is no origin such as https://app.example.com")
        return origins


class Upstream(Section):
    connect_timeout_ms: int = Positive
    head_timeout_ms: int = Positive
    body_idle_timeout_ms: int = Positive
    connections_max: int = Positive
    connection_idle_ms: int = Positive
    connection_age_ms: int = Positive
    answer_buffer_bytes_max: int = Positive


class Disconnect(Section):
    policy: Literal["drain", "cancel"]
    drain_s: int = Field(ge=0)
    drains_max: int = Field(ge=0)


class Realtime(Section):
    sessions: Selling
    sessions_max: int = Field(ge=0)
    recheck_ms: int = Field(gt=0, le=500)
    idle_timeout_ms: int = Positive
    session_s_max: int = Positive
    closing_timeout_ms: int = Positive


class SettlementConfig(Section):
    ready_backlog_events_max: int = Positive
    retained_max: int = Positive
    position_poll_ms: int = Positive
    journal_bytes_max: int = Positive
    replay_ms: int = Positive


class TokenizerConfig(Section):
    counted_bytes_max: int = Positive


class Poster(Section):
    batch_events_max: int = Field(gt=0, le=5000)
    batch_ms: int = Field(ge=0)
    ack_ms: int = Field(ge=0)
    block_ms: int = Positive


class Workers(Section):
    sweep_ms: int = Positive
    sweep_batch_max: int = Positive
    credit_ms: int = Positive
    rebuild_check_ms: int = Positive
    seal_ms: int = Positive
    seal_batch_max: int = Field(gt=0, le=10_000)
    book_ms: int = Positive
    ready_lag_s_max: int = Positive


class Stripe(Section):
    api_url: str
    timeout_ms: int = Positive
    retries_max: int = Field(ge=0, le=5)
    signature_tolerance_s: int = Positive
    return_url: str = Field(min_length=1)
    automatic_tax: bool
    tax_ids: bool
    invoices: bool
    freeze: Literal["account", "amount"]
    events_ms: int = Positive
    events_at_once_max: int = Field(gt=0, le=64)
    event_attempts_max: int = Positive
    refunds_s: int = Positive
    backfill_s: int = Positive
    recharge_ms: int = Field(gt=0, le=5000)
    recharges_at_once_max: int = Positive

    @field_validator("api_url", "return_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        return checked_scheme(url, "https", "http")


class Notify(Section):
    words: str
    deliver_ms: int = Positive
    at_once_max: int = Field(gt=0, le=64)
    timeout_ms: int = Field(gt=0, le=60_000)
    attempts_max: int = Positive
    retry_first_s: int = Positive
    retry_longest_s: int = Positive
    private_networks: tuple[IPvAnyNetwork, ...]

    @model_validator(mode="after")
    def _waits_grow(self) -> "Notify":
        if self.retry_longest_s < self.retry_first_s:
            raise ValueError("retry_longest_s must be at least retry_first_s")
        return self


class Purchases(Section):
    per_hour_max: int = Positive
    per_address_hour_max: int = Positive
    refund_days_max: int = Positive


class Reconcile(Section):
    daily: bool
    after_hour_utc: int = Field(ge=1, le=23)
    check_ms: int = Positive
    retry_s: int = Positive
    days_back: int = Field(ge=1, le=31)
    late_days: int = Field(ge=0, le=31)
    samples: int = Positive
    seed: str
    mismatch_ppm_max: int = Field(ge=0, lt=1_000_000)
    margin_percent_min: int = Field(ge=0)
    openai_timeout_ms: int = Positive
    openai_attempts_max: int = Field(ge=1, le=10)


class Reports(Section):
    trusted_accounts: tuple[UUID, ...]
    at_once_max: int = Positive


class AlertsConfig(Section):
    below_credits: int = Field(ge=0)
    days: int = Field(ge=0, le=365)


class Anomaly(Section):
    mode: Literal["review", "notify", "off"]
    width: Width
    watch_ms: int = Field(gt=0, le=5000)
    hour_times: int = Positive
    hour_credits_min: int = Field(ge=0)
    day_times: int = Positive
    day_credits_min: int = Field(ge=0)
    known_min: int = Positive
    burst_credits: int = Field(ge=0)
    burst_minutes: int = Field(gt=0, le=60)


def checked_scheme(url: str, *schemes: str) -> str:
    """The URL, if it is empty or has one of these schemes; raises ValueError."""
    if url and split_url(url).scheme not in schemes:
        raise ValueError("must start with " + " or ".join(f"{scheme}://" for scheme in schemes))
    return url


def split_url(url: str) -> SplitResult:
    """The parts of a URL, its port checked; raises ValueError."""
    parts = urlsplit(url)
    parts.port  # noqa: B018  it is only checked when it is read: a ValueError
    return parts

"""The breakers of a gateway, built out of the configuration; and where commands look at those of the fleet."""

import random
import time
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.adapters.redis.breakers import BreakerStore
from gateway.app.sources import new_request_id
from gateway.app.stores import Stores
from gateway.config import Config
from gateway.core.guard.breaker import BreakerPolicy, State
from gateway.proxy.breakers import Breakers
from gateway.proxy.http1.client import Pool
from gateway.proxy.prober import Prober

# Beyond the time of the probe itself: its lease must not end while it runs.
LEASE_MARGIN_MS = 2_000


def breaker_store(config: Config, stores: Stores) -> BreakerStore:
    return BreakerStore(stores.link, stores.scripts, breaker_policy(config))


def breakers_of(config: Config, stores: Stores, pool: Pool) -> Breakers:
    probe_ms = config.breaker.probe_timeout_ms
    return Breakers(
        breaker_store(config, stores),
        Prober(pool, upstream_key=config.upstream_key, timeout_s=probe_ms / 1000),
        breaker_policy(config),
        probe_lease_ms=probe_ms + LEASE_MARGIN_MS,
        gateway_id=new_request_id(),
        clock_ms=lambda: time.monotonic_ns() // 1_000_000,
        chance=random.random,
    )


def breaker_policy(config: Config) -> BreakerPolicy:
    section = config.breaker
    return BreakerPolicy(
        enabled=section.enabled,
        window_ms=section.window_ms,
        bucket_ms=section.bucket_ms,
        volume_min=section.volume_min,
        failure_rate=section.failure_percent / 100,
        streak=section.streak,
        open_ms=section.open_ms,
        open_ms_max=section.open_ms_max,
        jitter=section.jitter_percent / 100,
        probes_max=section.probes_max,
        successes_to_close=section.successes_to_close,
        error_weight=section.error_weight,
        timeout_weight=section.timeout_weight,
        throttled_weight=section.throttled_weight,
        unreachable_weight=section.unreachable_weight,
    )


def breaker_metrics(breakers: Breakers) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "tollgate_breaker_state", "1 for the state that a breaker is in.", labels=["breaker", "state"]
    )
    for name, current in breakers.states():
        for state in State:
            states.add_metric([name, state], float(state is current))
    yield states
    openings = CounterMetricFamily("tollgate_breaker_openings", "Openings that were seen here.", labels=["breaker"])
    for name, count in breakers.openings.items():
        openings.add_metric([name], count)
    yield openings
    probes = CounterMetricFamily(
        "tollgate_probes", "The operator's own requests after an opening.", labels=["breaker", "answered"]
    )
    for (name, answered), count in breakers.probes.items():
        probes.add_metric([name, str(answered).lower()], count)
    yield probes

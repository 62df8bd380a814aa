"""What /metrics shows: gauges and counters read from the running parts at the moment of the scrape."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.core.guard.policy import Controls
from gateway.proxy.tally import Tally

Gauge = Callable[[], float]


class _Parts(Collector):
    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def registry(collect: Callable[[], Iterator[Metric]]) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(_Parts(collect))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made


def gauges(values: dict[str, tuple[str, Gauge]]) -> Iterator[Metric]:
    """Families of one sample each: name → (help, current value)."""
    for name, (documentation, value) in values.items():
        yield GaugeMetricFamily(name, documentation, value())


def counters(values: dict[str, tuple[str, Gauge]]) -> Iterator[Metric]:
    for name, (documentation, value) in values.items():
        yield CounterMetricFamily(name, documentation, value())


def tally_metrics(tally: Tally) -> Iterator[Metric]:
    calls = CounterMetricFamily("tollgate_calls", "Settled calls.", labels=["endpoint", "outcome"])
    for (endpoint, outcome), count in tally.calls.items():
        calls.add_metric([endpoint, outcome], count)
    yield calls
    refusals = CounterMetricFamily("tollgate_refusals", "Requests the gateway refused.", labels=["code"])
    for code, count in tally.refusals.items():
        refusals.add_metric([code], count)
    yield refusals
    flags = CounterMetricFamily("tollgate_flagged", "Settlements that want a second look.", labels=["flag"])
    for flag, count in tally.flags.items():
        flags.add_metric([flag], count)
    yield flags
    sessions = CounterMetricFamily("tollgate_unmetered_sessions", "Sessions relayed unmetered, ended.", labels=["end"])
    for end, count in tally.sessions.items():
        sessions.add_metric([end], count)
    yield sessions
    yield CounterMetricFamily("tollgate_captured_ucr", "Micro-credits captured.", tally.captured_ucr)
    yield CounterMetricFamily("tollgate_shadow_ucr", "Micro-credits of shadow calls, not charged.", tally.shadow_ucr)


def controls_metrics(controls: Controls) -> Iterator[Metric]:
    flags = GaugeMetricFamily("tollgate_flag_set", "1 for a flag that somebody has set.", labels=["flag"])
    for flag in controls.flags.set_flags() if controls.flags is not None else ():
        flags.add_metric([flag.name], 1.0)
    yield flags
    brownouts = GaugeMetricFamily("tollgate_brownout_level", "The level of a brownout in force.", labels=["models"])
    for brownout in controls.brownouts.brownouts if controls.brownouts is not None else ():
        brownouts.add_metric([brownout.models], float(brownout.level))
    yield brownouts

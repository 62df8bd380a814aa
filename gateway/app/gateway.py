"""One data-plane process, built out of its parts: the public listener and the loops beside the calls."""

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path

from prometheus_client.core import Metric

from gateway.adapters.journal import Journal, JournalFull
from gateway.adapters.openai.tokens import Tokenizer
from gateway.adapters.postgres.callers import CallerDirectory, KeysAndTokens
from gateway.adapters.postgres.controls import ControlsFollower
from gateway.adapters.postgres.usage_reports import UsageReports
from gateway.app.breakers import breaker_metrics, breakers_of
from gateway.app.brownouts import brownout_rules
from gateway.app.caps import CapParts
from gateway.app.identity import token_callers
from gateway.app.payments import stripe_parts
from gateway.app.public import control_plane
from gateway.app.sources import RequestIds, new_request_id, now_ms
from gateway.app.stores import Stores
from gateway.config import Config, ConfigError
from gateway.core.access.callers import Scope
from gateway.core.calls.slices import Sizes
from gateway.core.errors import GatewayError
from gateway.core.holds import Settlement
from gateway.core.pricing.schedule import Schedule
from gateway.loops import every
from gateway.proxy.breaker_notices import BreakerNotices
from gateway.proxy.exchange import Callers, Exchange
from gateway.proxy.follow import ShardFollower
from gateway.proxy.http1.client import Pool as UpstreamPool
from gateway.proxy.http1.handover import Handover
from gateway.proxy.http1.limits import Limits, Timeouts
from gateway.proxy.http1.server import Server
from gateway.proxy.http1.tls import client_context
from gateway.proxy.http1.tunnel import TunnelBounds
from gateway.proxy.leases import Leases
from gateway.proxy.readiness import Readiness
from gateway.proxy.realtime import SessionBounds, Sessions
from gateway.proxy.relay import Disconnect, Relay
from gateway.proxy.reporting import Reporting
from gateway.proxy.settlements import Settlements
from gateway.proxy.slicing import Slicer
from gateway.proxy.strangers import Strangers
from gateway.proxy.tally import Tally
from gateway.web.metrics import controls_metrics, counters, gauges, tally_metrics
from gateway.web.public import protocol_of

BREAKER_NOTICES_S = 1.0


class Gateway:
    """One data-plane process: the public listener, its operations listener, and the loops beside the calls."""

    def __init__(
        self, config: Config, stores: Stores, cards: Schedule, journal: Journal, spooled: list[Settlement]
    ) -> None:
        self._config = config
        self._stores = stores
        self.tally = Tally()
        self.tokenizer = Tokenizer(counted_bytes_max=config.tokenizer.counted_bytes_max)
        self.callers = CallerDirectory(
            stores.pool,
            cached_keys_max=config.callers.cached_keys_max,
            unknown_key_ttl_s=config.callers.unknown_key_ttl_ms / 1000,
            stale_s_max=config.callers.stale_s_max,
            poll_s=config.callers.poll_ms / 1000,
            clock=time.monotonic,
            now_ms=now_ms,
        )
        self.controls = ControlsFollower(
            stores.pool, read_timeout_s=config.controls.read_timeout_ms / 1000, now_ms=now_ms
        )
        self.caps = CapParts(config, stores)
        self.leases = Leases(
            stores.credits,
            stores.recovery.load_account,
            self.caps.counting.count,
            self.caps.counting.is_unsure,
            renew_s=config.holds.renew_ms / 1000,
            clock=time.monotonic,
        )
        self.settlements = Settlements(
            stores.credits,
            journal,
            stores.ledger,
            stores.recovery.load_account,
            retained_max=config.settlement.retained_max,
        )
        self.settlements.adopt(spooled)
        self.pool = _upstream_pool(config)
        self.relay = Relay(
            self.pool,
            upstream_key=config.upstream_key,
            disconnect=_disconnect(config),
            answer_buffer_bytes_max=config.upstream.answer_buffer_bytes_max,
            tally=self.tally,
        )
        self.breakers = breakers_of(config, stores, self.pool)
        self._breaker_notices = BreakerNotices(self.breakers.states, stores.notices)
        self.rules = brownout_rules(config, stores, self.controls.snapshot)
        self.sessions = _sessions(config, self.relay, self.tally)
        self.ready = Readiness(
            stores.link,
            stores.credits,
            stores.outbox,
            backlog_events_max=config.settlement.ready_backlog_events_max,
            memory_percent_max=config.redis.ready_memory_percent_max,
        )
        edge = config.edge
        self.stripe = stripe_parts(config, stores)
        self._tokens = token_callers(config, stores)
        everybody = self.callers if self._tokens is None else KeysAndTokens(self.callers, self._tokens)
        self._public = control_plane(
            config,
            stores,
            everybody,
            self.stripe,
            self.controls.snapshot,
            self._reporting(),
            cards,
            is_ready=lambda: not self.ready.missing,
        )
        make_protocol = protocol_of(
            self._public, head_bytes_max=edge.head_bytes_max, header_count_max=edge.header_count_max
        )
        self.exchange = self._exchange_of(
            cards,
            everybody if Scope.CALLS in config.identity.scopes else self.callers,
            Handover(make_protocol, body_bytes_max=edge.control_body_bytes_max),
        )
        self.server = Server(self.exchange, _edge_limits(config), on_refused=self._edge_refused)
        self._follower = ShardFollower(stores.ledger, stores.credits, self.leases, self.settlements)

    def _reporting(self) -> Reporting:
        return Reporting(
            UsageReports(self._stores.pool),
            self.leases,
            self.settlements,
            self._stores.ledger,
            self.caps.directory,
            controls=self.controls.snapshot,
            new_id=new_request_id,
            now_ms=now_ms,
            at_once_max=self._config.reports.at_once_max,
        )

    def _exchange_of(self, cards: Schedule, callers: Callers, control: Handover) -> Exchange:
        config, edge = self._config, self._config.edge
        return Exchange(
            callers=callers,
            caps=self.caps.directory,
            cards=cards,
            leases=self.leases,
            settlements=self.settlements,
            relay=self.relay,
            slicer=_slicer(config, self.leases, self.tokenizer),
            breakers=self.breakers,
            rules=self.rules,
            sessions=self.sessions,
            control=control,
            tokenizer=self.tokenizer,
            tally=self.tally,
            strangers=Strangers(
                failures_per_minute=edge.failed_keys_per_minute_max,
                guarded_per_minute=edge.guarded_per_minute_max,
                addresses_max=edge.addresses_max,
                clock=time.monotonic,
            ),
            body_bytes_max=edge.body_bytes_max,
            bodies_bytes_max=edge.bodies_bytes_max,
            auto_tier=config.estimate.auto_service_tier,
            controls=self.controls.snapshot,
            new_id=RequestIds(),
            now_ms=now_ms,
            missing=lambda: self.ready.missing,
            trusted_proxies=edge.trusted_proxies,
        )

    async def start(self, host: str, port: int, listener: socket.socket | None = None) -> str:
        """Listen for the public; returns "host:port". Raises OSError."""
        await self.controls.step()  # nothing is served that is switched off
        await self._public.setup()
        await self.caps.start()
        return await self.server.start(host, port, sock=listener)

    def control_routes(self) -> list[tuple[str, str]]:
        """(method, path) of everything that the control plane serves here."""
        routes = (each for each in self._public.app.router.routes() if each.method != "HEAD")
        return [(each.method, each.resource.canonical) for each in routes if each.resource is not None]

    def _edge_refused(self, error: GatewayError) -> list[tuple[bytes, bytes]]:
        self.tally.refused(error.code)
        return [(b"x-gateway-request-id", new_request_id().encode())]

    def loops(self) -> list[Coroutine[None, None, None]]:
        settlement = self._config.settlement
        return [
            self.callers.run(),
            *([] if self._tokens is None else [self._tokens.run()]),
            every(self._config.controls.poll_ms / 1000, "follow controls", self.controls.step),
            *self.caps.loops(),
            # Looked at often enough that a renewal, due at half the lease, is never too late.
            every(min(1.0, self._config.holds.renew_ms / 4000), "renew", self.leases.renew_due),
            every(settlement.position_poll_ms / 1000, "follow", self._follower.step),
            every(settlement.replay_ms / 1000, "replay", self.settlements.replay_spooled),
            every(self._config.breaker.flush_ms / 1000, "share breakers", self.breakers.step),
            every(BREAKER_NOTICES_S, "tell of breakers", self._breaker_notices.step),
            every(self._config.brownout.rule_ms / 1000, "brownout rules", self.rules.step),
            self.ready.run(),
        ]

    async def readiness(self) -> str:
        return "shutting down" if self.exchange.is_stopping else self.ready.missing

    def metrics(self) -> Iterator[Metric]:
        yield from tally_metrics(self.tally)
        yield from breaker_metrics(self.breakers)
        yield from controls_metrics(self.controls.snapshot())
        yield from counters(
            {
                "tollgate_lost_settlements": (
                    "Settlements in no outbox and no ledger; each is logged in full.",
                    lambda: self.settlements.lost,
                )
            }
        )
        yield from gauges(
            {
                "tollgate_controls_stale_seconds": ("Age of what is known of flags.", lambda: self.controls.stale_s),
                "tollgate_open_holds": ("Holds this gateway has open.", lambda: len(self.leases)),
                "tollgate_retained": ("Settlements kept until Postgres has them.", lambda: self.settlements.retained),
                "tollgate_outbox_events": ("Events that wait to be posted.", lambda: self.ready.backlog_events),
                "tollgate_spooled": ("Settlements in the journal, for Redis.", lambda: self.settlements.spooled),
                "tollgate_redis_available": ("1 when Redis answers.", lambda: float(self._stores.link.available)),
                "tollgate_draining": ("Answers read to their end, caller gone.", lambda: self.relay.draining),
                "tollgate_sessions": ("Realtime sessions that are relayed unmetered.", lambda: len(self.sessions)),
                "tollgate_connections": ("Open client connections.", lambda: self.server.connections),
            }
        )

    async def stop(self) -> None:
        """Take no new calls, let the running ones finish within their time, end the rest; all are then settled."""
        self.exchange.is_stopping = True
        drain_s = self._config.edge.drain_s
        # Just before the server cuts the callers that are left, so that their upstreams are not drained for minutes.
        cutting = asyncio.get_running_loop().call_later(drain_s, self.relay.stop_draining)
        await self.server.stop_accepting()
        await self.server.drain(drain_s)
        cutting.cancel()
        await self._public.cleanup()
        if self.stripe is not None:
            await self.stripe.close()
        await self.breakers.close()
        await self.settlements.close()
        await self.pool.close()
        self.tokenizer.close()


def _upstream_pool(config: Config) -> UpstreamPool:
    upstream = config.upstream
    return UpstreamPool(
        config.upstream_url,
        timeouts=Timeouts(
            connect_s=upstream.connect_timeout_ms / 1000,
            head_s=upstream.head_timeout_ms / 1000,
            body_idle_s=upstream.body_idle_timeout_ms / 1000,
            idle_s=upstream.connection_idle_ms / 1000,
            age_s_max=upstream.connection_age_ms / 1000,
        ),
        connections_max=upstream.connections_max,
        ssl=client_context() if config.upstream_url.startswith("https://") else None,
    )


def _slicer(config: Config, leases: Leases, tokenizer: Tokenizer) -> Slicer:
    slices = config.slices
    sizes = Sizes(tuple(slices.models), slices.output_tokens, slices.output_tokens_min, slices.ahead_tokens)
    return Slicer(leases, tokenizer, sizes, wait_s=slices.wait_ms / 1000, clock=time.monotonic)


def _disconnect(config: Config) -> Disconnect:
    policy = config.disconnect
    return Disconnect(0.0, 0) if policy.policy == "cancel" else Disconnect(policy.drain_s, policy.drains_max)


def _sessions(config: Config, relay: Relay, tally: Tally) -> Sessions:
    realtime = config.realtime
    tunnel = TunnelBounds(
        idle_s=realtime.idle_timeout_ms / 1000,
        total_s=realtime.session_s_max,
        closing_s=realtime.closing_timeout_ms / 1000,
    )
    return Sessions(
        relay,
        selling=realtime.sessions,
        bounds=SessionBounds(realtime.sessions_max, realtime.recheck_ms / 1000, tunnel),
        tally=tally,
    )


def _edge_limits(config: Config) -> Limits:
    edge = config.edge
    return Limits(
        connections_max=edge.connections_max,
        head_bytes_max=edge.head_bytes_max,
        header_count_max=edge.header_count_max,
        head_timeout_s=edge.head_timeout_ms / 1000,
        body_idle_timeout_s=edge.body_idle_timeout_ms / 1000,
        write_stall_timeout_s=edge.write_stall_timeout_ms / 1000,
        bytes_per_s_min=edge.bytes_per_s_min,
        keepalive_timeout_s=edge.keepalive_timeout_ms / 1000,
        write_high_water_bytes=edge.write_high_water_bytes,
    )


def open_journal(config: Config) -> tuple[Journal, list[Settlement]]:
    """This process' journal, and what it and those of dead processes hold."""
    folder = Path(config.spool_dir or ".tollgate/spool")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        journal = Journal(folder / f"gateway-{new_request_id()}.journal", bytes_max=config.settlement.journal_bytes_max)
        return journal, journal.adopt_all()
    except OSError as error:
        raise ConfigError(f"spool_dir: {folder}: {error.strerror}; name a writable directory") from error
    except JournalFull as error:
        raise ConfigError(f"spool_dir: {folder}: {error}; raise settlement.journal_bytes_max") from error

"""The ledger in Postgres: what is posted, where each outbox stands, and the one transaction that posts a batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from gateway.adapters.postgres.database import SYSTEM, Connection, Pool, load_queries, outages
from gateway.core.accounting.ledger import CUSTOMER_BUCKETS, Buckets, Entries
from gateway.core.accounting.posting import Claim, DeadLetter, Event, Known, Line, Plan, Position, dead, plan
from gateway.core.holds import Phase
from gateway.core.money import MicroCredits
from gateway.core.shards import SHARDS

Events = Sequence[Event | DeadLetter]


class ShardState(msgspec.Struct, frozen=True):
    epoch: int
    is_rebuilding: bool
    position: Position


class Posted(msgspec.Struct):
    """What one transaction wrote."""

    events: int = 0  # posted for the first time
    repeated: int = 0  # known already: nothing was written
    rows: int = 0  # transfers, entries and usage lines
    dead: list[str] = []  # the reasons of new dead letters
    credited: set[str] = set()  # accounts with a new movement for Redis
    stale: set[int] = set()  # shards that had moved on: none of their events was looked at
    rolled_back: set[int] = set()  # shards that must be rebuilt, and are marked so
    positions: dict[int, Position] = {}  # where each shard stands now


class Ledger:
    """Reads and writes the ledger. `new_id` makes the ids of transfers that are not a request's own."""

    def __init__(self, pool: Pool, *, new_id: Callable[[], str]) -> None:
        self._pool = pool
        self._new_id = new_id
        self._sql = load_queries("ledger")

    async def ended(self, request_ids: list[str]) -> set[str]:
        """Those whose end is posted and final. A lapse is not: its late settlement still corrects it."""
        with outages():
            rows = await self._pool.fetch(self._sql["ended"], request_ids)
        return {str(row["request_id"]) for row in rows}

    async def quarantined(self, request_ids: list[str]) -> set[str]:
        """Those with an event that could not be posted, and is kept as a dead letter."""
        with outages():
            rows = await self._pool.fetch(self._sql["quarantined"], request_ids)
        return {row["request_id"] for row in rows}

    async def lapses(self, request_ids: list[str]) -> dict[str, MicroCredits]:
        """Those whose end is a lapse that nothing has corrected yet, with what it charged."""
        with outages():
            rows = await self._pool.fetch(self._sql["lapses"], request_ids)
        return {str(row["request_id"]): row["charged"] for row in rows}

    async def shards(self) -> list[ShardState]:
        """Where each of the shards stands, by number; raises `LedgerUnavailable`."""
        with outages():
            rows = await self._pool.fetch(self._sql["positions"])
        assert len(rows) == SHARDS
        return [
            ShardState(row["epoch"], row["is_rebuilding"], Position(row["position_epoch"], row["position_seq"]))
            for row in rows
        ]

    async def positions(self) -> list[Position]:
        """The last posted event of each shard, by number; raises `LedgerUnavailable`."""
        return [state.position for state in await self.shards()]

    async def ensure_partitions(self, months_ahead: int) -> int:
        """Make the partitions that are missing; returns how many."""
        with outages():
            made: int = await self._pool.fetchval(self._sql["ensure_partitions"], months_ahead)
        return made

    async def post(
        self, connection: Connection, events: Events, *, after: Mapping[int, Position] | None = None
    ) -> Posted:
        """Post `events` in one transaction, in their order; events that are posted already change nothing.

        `after` says for each shard which event the given ones follow on. A shard that stands elsewhere by now has
        another writer: its events are left to it (`stale`). Without `after`, order and gaps are not checked.
        An event that Postgres refuses becomes a dead letter, and the others are posted.
        """
        with outages():
            try:
                return await self._post(connection, events, after)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError) as error:
                if len(events) > 1:
                    return await self._post_halves(connection, events, after)
                (event,) = events
                if isinstance(event, DeadLetter):
                    raise
                return await self._post(connection, [dead(event, f"refused: {str(error)[:200]}")], after)

    async def _post_halves(
        self, connection: Connection, events: Events, after: Mapping[int, Position] | None
    ) -> Posted:
        middle = len(events) // 2
        first = await self.post(connection, events[:middle], after=after)
        if after is not None:
            after = {**after, **first.positions}
        rest = [event for event in events[middle:] if event.shard not in first.stale]
        second = await self.post(connection, rest, after=after) if rest else Posted()
        return Posted(
            first.events + second.events,
            first.repeated + second.repeated,
            first.rows + second.rows,
            first.dead + second.dead,
            first.credited | second.credited,
            first.stale | second.stale,
            first.rolled_back | second.rolled_back,
            first.positions | second.positions,
        )

    async def _post(self, connection: Connection, events: Events, after: Mapping[int, Position] | None) -> Posted:
        async with connection.transaction():
            shards = sorted({event.shard for event in events})
            stands = {row["id"]: row for row in await connection.fetch(self._sql["lock_shards"], shards)}
            at = {shard: Position(row["position_epoch"], row["position_seq"]) for shard, row in stands.items()}
            stale = {shard for shard in shards if after is not None and at[shard] != after[shard]}
            fresh = [event for event in events if event.shard not in stale]
            known = await self._known(connection, fresh)
            known.epochs = {shard: row["epoch"] for shard, row in stands.items()}
            known.positions = dict(at) if after is not None else {}
            made = plan(fresh, known, self._new_id)
            posted = await self._write(connection, made)
            for event in fresh:
                at[event.shard] = max(at[event.shard], event.position)
            await connection.execute(
                self._sql["advance_shards"], list(at), [p.epoch for p in at.values()], [p.seq for p in at.values()]
            )
            if made.rolled_back:
                await connection.execute(self._sql["mark_for_rebuild"], list(made.rolled_back))
        posted.stale, posted.rolled_back = stale, made.rolled_back
        posted.positions = {shard: position for shard, position in at.items() if shard not in stale}
        return posted

    async def _known(self, connection: Connection, events: Events) -> Known:
        readable = [event for event in events if isinstance(event, Event)]
        requests = list({event.request_id for event in readable})
        claims = {
            (str(row["request_id"]), Phase(row["phase"])): Claim(
                row["kind"], Position(row["epoch"], row["seq"]), row["fingerprint"]
            )
            for row in await connection.fetch(self._sql["claims"], requests)
        }
        accounts = list({event.account_id for event in readable})
        buckets = {
            str(row["account_id"]): Buckets(row["promo"], row["paid"], row["debt"])
            for row in await connection.fetch(self._sql["buckets"], accounts)
            if str(row["account_id"]) != SYSTEM
        }
        lapsed = [request for (request, phase), claim in claims.items() if phase is Phase.END and claim.kind == "lapse"]
        taken = {}
        if lapsed:
            for row in await connection.fetch(self._sql["taken"], lapsed):
                taken[str(row["transfer_id"])] = Buckets(row["promo"], row["paid"], row["debt"])
        return Known(epochs={}, buckets=buckets, claims=claims, taken=taken, positions={})

    async def _write(self, connection: Connection, made: Plan) -> Posted:
        posted = Posted(events=len(made.lines), repeated=made.repeated)
        if made.lines:
            await connection.execute(self._sql["insert_idem"], *_columns(map(_idem_row, made.lines)))
            await connection.execute(self._sql["insert_usage"], *_columns(map(_usage_row, made.lines)))
            posted.rows = len(made.lines)
        shadows = [row for line in made.lines for row in _shadow_rows(line)]
        if shadows:
            await connection.execute(self._sql["insert_shadow_entries"], *_columns(shadows))
            posted.rows += len(shadows)
        transfers = [line for line in made.lines if line.entries]
        if transfers:
            await connection.execute(self._sql["insert_transfers"], *_columns(map(_transfer_row, transfers)))
            rows = [
                row
                for line in transfers
                for row in entry_rows(line.transfer_id, line.event.shard, line.event.account_id, line.entries)
            ]
            await self.write_entries(connection, rows)
            posted.rows += len(transfers) + len(rows)
        if made.dead_letters:
            new = await connection.fetch(self._sql["insert_dead_letters"], *_columns(map(_dead_row, made.dead_letters)))
            posted.dead = [row["reason"] for row in new]
        for account_id in sorted(made.repaid):
            await connection.fetchval(self._sql["credit"], account_id, made.repaid[account_id])
        posted.credited = set(made.repaid)
        return posted

    async def reconcile(self, connection: Connection, event: Event, *, is_posted: bool) -> None:
        """Queue for Redis what makes it agree about a decided dead letter: it debited it in its own epoch alone."""
        (row,) = await connection.fetch(self._sql["lock_shards"], [event.shard])
        is_debited = event.position.epoch == row["epoch"]
        if event.charged and is_debited != is_posted:
            amount = event.charged if is_debited else -event.charged
            await connection.fetchval(self._sql["credit"], event.account_id, amount)

    async def write_entries(self, connection: Connection, rows: "list[EntryRow]") -> None:
        """Insert entries and move the balances by them; their shards must be locked."""
        await connection.execute(self._sql["insert_entries"], *_columns(rows))
        moved: dict[tuple[int, str, str], MicroCredits] = {}
        for _, _, shard, account_id, bucket, amount in rows:
            place = (shard, account_id, bucket)
            moved[place] = moved.get(place, 0) + amount
        given = [(*place, amount) for place, amount in moved.items()]
        status = await connection.execute(self._sql["add_to_balances"], *_columns(given))
        assert status == f"UPDATE {len(given)}", "a balance row is missing"

    async def write_transfer(
        self,
        connection: Connection,
        *,
        kind: str,
        shard: int,
        account_id: str,
        reason: str,
        event_at_ms: int,
        entries: Entries,
    ) -> str:
        """Write one transfer that no request made; its shard must be locked. Returns its id."""
        transfer_id = self._new_id()
        row = (transfer_id, kind, account_id, None, reason, event_at_ms)
        await connection.execute(self._sql["insert_transfers"], *_columns([row]))
        await self.write_entries(connection, entry_rows(transfer_id, shard, account_id, entries))
        return transfer_id


EntryRow = tuple[str, int, int, str, str, MicroCredits]


def entry_rows(transfer_id: str, shard: int, account_id: str, entries: Entries) -> list[EntryRow]:
    return [
        (
            transfer_id,
            line,
            shard,
            account_id if entry.bucket in CUSTOMER_BUCKETS else SYSTEM,
            entry.bucket.value,
            entry.amount,
        )
        for line, entry in enumerate(entries, 1)
    ]


def _columns(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows as columns: what unnest takes."""
    return [list(column) for column in zip(*rows, strict=True)]


def _idem_row(line: Line) -> tuple[Any, ...]:
    event = line.event
    return event.request_id, line.phase.value, event.kind, event.position.epoch, event.position.seq, event.fingerprint


def _transfer_row(line: Line) -> tuple[Any, ...]:
    event = line.event
    when = event.settlement.event_at_ms
    return line.transfer_id, line.transfer_kind.value, event.account_id, event.request_id, "", when


def _usage_row(line: Line) -> tuple[Any, ...]:
    settlement, terms = line.event.settlement, line.event.settlement.terms
    return (
        settlement.request_id,
        line.phase.value,
        terms.account_id,
        terms.key_id,
        terms.endpoint,
        terms.model,
        terms.rate_version,
        settlement.rate_key,
        settlement.outcome.value,
        msgspec.json.encode(settlement.usage).decode(),
        settlement.held,
        settlement.cost,
        line.charged,
        settlement.rounding,
        ",".join(settlement.flags),
        settlement.status,
        settlement.upstream_request_id,
        settlement.event_at_ms,
        terms.member_id,
    )


def _shadow_rows(line: Line) -> list[tuple[Any, ...]]:
    """What a shadow call would have cost, beside the books: no balance is made of these."""
    settlement = line.event.settlement
    if not settlement.terms.is_shadow or settlement.cost == 0:
        return []
    request_id, phase, cost = settlement.request_id, line.phase.value, settlement.cost
    return [
        (request_id, phase, 1, settlement.terms.account_id, "shadow_due", -cost),
        (request_id, phase, 2, SYSTEM, "shadow_revenue", cost),
    ]


def _dead_row(letter: DeadLetter) -> tuple[Any, ...]:
    position = letter.position
    return letter.shard, position.epoch, position.seq, letter.reason, letter.payload, letter.fingerprint

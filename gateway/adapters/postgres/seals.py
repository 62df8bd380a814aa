"""Seals over the ledger in Postgres: makes the next one, and verifies the whole chain against the rows it covers.

A transfer is sealed once every transaction that can still hold an earlier ordinal is over: that is known by waiting
for the transactions of a mark to end, so no lock is taken and no writer is ever held up.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import asyncpg
import msgspec

from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.core.accounting.seals import BEGINNING, LEAF_BYTES, Leaf, Seal, judge, seal_after

SEAL_LOCK = 7_077_004
SEALS_AT_ONCE = 20
ORDINAL_MAX = 2**63 - 1
FINDINGS_MAX = 100


class Mark(NamedTuple):
    """All ordinals up to `ordinal` are decided once no transaction before `transaction` runs any more."""

    ordinal: int
    transaction: int


class Verdict(msgspec.Struct, frozen=True):
    """What a verification found; `findings` are at most `FINDINGS_MAX`, and none is what is wanted."""

    seals: int
    transfers: int
    unsealed: int
    head: str  # of the newest seal, in hex; "" if there is none
    findings: tuple[str, ...]


class Seals:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sql = load_queries("seals")

    async def mark(self) -> Mark:
        """Where the ledger's ordinals stand; raises `LedgerUnavailable`, as all here."""
        with outages():
            # In this order: whoever has drawn an ordinal up to this one is then among the transactions.
            ordinal = await self._pool.fetchval(self._sql["last_ordinal"])
            return Mark(ordinal, await self._pool.fetchval(self._sql["newest_transaction"]))

    async def is_decided(self, mark: Mark) -> bool:
        with outages():
            oldest: int = await self._pool.fetchval(self._sql["oldest_transaction"])
        return oldest >= mark.transaction

    async def seal(self, mark: Mark, transfers_max: int) -> int:
        """Seal what follows on the newest seal, up to a decided mark; returns how many transfers that were."""
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                if not await connection.fetchval(self._sql["lock"], SEAL_LOCK):
                    return 0
                row = await connection.fetchrow(self._sql["newest_seal"])
                before = BEGINNING if row is None else _seal(row)
                rows = await connection.fetch(self._sql["leaves"], before.ordinal_last, mark.ordinal, transfers_max)
                if not rows:
                    return 0
                made = seal_after(before, rows[-1]["ordinal"], _leaves(rows))
                hashes = b"".join(leaf.hash for leaf in made.leaves)
                ids = [leaf.transfer_id for leaf in made.leaves]
                await connection.execute(
                    self._sql["insert_seal"], made.number, made.ordinal_last, ids, hashes, made.head
                )
        return len(rows)

    async def verify(self, *, known_head: str = "", on_progress: Callable[[int, int], None] | None = None) -> Verdict:
        """Recompute every seal from the ledger. `known_head`, of an older statement, must be one of the chain's.

        `on_progress` is told how many transfers were looked at, and how many there are.
        """
        with outages():
            async with (
                self._pool.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await self._verify(connection, known_head.lower(), on_progress or (lambda done, total: None))

    async def _verify(
        self, connection: Connection, known_head: str, on_progress: Callable[[int, int], None]
    ) -> Verdict:
        total = await connection.fetchval(self._sql["count_transfers"], 0, timeout=None)
        findings: list[str] = []
        before, seals, transfers, heads_known = BEGINNING, 0, 0, not known_head
        while rows := await connection.fetch(self._sql["seals_behind"], before.number, SEALS_AT_ONCE):
            for row in rows:
                seal = _seal(row)
                covered = await connection.fetch(
                    self._sql["leaves"], before.ordinal_last, seal.ordinal_last, ORDINAL_MAX, timeout=None
                )
                findings += judge(before, seal, _leaves(covered))
                before, seals, transfers = seal, seals + 1, transfers + len(covered)
                heads_known = heads_known or seal.head.hex() == known_head
            on_progress(transfers, total)
        if not heads_known:
            findings.append(f"no seal has the head {known_head}: the chain was made anew, or cut off before it")
        strays = await connection.fetch(self._sql["strays"], FINDINGS_MAX, timeout=None)
        findings += [f"transfer {row['transfer_id']} has an entry that no seal holds" for row in strays]
        unsealed = await connection.fetchval(self._sql["count_transfers"], before.ordinal_last)
        return Verdict(seals, transfers, unsealed, before.head.hex(), tuple(findings[:FINDINGS_MAX]))


def _leaves(rows: "Sequence[asyncpg.Record]") -> list[Leaf]:
    return [Leaf(str(row["id"]), row["leaf"]) for row in rows]


def _seal(row: "asyncpg.Record") -> Seal:
    hashes: bytes = row["leaves"]
    leaves = [
        Leaf(str(each), hashes[at : at + LEAF_BYTES])
        for each, at in zip(row["transfer_ids"], range(0, len(hashes), LEAF_BYTES), strict=True)
    ]
    return Seal(row["number"], row["ordinal_last"], tuple(leaves), row["head"])

"""Dead letters: events that Postgres could not take, for an operator to post after all or to give up, with a reason.

A letter is decided once, in the transaction that acts on it and that writes its line of the audit log; the decision
stays beside it for ever.
"""

from datetime import datetime

import asyncpg
import msgspec

from gateway.adapters.postgres.audit_log import AuditLog, Signature
from gateway.adapters.postgres.database import Connection, Pool, load_queries, outages
from gateway.adapters.postgres.ledger import Ledger
from gateway.adapters.redis.outbox import decode
from gateway.core.accounting.posting import Event

LETTERS_MAX = 1000


class DeadLetterError(Exception):
    """What is asked of a dead letter cannot be done; the message says why."""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter as an operator sees it. `fields` are the event's, as text."""

    id: int
    shard: int
    event_id: str  # its place in the outbox of its shard
    reason: str
    at: datetime
    state: str  # open, posted, dismissed
    decision_reason: str
    fields: dict[str, str]

    def event(self) -> Event | None:
        """The event that it holds, read anew; None where it still cannot be read, or never was one (a gap)."""
        raw = {name.encode(): value.encode() for name, value in self.fields.items()}
        read = decode(self.shard, self.event_id.encode(), raw)
        return read if isinstance(read, Event) else None


class DeadLetters:
    def __init__(self, pool: Pool, ledger: Ledger, audit_log: AuditLog) -> None:
        self._pool = pool
        self._ledger = ledger
        self._audit_log = audit_log
        self._sql = load_queries("dead_letters")

    async def list(self, *, with_decided: bool = False) -> list[Letter]:
        """The oldest that are open, at most `LETTERS_MAX`; raises `LedgerUnavailable`, as all here."""
        with outages():
            rows = await self._pool.fetch(self._sql["list"], None, with_decided, LETTERS_MAX)
        return [_letter(row) for row in rows]

    async def get(self, letter_id: int) -> Letter:
        with outages():
            row = await self._pool.fetchrow(self._sql["list"], letter_id, True, 1)
        if row is None:
            raise DeadLetterError(
                f"There is no dead letter {letter_id}; `tollgate ledger dead-letters list` shows them."
            )
        return _letter(row)

    async def count_open(self) -> int:
        with outages():
            counted: int = await self._pool.fetchval(self._sql["count_open"])
        return counted

    async def retry(self, letter_id: int, signature: Signature) -> Letter:
        """Post its event now, once; raises `DeadLetterError` where that is still refused, and changes nothing then."""
        signature = signature.checked()
        letter = await self.get(letter_id)
        event = letter.event()
        if event is None:
            raise DeadLetterError(f"Dead letter {letter_id} holds no event that can be posted ({letter.reason}).")
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await self._decide(connection, letter, "posted", signature)
                posted = await self._ledger.post(connection, [event])
                if not posted.events + posted.repeated:
                    why = posted.dead[0] if posted.dead else letter.reason
                    raise DeadLetterError(f"Dead letter {letter_id} is still refused: {why}.")
                if posted.events:
                    await self._ledger.reconcile(connection, event, is_posted=True)
        return await self.get(letter_id)

    async def dismiss(self, letter_id: int, signature: Signature) -> Letter:
        """Give it up: it is never posted, and what Redis debited for it goes back to the account."""
        signature = signature.checked()
        letter = await self.get(letter_id)
        event = letter.event()
        with outages():
            async with self._pool.acquire() as connection, connection.transaction():
                await self._decide(connection, letter, "dismissed", signature)
                if event is not None and await connection.fetchval(self._sql["account_exists"], event.account_id):
                    await self._ledger.reconcile(connection, event, is_posted=False)
        return await self.get(letter_id)

    async def _decide(self, connection: Connection, letter: Letter, decision: str, signature: Signature) -> None:
        try:
            await connection.execute(self._sql["decide"], letter.id, decision, signature.reason)
        except asyncpg.UniqueViolationError as error:
            raise DeadLetterError(f"Dead letter {letter.id} is decided already.") from error
        named = {name: letter.fields.get(name, "") for name in ("account", "request_id", "cost")}
        await self._audit_log.append(
            connection,
            signature,
            f"dead_letter.{decision}",
            f"dead_letter:{letter.id}",
            before=named | {"state": "open", "reason": letter.reason},
            after=named | {"state": decision},
        )


def _letter(row: "asyncpg.Record") -> Letter:
    return Letter(
        id=row["id"],
        shard=row["shard"],
        event_id=f"{row['epoch']}-{row['seq']}",
        reason=row["reason"],
        at=row["at"],
        state=row["state"],
        decision_reason=row["decision_reason"],
        fields=msgspec.json.decode(row["payload"], type=dict[str, str]),
    )

"""Brings raised notices to their targets: each delivery on its own, later and later if it fails, then given up."""

import asyncio
import time
from datetime import UTC

import msgspec
import structlog

from gateway.adapters.notify import NotSent, Sender
from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.notices import Due, Notices
from gateway.core.backoff import backoff_s
from gateway.core.guard.notices import Kind, Templates

log = structlog.get_logger(__name__)

LEASE_S_MARGIN = 30.0  # beyond the time that sending may take
REMOVED = "the target is removed"


class Notifier:
    def __init__(
        self,
        notices: Notices,
        sender: Sender,
        templates: Templates,
        *,
        at_once_max: int,
        attempts_max: int,
        timeout_s: float,
        retry_first_s: int,
        retry_longest_s: int,
    ) -> None:
        self._notices = notices
        self._sender = sender
        self._templates = templates
        self._at_once_max = at_once_max
        self._attempts_max = attempts_max
        self._lease_s = timeout_s + LEASE_S_MARGIN
        self._retry_first_s = retry_first_s
        self._retry_longest_s = retry_longest_s
        self.sent_total = 0
        self.retried_total = 0

    async def step(self) -> int:
        """Deliver what is due, several at a time; returns how many were tried."""
        due = await self._notices.claim(self._at_once_max, self._lease_s)
        await asyncio.gather(*(self._deliver(delivery) for delivery in due))
        return len(due)

    async def tidy(self) -> int:
        await self._notices.forget_quiet()
        return 0

    async def _deliver(self, due: Due) -> None:
        """One attempt. If it cannot be written down how it went, the delivery is due again after its lease."""
        started = time.perf_counter()
        error = ""
        try:
            await self._send(due)
        except NotSent as failure:
            error = str(failure)
        took_ms = int((time.perf_counter() - started) * 1000)
        try:
            await self._write_down(due, error, took_ms)
        except LedgerUnavailable as failure:
            log.warning("notice waits for PostgreSQL", notice_id=due.notice_id, error=str(failure))

    async def _send(self, due: Due) -> None:
        if not due.is_wanted:
            raise NotSent(REMOVED)
        try:
            words = self._templates.write(Kind(due.kind), due.fields | {"account": due.account})
        except (ValueError, KeyError) as error:  # another version's, and no reason to keep others from theirs
            raise NotSent(f"this version has no words for it: {error}") from error
        if due.target_kind == "apprise":
            await self._sender.apprise(due.url, words)
            return
        body = {
            "id": due.notice_id,
            "kind": due.kind,
            "created_at": due.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
            "account": due.account_id,
            "subject": words.subject,
            "text": words.text,
            "fields": due.fields,
        }
        await self._sender.webhook(due.url, due.secret, msgspec.json.encode(body), due.notice_id)

    async def _write_down(self, due: Due, error: str, took_ms: int) -> None:
        told = {"notice_id": due.notice_id, "kind": due.kind, "attempts": due.attempts}
        if not error:
            self.sent_total += 1
            await self._notices.finish(due.id, "sent", error="", took_ms=took_ms)
            log.info("notice sent", **told)
        elif due.attempts >= self._attempts_max or error == REMOVED:
            await self._notices.finish(due.id, "dead", error=error, took_ms=took_ms)
            log.error("notice is given up", error=error, **told)
        else:
            self.retried_total += 1
            after_s = backoff_s(due.attempts, first_s=self._retry_first_s, longest_s=self._retry_longest_s)
            await self._notices.finish(due.id, "retrying", error=error, took_ms=took_ms, after_s=after_s)
            log.warning("notice is tried again", error=error, after_s=after_s, **told)

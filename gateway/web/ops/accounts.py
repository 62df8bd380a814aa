"""`/ops/accounts`, `/ops/reviews`, `/ops/corrections`: who uses how much, who is served, and balances."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec
from aiohttp import web

from gateway.adapters.postgres.account_desk import AccountDesk, AccountTerms, Spender
from gateway.adapters.postgres.accounts import Accounts
from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.corrections import Correction, Corrections
from gateway.adapters.postgres.reviews import Review, Reviews
from gateway.core.access.operators import Role
from gateway.core.accounting.ledger import TransferKind
from gateway.core.errors import InvalidRequest
from gateway.core.money import InvalidAmount, format_credits, parse_credits
from gateway.core.spans import read_span
from gateway.web.operations import Answer, Operation, Query, read_body
from gateway.web.ops.access import OperatorAccess
from gateway.web.pages import PAGING, limit_of

LIMIT = PAGING[0]


class SpenderShown(msgspec.Struct, frozen=True):
    """Credits are decimals. `shadow`: what shadow-billed calls would have cost."""

    account_id: str
    name: str
    status: str
    spend: str
    shadow: str
    calls: int
    flagged: int


class SpendersShown(msgspec.Struct, frozen=True):
    data: list[SpenderShown]


class AccountShown(msgspec.Struct, frozen=True):
    account_id: str
    name: str
    status: str
    balance: str
    plan: str
    priority: str
    time_zone: str
    on_disconnect: str


class StatusAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status: Literal["active", "suspended"]
    reason: str


class TermsAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is not given stays as it is."""

    reason: str
    plan: str | None = None
    priority: Literal["normal", "low"] | None = None
    time_zone: str | None = None
    on_disconnect: Literal["drain", "cancel"] | None = None


class ReasonAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reason: str


class ReviewsShown(msgspec.Struct, frozen=True):
    data: list[Review]


class CorrectionAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`credits` is a decimal; an adjustment may be negative. `account` is a name or an id."""

    account: str
    kind: Literal["adjustment", "write_off", "expiry"]
    credits: str
    reason: str


class CorrectionShown(msgspec.Struct, frozen=True):
    """`state` is proposed until a second person approves or rejects it; a small one is posted at once."""

    id: str
    account_id: str
    account: str
    kind: str
    credits: str
    reason: str
    author: str
    asked_at: datetime
    state: str
    decided_by: str | None
    decision_reason: str | None
    decided_at: datetime | None


class CorrectionsShown(msgspec.Struct, frozen=True):
    data: list[CorrectionShown]


class AccountsApi:
    def __init__(
        self, access: OperatorAccess, accounts: Accounts, desk: AccountDesk, reviews: Reviews, corrections: Corrections
    ) -> None:
        self._access = access
        self._accounts = accounts
        self._desk = desk
        self._reviews = reviews
        self._corrections = corrections

    def operations(self) -> list[Operation]:
        window = Query("window", {"type": "string", "default": "24h"}, "How far back: 30m, 24h, 7d.")
        everything = Query("all", {"type": "string", "enum": ["true", "false"]}, "Also what is decided.")
        one, review, correction = "/ops/accounts/{account}", "/ops/reviews/{reference}", "/ops/corrections/{id}"
        return [
            Operation("GET", "/ops/accounts/top", self.top, "By spend.", SpendersShown, query=(LIMIT, window)),
            Operation("GET", one, self.account, "An account, by name or id.", AccountShown),
            Operation("POST", f"{one}/status", self.set_status, "Stop or serve.", AccountShown, takes=StatusAsked),
            Operation("POST", f"{one}/terms", self.set_terms, "How it is treated.", AccountShown, takes=TermsAsked),
            Operation("GET", "/ops/reviews", self.reviews, "Reviews.", ReviewsShown, query=(LIMIT, everything)),
            Operation("POST", f"{review}/release", self.release, "End a review.", Review, takes=ReasonAsked),
            Operation(
                "GET", "/ops/corrections", self.corrections, "What waits for a second person.", CorrectionsShown,
                query=(LIMIT, everything),
            ),
            Operation("PUT", correction, self.ask, "Ask for one.", CorrectionShown, takes=CorrectionAsked),
            Operation("POST", f"{correction}/approve", self.approve, "Post it.", CorrectionShown, takes=ReasonAsked),
            Operation("POST", f"{correction}/reject", self.reject, "Give it up.", CorrectionShown, takes=ReasonAsked),
        ]  # fmt: skip

    async def top(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        try:
            window = read_span(request.query.get("window", "24h"))
        except ValueError as error:
            raise InvalidRequest(f"window: {error}.", param="window") from error
        return Answer(SpendersShown([_spender(each) for each in await self._desk.top(window, limit_of(request))]))

    async def account(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        return Answer(await self._shown(request.match_info["account"]))

    async def set_status(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), StatusAsked)
        account_id = (await self._accounts.find(request.match_info["account"])).id
        await self._desk.set_status(account_id, asked.status, Signature(operator.name, asked.reason))
        return Answer(await self._shown(account_id))

    async def set_terms(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), TermsAsked)
        terms = AccountTerms(
            plan=asked.plan, priority=asked.priority, time_zone=asked.time_zone, on_disconnect=asked.on_disconnect
        )
        if terms == AccountTerms():
            raise InvalidRequest("Nothing to set; give plan, priority, time_zone or on_disconnect.")
        account_id = (await self._accounts.find(request.match_info["account"])).id
        await self._desk.set_terms(account_id, terms, Signature(operator.name, asked.reason))
        return Answer(await self._shown(account_id))

    async def reviews(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        found = await self._reviews.listing(closed_too=_wants_all(request), count=limit_of(request))
        return Answer(ReviewsShown(found))

    async def release(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), ReasonAsked)
        reference = request.match_info["reference"].replace("\0", "")
        return Answer(await self._reviews.release(reference, Signature(operator.name, asked.reason)))

    async def corrections(self, request: web.Request) -> Answer:
        await self._access.operator(request, Role.VIEWER)
        found = await self._corrections.listing(decided_too=_wants_all(request), count=limit_of(request))
        return Answer(CorrectionsShown([_correction(each) for each in found]))

    async def ask(self, request: web.Request) -> Answer:
        """The id is the asker's, so that a repeated request corrects nothing twice."""
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), CorrectionAsked)
        try:
            amount = parse_credits(asked.credits)
        except InvalidAmount as error:
            raise InvalidRequest(f"credits: {error}.", param="credits") from error
        correction_id = _uuid(request.match_info["id"])
        account_id = (await self._accounts.find(asked.account)).id
        signature = Signature(operator.name, asked.reason)
        kind = TransferKind(asked.kind)
        return Answer(_correction(await self._corrections.ask(kind, account_id, amount, signature, correction_id)))

    async def approve(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), ReasonAsked)
        signature = Signature(operator.name, asked.reason)
        return Answer(_correction(await self._corrections.approve(request.match_info["id"], signature)))

    async def reject(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), ReasonAsked)
        signature = Signature(operator.name, asked.reason)
        return Answer(_correction(await self._corrections.reject(request.match_info["id"], signature)))

    async def _shown(self, name_or_id: str) -> AccountShown:
        found = await self._accounts.find(name_or_id)
        balance = (await self._accounts.balance(found.id)).total
        return AccountShown(
            found.id,
            found.name,
            found.status,
            format_credits(balance),
            found.plan,
            found.priority,
            found.time_zone,
            found.on_disconnect,
        )


def _wants_all(request: web.Request) -> bool:
    return request.query.get("all") == "true"


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError as error:
        raise InvalidRequest("A correction's id is a UUID that its asker makes.", param="id") from error


def _spender(each: Spender) -> SpenderShown:
    spend, shadow = format_credits(each.spend), format_credits(each.uncharged)
    return SpenderShown(each.account_id, each.account, each.status, spend, shadow, each.calls, each.flagged)


def _correction(each: Correction) -> CorrectionShown:
    values = msgspec.structs.asdict(each)
    return CorrectionShown(credits=format_credits(values.pop("amount")), **values)

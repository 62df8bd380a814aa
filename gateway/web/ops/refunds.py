"""`/ops/purchases/…/refunds`: money back for unused credit, on an operator's word."""

from typing import Literal

import msgspec
from aiohttp import web

from gateway.adapters.postgres.audit_log import Signature
from gateway.adapters.postgres.purchases import AccountMoved, AskedRefund, RefundTooLarge
from gateway.adapters.stripe.client import StripeRefused, StripeUnavailable
from gateway.core.access.operators import Role
from gateway.core.accounting.topups import Mismatch
from gateway.core.errors import BillingUnavailable, InvalidRequest
from gateway.core.money import InvalidAmount, parse_credits
from gateway.loops import OUTAGES
from gateway.web.api.purchases import PaymentsUnavailable
from gateway.web.idempotency import KEY_LENGTH_MAX
from gateway.web.operations import Answer, Operation, read_body
from gateway.web.ops.access import OperatorAccess
from gateway.workers.refunds import RefundRefused, Refunds


class RefundAsked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`credits` is a decimal; without it, all that are unused. The same `key` is the same refund."""

    key: str
    reason: str
    credits: str | None = None


class RefundShown(msgspec.Struct, frozen=True):
    """A refund that is still requested is under way."""

    id: str
    purchase_id: str
    cents: int
    state: Literal["requested", "made", "refused"]
    answer: str


class RefundsApi:
    def __init__(self, access: OperatorAccess, refunds: Refunds) -> None:
        self._access = access
        self._refunds = refunds

    def operations(self) -> list[Operation]:
        path = "/ops/purchases/{purchase}/refunds"
        return [Operation("POST", path, self.create, "Give money back.", RefundShown, 201, takes=RefundAsked)]

    async def create(self, request: web.Request) -> Answer:
        operator = await self._access.operator(request, Role.OPERATOR)
        asked = read_body(await request.read(), RefundAsked)
        if not 0 < len(asked.key) <= KEY_LENGTH_MAX or not asked.key.isprintable():
            raise InvalidRequest(f"key: give 1 to {KEY_LENGTH_MAX} printable characters.", param="key")
        try:
            credits = None if asked.credits is None else parse_credits(asked.credits)
        except InvalidAmount as error:
            raise InvalidRequest(f"credits: {error}.", param="credits") from error
        signature = Signature(operator.name, asked.reason).checked()
        purchase_id = request.match_info["purchase"]
        try:
            made = await self._refunds.create(purchase_id, credits, key=asked.key, signature=signature)
        except (RefundRefused, RefundTooLarge, StripeRefused, Mismatch) as error:
            raise InvalidRequest(f"Refused: {error}.") from error
        except (*OUTAGES, AccountMoved) as error:
            raise BillingUnavailable(retry_after_s=2) from error
        except StripeUnavailable as error:
            raise PaymentsUnavailable(retry_after_s=2) from error
        return Answer(_shown(made), 201)


def _shown(made: AskedRefund) -> RefundShown:
    return msgspec.convert(
        {
            "id": made.id,
            "purchase_id": made.purchase_id,
            "cents": made.cents,
            "state": made.state,
            "answer": made.answer,
        },
        RefundShown,
    )

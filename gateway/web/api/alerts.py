"""`/api/alerts`: when the account wants to be warned that its balance comes to an end."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.adapters.postgres.alerts import Alerts
from gateway.core.access.roles import may_manage_account
from gateway.core.errors import InvalidRequest, RoleNotAllowed
from gateway.core.guard.alerts import Wishes
from gateway.core.money import InvalidAmount, format_credits, parse_credits
from gateway.web.access import Access, signature_of
from gateway.web.operations import Answer, Operation, read_body

DAYS_MAX = 365

Days = Annotated[int, msgspec.Meta(ge=0, le=DAYS_MAX)]
Credits = Annotated[str, msgspec.Meta(max_length=40)]


class AlertsShown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Warn of a balance below so many credits (a decimal), or below so many days of usual use; 0: never."""

    below: Credits
    days: Days


class AlertsApi:
    def __init__(self, access: Access, alerts: Alerts) -> None:
        self._access = access
        self._alerts = alerts

    def operations(self) -> list[Operation]:
        path = "/api/alerts"
        return [
            Operation("GET", path, self.show, "When the account is warned.", AlertsShown),
            Operation("PUT", path, self.set, "Say when the account is to be warned.", AlertsShown, takes=AlertsShown),
        ]

    async def show(self, request: web.Request) -> Answer:
        caller = await self._access.reading(request)
        return Answer(shown(await self._alerts.wishes(caller.account_id)))

    async def set(self, request: web.Request) -> Answer:
        caller = await self._access.managing(request)
        if not may_manage_account(caller):
            raise RoleNotAllowed("Only an owner or an admin may say when the account is warned.")
        asked = read_body(await request.read(), AlertsShown)
        try:
            below = parse_credits(asked.below)
        except InvalidAmount as error:
            raise InvalidRequest(f"below: {error}.", param="below") from error
        if below < 0:
            raise InvalidRequest("below must not be negative; 0 is never.", param="below")
        return Answer(shown(await self._alerts.set(caller.account_id, signature_of(caller), below, asked.days)))


def shown(wishes: Wishes) -> AlertsShown:
    return AlertsShown(format_credits(wishes.below), wishes.days)

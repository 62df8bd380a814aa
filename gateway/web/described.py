"""Operations that are served on their own, described for the OpenAPI document as they answer."""

from typing import Any, Literal

import msgspec

from gateway.web.api.ledger import LINES
from gateway.web.openapi import File
from gateway.web.operations import Operation


class Status(msgspec.Struct):
    """Whether calls are served, and what operators have switched off."""

    status: Literal["ok", "unavailable"]
    banners: list[Any]
    version: str


DESCRIBED = (
    Operation("GET", "/api/status", None, "Whether calls are served.", Status, is_open=True),
    Operation("GET", "/billing/ledger/export.csv", None, "All of the ledger, the oldest line first.", File("text/csv"),
              query=LINES),
    Operation("GET", "/billing/statements/{month}.pdf", None, "A month's statement.", File("application/pdf")),
    Operation("GET", "/billing/statements/{month}.csv", None, "A month's statement.", File("text/csv")),
)  # fmt: skip

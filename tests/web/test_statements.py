"""Statements over HTTP: an account's own months, as a file."""

from datetime import UTC, datetime

import msgspec
import pytest

from gateway.core.accounting.statements import Statement
from gateway.web.statement_pdf import statement_pdf
from tests.proxy.stack import Stack
from tests.proxy.wire import Received, ask, request

MONTH = f"{datetime.now(UTC):%Y-%m}"


async def statement(stack: Stack, name: str, key: str | None = None) -> Received:
    path = f"/billing/statements/{name}"
    return await ask(stack.address, request(path, stack.key if key is None else key, method="GET"))


async def test_the_running_month_is_told_as_it_stands(stack: Stack) -> None:
    got = await statement(stack, f"{MONTH}.csv")
    assert (got.status, got.get(b"content-type")) == (200, b"text/csv; charset=utf-8")
    text = got.body.decode("utf-8-sig")
    assert f"{MONTH} (not closed yet)" in text
    assert "movement,grant,,1,100000,100000000000," in text


async def test_a_statement_is_a_pdf(stack: Stack) -> None:
    got = await statement(stack, f"{MONTH}.pdf")
    assert (got.status, got.get(b"content-type"), got.body[:5]) == (200, b"application/pdf", b"%PDF-")
    assert got.get(b"content-disposition") == f'attachment; filename="statement-{MONTH}.pdf"'.encode()


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("2999-01.pdf", 404),
        ("1999-01.csv", 404),
        ("2026-13.csv", 400),
        ("9999-12.csv", 400),
        ("2026-1.csv", 400),
        ("0000-01.csv", 400),
        (f"{MONTH}.txt", 404),
        ("..%2F2026-11.csv", 400),
    ],
)
async def test_what_is_no_month_of_the_account_is_refused(stack: Stack, name: str, status: int) -> None:
    got = await statement(stack, name)
    assert got.status == status
    assert msgspec.json.decode(got.body)["error"]["type"] == "invalid_request_error"


async def test_without_a_key_there_is_no_statement(stack: Stack) -> None:
    assert (await statement(stack, f"{MONTH}.pdf", "sk-tg-wrong")).status == 401


@pytest.mark.parametrize(
    ("name", "is_embedded"), [("Müller & Söhne", False), ("Żabka Łódź", True), ("ООО Ромашка", True)]
)
def test_a_name_in_other_letters_is_written_with_a_font_that_has_them(name: str, is_embedded: bool) -> None:
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    told = Statement("id", name, "2026-10", True, 0, (), 0, (), "ab" * 32, moment)
    drawn = statement_pdf(told, "cd" * 32)
    assert (b"DejaVuSans" in drawn) is is_embedded
    assert drawn == statement_pdf(told, "cd" * 32)

"""`GET /billing/statements/{yyyy-mm}.{pdf,csv}`: an account's own month."""

import asyncio

from aiohttp import web

from gateway.adapters.postgres.database import LedgerUnavailable
from gateway.adapters.postgres.statements import NoStatement, NotYetSealed, Statements, Told
from gateway.core.accounting.statements import BadMonth, read_month, statement_csv
from gateway.core.errors import BillingUnavailable, InvalidRequest, NotFound
from gateway.web.access import Access

TYPES = {"pdf": "application/pdf", "csv": "text/csv; charset=utf-8"}


def draw(told: Told, form: str) -> bytes:
    """The statement as a file of this form."""
    if form == "csv":
        return statement_csv(told.statement, told.hash).encode("utf-8-sig")
    from gateway.web.statement_pdf import statement_pdf  # slow to import, and most processes draw none

    return statement_pdf(told.statement, told.hash)


class StatementRoutes:
    def __init__(self, access: Access, statements: Statements) -> None:
        self._access = access
        self._statements = statements

    def routes(self) -> list[web.RouteDef]:
        return [web.get(r"/billing/statements/{month}.{form:pdf|csv}", self.show, allow_head=False)]

    async def show(self, request: web.Request) -> web.Response:
        caller = await self._access.reading(request)
        form = request.match_info["form"]
        try:
            told = await self._statements.tell(caller.account_id, read_month(request.match_info["month"]))
        except BadMonth as error:
            raise InvalidRequest(str(error), param="month") from error
        except NoStatement as error:
            raise NotFound(str(error)) from error
        except (NotYetSealed, LedgerUnavailable) as error:
            raise BillingUnavailable("The statement cannot be told right now.", retry_after_s=5) from error
        name = f"statement-{told.statement.month}.{form}"
        headers = {
            "Content-Type": TYPES[form],
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "private, no-store",
        }
        return web.Response(body=await asyncio.to_thread(draw, told, form), headers=headers)

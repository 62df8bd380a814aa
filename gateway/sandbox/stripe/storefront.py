"""The pages as a browser reaches them: forms are read, passed on, and answered by the next page or a redirect."""

from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from aiohttp import web

from gateway.sandbox.stripe import pages
from gateway.sandbox.stripe.cards import Kind, by_number
from gateway.sandbox.stripe.checkout_payment import pay_session
from gateway.sandbox.stripe.checkout_results import Payer
from gateway.sandbox.stripe.customers import update_customer
from gateway.sandbox.stripe.errors import StripeError
from gateway.sandbox.stripe.objects import (
    Charge,
    Customer,
    Invoice,
    PaymentIntent,
    PaymentMethod,
    PortalSession,
    Session,
    SetupIntent,
)
from gateway.sandbox.stripe.orders import authenticate
from gateway.sandbox.stripe.payment_methods import detach_payment_method, make
from gateway.sandbox.stripe.world import Thing, World

_KINDS: dict[str, Kind] = {"card": "card", "us_bank_account": "us_bank_account", "sepa_debit": "sepa_debit"}


class Storefront:
    """`now` gives the world at the present time; `happened` is called after anything may have changed."""

    def __init__(self, now: Callable[[], World], happened: Callable[[], None]) -> None:
        self._now = now
        self._happened = happened

    def routes(self) -> list[web.AbstractRouteDef]:
        return [
            web.get("/c/pay/{id}", self.show_payment),
            web.post("/c/pay/{id}", self.pay),
            web.get("/authenticate/{id}", self.show_challenge),
            web.post("/authenticate/{id}", self.answer_challenge),
            web.get("/p/session/{id}", self.show_portal),
            web.post("/p/session/{id}", self.change),
            web.get("/receipts/{id}", self.show_receipt),
            web.get("/invoices/{id}", self.show_invoice),
        ]

    async def show_payment(self, request: web.Request) -> web.Response:
        world = self._now()
        session = _found(world, Session, request)
        if session.status != "open":
            raise _page(410, pages.message_page("Nothing to pay", f"This Checkout Session is {session.status}."))
        return _html(_payment(world, session))

    async def pay(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        world = self._now()
        session = _found(world, Session, request)
        try:
            instrument = by_number(form.get("number", ""), _KINDS.get(form.get("kind", "card"), "card"))
            details = {"email": form.get("email"), "name": form.get("name"), "address": _address(form)}
            method = make(world, instrument, details)
            paid = pay_session(world, session.id, method, _payer(form))
        except StripeError as error:
            self._happened()
            page = _payment(world, world.get(Session, session.id), str(error), form.get("email", ""))
            return _html(page, status=error.status)
        self._happened()
        intent_id = paid.payment_intent or paid.setup_intent or ""
        if getattr(world.find(intent_id), "status", "") == "requires_action":
            raise web.HTTPSeeOther(f"/authenticate/{intent_id}")
        raise web.HTTPSeeOther(_returning(paid))

    async def show_challenge(self, request: web.Request) -> web.Response:
        intent = _intent(self._now(), request)
        if intent.status != "requires_action":
            raise _page(410, pages.message_page("Nothing to do", f"This payment has the status {intent.status}."))
        amount = f"of {pages.money(intent.amount, intent.currency)} " if isinstance(intent, PaymentIntent) else ""
        return _html(pages.challenge_page(f"Is it you who makes the payment {amount}to Tollgate?"))

    async def answer_challenge(self, request: web.Request) -> web.Response:
        form = await request.post()
        world = self._now()
        intent = _intent(world, request)
        asked = intent.next_action or {}
        passed = form.get("outcome") == "pass"
        try:
            moved = authenticate(world, intent.id, passed=passed)
        except StripeError as error:
            raise _page(error.status, pages.message_page("Not possible", str(error))) from error
        self._happened()
        if session_id := world.session_of.get(intent.id):
            session = world.get(Session, session_id)
            if session.status != "open":
                raise web.HTTPSeeOther(_returning(session))
            why = moved.last_payment_error if isinstance(moved, PaymentIntent) else moved.last_setup_error
            return _html(_payment(world, session, (why or {}).get("message", "")), status=402)
        back = (asked.get("redirect_to_url") or {}).get("return_url")
        if back is None:
            return _html(pages.message_page("Thank you", "You may close this page."))
        kind = "payment_intent" if isinstance(moved, PaymentIntent) else "setup_intent"
        secret = f"{kind}_client_secret"
        raise web.HTTPSeeOther(
            _with(back, {kind: moved.id, secret: moved.client_secret, "redirect_status": moved.status})
        )

    async def show_portal(self, request: web.Request) -> web.Response:
        world = self._now()
        return _html(_portal(world, _found(world, PortalSession, request)))

    async def change(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        world = self._now()
        session = _found(world, PortalSession, request)
        try:
            if method_id := form.get("detach"):
                if world.get(PaymentMethod, method_id).customer == session.customer:
                    detach_payment_method(world, method_id)
            else:
                update_customer(world, session.customer, name=form.get("name", ""), email=form.get("email", ""))
        except StripeError as error:
            raise _page(error.status, pages.message_page("Not possible", str(error))) from error
        self._happened()
        return _html(_portal(world, session))

    async def show_receipt(self, request: web.Request) -> web.Response:
        return _html(pages.receipt_page(_found(self._now(), Charge, request)))

    async def show_invoice(self, request: web.Request) -> web.Response:
        return _html(pages.invoice_page(_found(self._now(), Invoice, request)))


def _found(world: World, kind: type[Thing], request: web.Request) -> Thing:
    try:
        return world.get(kind, request.match_info["id"])
    except StripeError as error:
        raise _page(404, pages.message_page("Not found", str(error))) from error


def _intent(world: World, request: web.Request) -> PaymentIntent | SetupIntent:
    if request.match_info["id"].startswith("seti_"):
        return _found(world, SetupIntent, request)
    return _found(world, PaymentIntent, request)


def _payment(world: World, session: Session, error: str = "", email: str = "") -> str:
    known = world.find(session.customer or "")
    email = email or session.customer_email or (known.email if isinstance(known, Customer) else None) or ""
    return pages.payment_page(session, world.line_items[session.id], email, error)


def _portal(world: World, session: PortalSession) -> str:
    customer = world.get(Customer, session.customer)
    methods = [each for each in world.newest_first(PaymentMethod) if each.customer == customer.id]
    return pages.portal_page(session, customer, methods)


def _address(form: dict[str, str]) -> dict[str, str | None]:
    return {"country": form.get("country") or "US", "postal_code": form.get("postal_code") or None}


def _payer(form: dict[str, str]) -> Payer:
    return Payer(
        email=form.get("email") or "customer@example.com",
        name=form.get("name") or None,
        country=form.get("country") or "US",
        postal_code=form.get("postal_code") or None,
        tax_id=form.get("tax_id") or None,
    )


def _returning(session: Session) -> str:
    return (session.success_url or "/").replace("{CHECKOUT_SESSION_ID}", session.id)


def _with(url: str, more: dict[str, str]) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query=urlencode([*parse_qsl(parts.query), *more.items()])))


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html")


def _page(status: int, text: str) -> web.HTTPException:
    error = web.HTTPNotFound if status == 404 else web.HTTPGone if status == 410 else web.HTTPBadRequest
    return error(text=text, content_type="text/html")

"""The HTML of what a customer sees at Stripe: payment page, bank's challenge, portal, receipt. Plain forms."""

from html import escape
from typing import Final

from gateway.sandbox.stripe.objects import Charge, Customer, Invoice, LineItem, PaymentMethod, PortalSession, Session

_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f6f8fa;color:#1a1f36}
main{max-width:28rem;margin:2rem auto;padding:1.5rem 2rem;background:#fff;border:1px solid #e3e8ee;border-radius:8px}
.test{background:#fff4d6;padding:.4rem 1rem;text-align:center;font-size:.85rem}
h1{font-size:1.25rem}label{display:block;margin:.75rem 0 .1rem;font-size:.9rem}
input,select,button{font:inherit;width:100%;box-sizing:border-box;padding:.5rem}
input,select,button{border:1px solid #c1c9d2;border-radius:4px}
button{margin-top:1rem;background:#5433ff;color:#fff;border:0;cursor:pointer}button.quiet{background:#69738a}
table{width:100%;border-collapse:collapse}td{padding:.25rem 0}td+td{text-align:right}
tr.total td{border-top:1px solid #e3e8ee;font-weight:600}
.error{background:#fde8e8;color:#8a1c1c;padding:.6rem .8rem;border-radius:4px}
.hint{color:#69738a;font-size:.85rem}
"""
_COUNTRIES: Final = ("US", "AT", "CH", "DE", "FR", "GB")


def document(title: str, body: str) -> str:
    """A whole page; `body` is HTML already."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        '<p class="test">Tollgate sandbox: a simulated Stripe. No money moves.</p>'
        f"<main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )


def money(cents: int | None, currency: str | None) -> str:
    """An amount as people read it.

    >>> money(123456, "usd"), money(-5, "eur")
    ('USD 1,234.56', 'EUR -0.05')
    """
    cents = cents or 0
    sign = "-" if cents < 0 else ""
    return f"{(currency or '').upper()} {sign}{abs(cents) // 100:,}.{abs(cents) % 100:02d}"


def payment_page(session: Session, items: list[LineItem], email: str, error: str = "") -> str:
    """Where a Checkout Session is paid."""
    paying = session.mode == "payment"
    title = "Pay Tollgate" if paying else "Save a card for Tollgate"
    kinds = "".join(f"<option>{escape(kind)}</option>" for kind in session.payment_method_types)
    countries = "".join(f"<option>{country}</option>" for country in _COUNTRIES)
    fields = [
        _field("Email", "email", email, "email"),
        f'<label for="kind">Pay with</label><select id="kind" name="kind">{kinds}</select>',
        _field("Card or account number", "number", "4242 4242 4242 4242"),
        _field("Name", "name", "Jenny Rosen"),
        f'<label for="country">Country</label><select id="country" name="country">{countries}</select>',
        _field("Postal code", "postal_code", "94103"),
    ]
    if (session.tax_id_collection or {}).get("enabled"):
        fields.append(_field("Business tax id (optional)", "tax_id", "", required=False))
    if session.automatic_tax["enabled"]:
        fields.append('<p class="hint">Tax is added for the country that you choose.</p>')
    button = f"Pay {money(session.amount_total, session.currency)}" if paying else "Save card"
    cancel = f'<p class="hint"><a href="{escape(session.cancel_url)}">Go back</a></p>' if session.cancel_url else ""
    return document(
        title,
        f"{_error(error)}{_summary(session, items)}<form method=post>{''.join(fields)}"
        f"<button>{escape(button)}</button></form>"
        '<p class="hint">Any test card of docs.stripe.com/testing: 4000 0000 0000 0002 is declined, '
        f"4000 0027 6000 3184 asks for authentication.</p>{cancel}",
    )


def _summary(session: Session, items: list[LineItem]) -> str:
    if session.mode != "payment":
        return ""
    rows = [(f"{item.description} × {item.quantity}", money(item.amount_subtotal, item.currency)) for item in items]
    if taxes := (session.total_details or {}).get("amount_tax"):
        rows.append(("Tax", money(taxes, session.currency)))
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    total = escape(money(session.amount_total, session.currency))
    return f'<table>{cells}<tr class="total"><td>Total</td><td>{total}</td></tr></table>'


def challenge_page(what: str) -> str:
    """The bank asks whether it is really its customer."""
    return document(
        "Your bank asks",
        f"<p>{escape(what)}</p><form method=post>"
        "<button name=outcome value=pass>Complete authentication</button>"
        '<button class="quiet" name=outcome value=fail>Fail authentication</button></form>',
    )


def message_page(title: str, text: str) -> str:
    return document(title, f"<p>{escape(text)}</p>")


def portal_page(session: PortalSession, customer: Customer, methods: list[PaymentMethod]) -> str:
    """What Stripe keeps about a customer, to be changed."""
    cards = "".join(
        f"<tr><td>{escape(_described(method))}</td><td><form method=post>"
        f'<button class="quiet" name=detach value="{escape(method.id)}">Remove</button></form></td></tr>'
        for method in methods
    )
    back = f'<p><a href="{escape(session.return_url)}">Return to Tollgate</a></p>' if session.return_url else ""
    return document(
        "Billing details",
        f"<form method=post>{_field('Name', 'name', customer.name or '')}"
        f"{_field('Email', 'email', customer.email or '', 'email')}<button>Save</button></form>"
        f"<h1>Payment methods</h1><table>{cards or '<tr><td>None is saved.</td></tr>'}</table>{back}",
    )


def _described(method: PaymentMethod) -> str:
    shown = method.card or method.us_bank_account or method.sepa_debit or {}
    return f"{shown.get('brand', method.type)} •••• {shown.get('last4', '')}"


def receipt_page(charge: Charge) -> str:
    """The receipt of a charge."""
    rows = [("Amount paid", money(charge.amount_captured, charge.currency)), ("Status", charge.status)]
    if charge.amount_refunded:
        rows.append(("Refunded", money(charge.amount_refunded, charge.currency)))
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return document("Receipt from Tollgate", f'<table>{cells}</table><p class="hint">{escape(charge.id)}</p>')


def invoice_page(invoice: Invoice) -> str:
    """A hosted invoice."""
    rows = [(line["description"] or "", money(line["amount"], invoice.currency)) for line in invoice.lines["data"]]
    if invoice.total != invoice.total_excluding_tax:
        rows.append(("Tax", money(invoice.total - invoice.total_excluding_tax, invoice.currency)))
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    total = f'<tr class="total"><td>Total</td><td>{escape(money(invoice.total, invoice.currency))}</td></tr>'
    title = f"Invoice {invoice.number or ''}"
    return document(title, f'<table>{cells}{total}</table><p class="hint">{escape(invoice.status)}</p>')


def _field(label: str, name: str, value: str, kind: str = "text", *, required: bool = True) -> str:
    needed = " required" if required else ""
    return (
        f'<label for="{name}">{escape(label)}</label>'
        f'<input id="{name}" name="{name}" type="{kind}" value="{escape(value)}"{needed}>'
    )


def _error(text: str) -> str:
    return f'<p class="error" role="alert">{escape(text)}</p>' if text else ""

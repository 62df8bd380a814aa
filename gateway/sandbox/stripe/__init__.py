"""The simulated Stripe: payments, refunds, disputes, payouts and webhooks for tests and the demo, and faults to order.

The official SDK talks to it as to Stripe: `stripe.StripeClient(key, base_addresses={"api": url})`. It speaks one
version of the API, `API_VERSION`, the SDK's own. Parameters are checked against the SDK's types: what Stripe does not
know is refused as `parameter_unknown`, and what Stripe knows but nothing happens to here is refused as well, by name.
Not simulated: subscriptions, promotion codes, Connect, adaptive pricing, embedded pages.

What it does by itself: test cards and accounts behave as on docs.stripe.com/testing (`cards` has the table), by number
and as `pm_card_…`. Disputes and warnings of their cards come right after the charge. Debits, pending and failing
refunds, and manual payouts end after `later_s`. Sessions expire. Charges book a fee, disputes another; balance
transactions become available after two days, and those of a payout sum to zero. Events are sent, signed, to every
endpoint that listens, and again after `delivery_retries_s`. Idempotency keys replay, conflict and mismatch. Search
lags by a minute, as at Stripe, so it finds nothing that has just been made.

A customer's pages are forms without script: POST `/c/pay/cs_…` takes email, name, country, postal_code, kind, number
and tax_id, and answers 303 to the success URL, 303 to `/authenticate/pi_…` (POST outcome=pass or fail), or 402 with the
page. Receipts, invoices and the portal have pages, too.

Orders, as `SimulatedStripe` methods or as JSON over HTTP:

    GET    /_sandbox                          counts, and whether all deliveries have ended
    POST   /_sandbox/clock                    {"advance_s": 86400}: time passes, and what was due happens
    POST   /_sandbox/settle                   as much time passes as Stripe takes for what it does later
    POST   /_sandbox/checkout_sessions/ID/pay {"number": …, "country": "DE", "tax_id": …}: the customer pays
    POST   /_sandbox/KIND[/ID]/VERB           what banks and people do, see `orders.ORDERS`: charges/ID/dispute,
                                              disputes/ID/win, refunds/ID/fail, reviews/ID/close, payouts/create …
    PUT    /_sandbox/webhooks                 {"duplicate": 0.3, "drop": 0.1, "delay_s": 1, "reorder_s": 2,
                                              "lose_reply": 0.1, "suppress": 0.01, "bad_signature": 0.1}; {} ends it
    POST   /_sandbox/faults                   {"does": "lose_reply", "path": "/v1/refunds", "times": 1}, or refuse,
                                              error, error_after, rate_limit, slow (with "wait_s"); DELETE clears
    GET    /_sandbox/deliveries               what was sent and answered; POST sends at once what waits
    POST   /_sandbox/events/ID/resend         once more, to every endpoint
    POST   /_sandbox/webhook_endpoints/create {"url": …, "secret": "whsec_…"}; webhook_endpoints/ID/roll changes it

`service.Stripe` is all of it without sockets and clock; `world.World` with the functions beside it is the state machine
alone, for tests that permute thousands of histories. Under one `seed` the same calls give the same ids and faults.
"""

from gateway.sandbox.stripe.app import SimulatedStripe, serve
from gateway.sandbox.stripe.deliveries import Attempt
from gateway.sandbox.stripe.errors import StripeError
from gateway.sandbox.stripe.settings import API_VERSION, Endpoint, SandboxStripeSettings

__all__ = [
    "API_VERSION",
    "Attempt",
    "Endpoint",
    "SandboxStripeSettings",
    "SimulatedStripe",
    "StripeError",
    "serve",
]

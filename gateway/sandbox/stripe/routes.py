"""The simulated part of Stripe's API as one table: method, path, the SDK's type of its parameters, what is called."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
from stripe import params
from stripe.params import billing_portal, checkout, radar
from stripe.params import tax as taxes

from gateway.sandbox.stripe import (
    books,
    catalogue,
    charges,
    customers,
    disputes,
    endpoints,
    intents,
    invoice_payments,
    invoices,
    lists,
    objects,
    payment_methods,
    payment_pages,
    portal,
    refunds,
    setup_intents,
    tax,
)
from gateway.sandbox.stripe import checkout as sessions
from gateway.sandbox.stripe.lists import Listing, Search
from gateway.sandbox.stripe.simulated import arguments_of
from gateway.sandbox.stripe.world import World

Call = Callable[..., Any]


class Route(msgspec.Struct, frozen=True):
    """One call. `call` takes the world, the ids of the path, and parameters by name, of which it simulates `takes`
    and cannot do without `needs`."""

    method: str
    path: str
    params: type | None  # None: the call is in no SDK, and its parameters pass as they are
    call: Call
    takes: frozenset[str]
    needs: frozenset[str]


def _route(method: str, path: str, params_type: type | None, call: Call) -> Route:
    takes, needs = arguments_of(call)
    if isinstance(call, Listing):
        takes = call.takes
    elif call in _WITHIN_OBJECTS:
        takes = frozenset({"limit", "starting_after", "ending_before", "type"})
    return Route(method, f"/v1/{path}", params_type, call, takes, needs)


_WITHIN_OBJECTS: Final = (lists.payment_methods_of, lists.tax_ids_of, lists.line_items_of)


def _get(kind: type[objects.Identified]) -> Call:
    return partial(_retrieve, kind)


def _retrieve(kind: type[objects.Identified], world: World, object_id: str) -> Any:
    return world.get(kind, object_id)


GET, POST, DELETE = "GET", "POST", "DELETE"
_CUSTOMER, _METHOD, _PI, _SI = "customers/{id}", "payment_methods/{id}", "payment_intents/{id}", "setup_intents/{id}"
_SESSION, _INVOICE, _ENDPOINT = "checkout/sessions/{id}", "invoices/{id}", "webhook_endpoints/{id}"

_PAYING: Final = (
    _route(POST, "payment_intents", params.PaymentIntentCreateParams, intents.create_payment_intent),
    _route(GET, "payment_intents", params.PaymentIntentListParams, lists.PAYMENT_INTENTS),
    _route(
        GET,
        "payment_intents/search",
        params.PaymentIntentSearchParams,
        Search(objects.PaymentIntent, "/v1/payment_intents/search"),
    ),
    _route(GET, _PI, params.PaymentIntentRetrieveParams, _get(objects.PaymentIntent)),
    _route(POST, _PI, params.PaymentIntentUpdateParams, intents.update_payment_intent),
    _route(POST, f"{_PI}/confirm", params.PaymentIntentConfirmParams, intents.confirm_payment_intent),
    _route(POST, f"{_PI}/capture", params.PaymentIntentCaptureParams, intents.capture_payment_intent),
    _route(POST, f"{_PI}/cancel", params.PaymentIntentCancelParams, intents.cancel_payment_intent),
    _route(POST, "setup_intents", params.SetupIntentCreateParams, setup_intents.create_setup_intent),
    _route(GET, "setup_intents", params.SetupIntentListParams, lists.SETUP_INTENTS),
    _route(GET, _SI, params.SetupIntentRetrieveParams, _get(objects.SetupIntent)),
    _route(POST, _SI, params.SetupIntentUpdateParams, setup_intents.update_setup_intent),
    _route(POST, f"{_SI}/confirm", params.SetupIntentConfirmParams, setup_intents.confirm_setup_intent),
    _route(POST, f"{_SI}/cancel", params.SetupIntentCancelParams, setup_intents.cancel_setup_intent),
    _route(POST, "payment_methods", params.PaymentMethodCreateParams, payment_methods.create_payment_method),
    _route(GET, "payment_methods", params.PaymentMethodListParams, lists.PAYMENT_METHODS),
    _route(GET, _METHOD, params.PaymentMethodRetrieveParams, _get(objects.PaymentMethod)),
    _route(POST, _METHOD, params.PaymentMethodUpdateParams, payment_methods.update_payment_method),
    _route(POST, f"{_METHOD}/attach", params.PaymentMethodAttachParams, payment_methods.attach_payment_method),
    _route(POST, f"{_METHOD}/detach", params.PaymentMethodDetachParams, payment_methods.detach_payment_method),
    _route(POST, "checkout/sessions", checkout.SessionCreateParams, sessions.create_session),
    _route(GET, "checkout/sessions", checkout.SessionListParams, lists.SESSIONS),
    _route(GET, _SESSION, checkout.SessionRetrieveParams, _get(objects.Session)),
    _route(POST, _SESSION, checkout.SessionUpdateParams, sessions.update_session),
    _route(POST, f"{_SESSION}/expire", checkout.SessionExpireParams, sessions.expire_session),
    _route(GET, f"{_SESSION}/line_items", checkout.SessionListLineItemsParams, lists.line_items_of),
    _route(GET, "payment_pages/{id}", None, payment_pages.open_page),
    _route(POST, "payment_pages/{id}/confirm", None, payment_pages.confirm_page),
)
_MONEY: Final = (
    _route(GET, "charges", params.ChargeListParams, lists.CHARGES),
    _route(GET, "charges/search", params.ChargeSearchParams, Search(objects.Charge, "/v1/charges/search")),
    _route(GET, "charges/{id}", params.ChargeRetrieveParams, _get(objects.Charge)),
    _route(POST, "refunds", params.RefundCreateParams, refunds.create_refund),
    _route(GET, "refunds", params.RefundListParams, lists.REFUNDS),
    _route(GET, "refunds/{id}", params.RefundRetrieveParams, _get(objects.Refund)),
    _route(POST, "refunds/{id}", params.RefundUpdateParams, refunds.update_refund),
    _route(POST, "refunds/{id}/cancel", params.RefundCancelParams, refunds.cancel_refund),
    _route(GET, "disputes", params.DisputeListParams, lists.DISPUTES),
    _route(GET, "disputes/{id}", params.DisputeRetrieveParams, _get(objects.Dispute)),
    _route(POST, "disputes/{id}", params.DisputeUpdateParams, disputes.update_dispute),
    _route(POST, "disputes/{id}/close", params.DisputeCloseParams, disputes.close_dispute),
    _route(GET, "balance", params.BalanceRetrieveParams, books.balance),
    _route(GET, "balance_transactions", params.BalanceTransactionListParams, lists.MOVEMENTS),
    _route(GET, "balance_transactions/{id}", params.BalanceTransactionRetrieveParams, _get(objects.BalanceTransaction)),
    _route(POST, "payouts", params.PayoutCreateParams, books.create_payout),
    _route(GET, "payouts", params.PayoutListParams, lists.PAYOUTS),
    _route(GET, "payouts/{id}", params.PayoutRetrieveParams, _get(objects.Payout)),
    _route(POST, "payouts/{id}", params.PayoutUpdateParams, books.update_payout),
    _route(GET, "radar/early_fraud_warnings", radar.EarlyFraudWarningListParams, lists.WARNINGS),
    _route(
        GET,
        "radar/early_fraud_warnings/{id}",
        radar.EarlyFraudWarningRetrieveParams,
        _get(objects.EarlyFraudWarning),
    ),
    _route(GET, "reviews", params.ReviewListParams, lists.REVIEWS),
    _route(GET, "reviews/{id}", params.ReviewRetrieveParams, _get(objects.Review)),
    _route(POST, "reviews/{id}/approve", params.ReviewApproveParams, charges.close_review),
)
_PEOPLE: Final = (
    _route(POST, "customers", params.CustomerCreateParams, customers.create_customer),
    _route(GET, "customers", params.CustomerListParams, lists.CUSTOMERS),
    _route(GET, "customers/search", params.CustomerSearchParams, Search(objects.Customer, "/v1/customers/search")),
    _route(GET, _CUSTOMER, params.CustomerRetrieveParams, customers.retrieve_customer),
    _route(POST, _CUSTOMER, params.CustomerUpdateParams, customers.update_customer),
    _route(DELETE, _CUSTOMER, params.CustomerDeleteParams, customers.delete_customer),
    _route(GET, f"{_CUSTOMER}/payment_methods", params.CustomerPaymentMethodListParams, lists.payment_methods_of),
    _route(GET, f"{_CUSTOMER}/tax_ids", params.CustomerTaxIdListParams, lists.tax_ids_of),
    _route(POST, f"{_CUSTOMER}/tax_ids", params.CustomerTaxIdCreateParams, customers.create_tax_id),
    _route(DELETE, f"{_CUSTOMER}/tax_ids/{{tax_id}}", params.CustomerTaxIdDeleteParams, customers.delete_tax_id),
    _route(POST, "billing_portal/sessions", billing_portal.SessionCreateParams, portal.create_portal_session),
    _route(POST, "tax/calculations", taxes.CalculationCreateParams, tax.create_calculation),
    _route(GET, "tax/calculations/{id}", taxes.CalculationRetrieveParams, _get(objects.TaxCalculation)),
)
_SALES: Final = (
    _route(POST, "products", params.ProductCreateParams, catalogue.create_product),
    _route(GET, "products", params.ProductListParams, lists.PRODUCTS),
    _route(GET, "products/{id}", params.ProductRetrieveParams, _get(objects.Product)),
    _route(POST, "products/{id}", params.ProductUpdateParams, catalogue.update_product),
    _route(DELETE, "products/{id}", params.ProductDeleteParams, catalogue.delete_product),
    _route(POST, "prices", params.PriceCreateParams, catalogue.create_price),
    _route(GET, "prices", params.PriceListParams, lists.PRICES),
    _route(GET, "prices/{id}", params.PriceRetrieveParams, _get(objects.Price)),
    _route(POST, "prices/{id}", params.PriceUpdateParams, catalogue.update_price),
    _route(POST, "invoiceitems", params.InvoiceItemCreateParams, invoices.create_invoice_item),
    _route(POST, "invoices", params.InvoiceCreateParams, invoices.create_invoice),
    _route(GET, "invoices", params.InvoiceListParams, lists.INVOICES),
    _route(GET, _INVOICE, params.InvoiceRetrieveParams, _get(objects.Invoice)),
    _route(POST, _INVOICE, params.InvoiceUpdateParams, invoices.update_invoice),
    _route(DELETE, _INVOICE, params.InvoiceDeleteParams, invoices.delete_invoice),
    _route(POST, f"{_INVOICE}/finalize", params.InvoiceFinalizeInvoiceParams, invoices.finalize_invoice),
    _route(POST, f"{_INVOICE}/pay", params.InvoicePayParams, invoice_payments.pay_invoice),
    _route(POST, f"{_INVOICE}/send", params.InvoiceSendInvoiceParams, invoices.send_invoice),
    _route(POST, f"{_INVOICE}/void", params.InvoiceVoidInvoiceParams, invoices.void_invoice),
    _route(
        POST,
        f"{_INVOICE}/mark_uncollectible",
        params.InvoiceMarkUncollectibleParams,
        invoices.write_off_invoice,
    ),
)
_EVENTS: Final = (
    _route(GET, "events", params.EventListParams, lists.EVENTS),
    _route(GET, "events/{id}", params.EventRetrieveParams, _get(objects.Event)),
    _route(POST, "webhook_endpoints", params.WebhookEndpointCreateParams, endpoints.create_endpoint),
    _route(GET, "webhook_endpoints", params.WebhookEndpointListParams, lists.ENDPOINTS),
    _route(GET, _ENDPOINT, params.WebhookEndpointRetrieveParams, _get(objects.WebhookEndpoint)),
    _route(POST, _ENDPOINT, params.WebhookEndpointUpdateParams, endpoints.update_endpoint),
    _route(DELETE, _ENDPOINT, params.WebhookEndpointDeleteParams, endpoints.delete_endpoint),
)
ROUTES: Final = (*_PAYING, *_MONEY, *_PEOPLE, *_SALES, *_EVENTS)

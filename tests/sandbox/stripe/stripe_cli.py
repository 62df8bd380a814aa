"""The official Stripe CLI as a judge: its triggers make the calls that Stripe's own make. Run by `make stripe-cli`.

It needs Node, so it is no part of the suite; TOLLGATE_STRIPE_CLI names the program.
"""

import asyncio
import os
from pathlib import Path

import pytest
from stripe import StripeClient

from gateway.sandbox.stripe import SimulatedStripe
from tests.sandbox.stripe.parties import KEY

TRIGGERS = [
    "billing_portal.session.created",
    "charge.captured",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.failed",
    "charge.refund.updated",
    "charge.refunded",
    "charge.succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.created",
    "customer.deleted",
    "customer.updated",
    "invoice.created",
    "invoice.deleted",
    "invoice.finalized",
    "invoice.marked_uncollectible",
    "invoice.paid",
    "invoice.payment_action_required",
    "invoice.payment_failed",
    "invoice.payment_succeeded",
    "invoice.sent",
    "invoice.updated",
    "invoice.voided",
    "invoiceitem.created",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_method.attached",
    "payment_method.detached",
    "payment_method.updated",
    "payout.created",
    "payout.updated",
    "product.created",
    "product.deleted",
    "product.updated",
    "setup_intent.canceled",
    "setup_intent.created",
    "setup_intent.requires_action",
    "setup_intent.setup_failed",
    "setup_intent.succeeded",
]


@pytest.mark.parametrize("event", TRIGGERS)
async def test_a_trigger_ends_in_its_event(
    client: StripeClient, simulated: SimulatedStripe, tmp_path: Path, event: str
) -> None:
    program = os.environ["TOLLGATE_STRIPE_CLI"]
    triggering = await asyncio.create_subprocess_exec(
        *(program, "trigger", event, "--api-base", simulated.url, "--api-key", KEY),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Its telemetry is sent beside the trigger, and now and then makes it panic.
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], "STRIPE_CLI_TELEMETRY_OPTOUT": "1"},
    )
    said, _ = await triggering.communicate()
    assert triggering.returncode == 0, said.decode()
    simulated.settle()
    assert (await client.v1.events.list_async({"type": event})).data != []

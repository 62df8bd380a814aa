"""The official Stripe CLI as a judge: its triggers make the calls that Stripe's own make. Run by `make stripe-cli`.

It needs Node, so it is no part of the suite; TOLLGATE_TEST_STRIPE_CLI names the program.
"""

import asyncio
import os
from pathlib import Path

import pytest
from stripe import StripeClient

from gateway.sandbox.openai import SimulatedOpenAI
from gateway.sandbox.stripe import SimulatedStripe
from tests.proxy.conftest import logs, openai, running
from tests.proxy.stack import Running
from tests.sandbox.stripe.parties import KEY
from tests.shop import Shop, open_shop

__all__ = ["logs", "openai", "running"]

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


# What a trigger leaves in the ledger, where its payment is one of our purchases. The CLI's disputes are inquiries,
# which take no money: with another card they do.
PAID, REFUNDED, DISPUTED = ["top_up", "fees"], ["top_up", "fees", "refund"], ["top_up", "fees", "reversal"]
DISPUTING = "pm_card_createDispute"
LEDGER_LINES = {
    "charge.captured": PAID,
    "charge.dispute.closed": PAID,
    "charge.dispute.created": PAID,
    "charge.dispute.updated": PAID,
    "charge.failed": [],
    "charge.refund.updated": REFUNDED,
    "charge.refunded": REFUNDED,
    "charge.succeeded": PAID,
    "payment_intent.amount_capturable_updated": [],
    "payment_intent.canceled": [],
    "payment_intent.created": [],
    "payment_intent.payment_failed": [],
    "payment_intent.requires_action": [],
    "payment_intent.succeeded": PAID,
}


async def trigger(simulated: SimulatedStripe, event: str, home: Path, *given: str) -> None:
    program = os.environ["TOLLGATE_TEST_STRIPE_CLI"]
    triggering = await asyncio.create_subprocess_exec(
        *(program, "trigger", event, "--api-base", simulated.url, "--api-key", KEY, *given),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Its telemetry is sent beside the trigger, and now and then makes it panic.
        env={"HOME": str(home), "PATH": os.environ["PATH"], "STRIPE_CLI_TELEMETRY_OPTOUT": "1"},
    )
    said, _ = await triggering.communicate()
    assert triggering.returncode == 0, said.decode()
    simulated.settle()


@pytest.mark.parametrize("event", TRIGGERS)
async def test_a_trigger_ends_in_its_event(
    client: StripeClient, simulated: SimulatedStripe, tmp_path: Path, event: str
) -> None:
    await trigger(simulated, event, tmp_path)
    assert (await client.v1.events.list_async({"type": event})).data != []


@pytest.mark.parametrize(
    ("event", "card", "lines"),
    [*((event, "", lines) for event, lines in LEDGER_LINES.items()), ("charge.dispute.created", DISPUTING, DISPUTED)],
)
async def test_a_trigger_for_a_purchase_ends_in_its_ledger_lines(
    running: Running,
    openai: SimulatedOpenAI,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    event: str,
    card: str,
    lines: list[str],
) -> None:
    async with open_shop(running, openai) as shop:
        told = await shop.buy("starter")
        ours = [f"payment_intent:metadata.purchase_id={told['id']}", "payment_intent:currency=usd"]
        given = ["--add", ours[0], "--override", ours[1], "--override", "payment_intent:amount=500"]
        given += ["--override", f"payment_intent:payment_method={card}"] if card else []
        await trigger(shop.simulated, event, tmp_path, *given)
        await shop.settle()
        assert await kinds(shop, told["id"]) == sorted(lines)


async def kinds(shop: Shop, purchase_id: str) -> list[str]:
    """Of all transfers of a purchase, those between the system's accounts, too."""
    rows = await shop.stack.stores.pool.fetch(
        "SELECT kind FROM transfer JOIN purchase_transfer ON transfer_id = id WHERE purchase_id = $1::text::uuid"
        " ORDER BY kind",
        purchase_id,
    )
    return [row["kind"] for row in rows]

"""Money that moves back, and the books: refunds, disputes, fees, payouts."""

import pytest
import stripe
from stripe import StripeClient

from gateway.sandbox.stripe import SandboxStripeSettings, SimulatedStripe, StripeError
from tests.sandbox.stripe.parties import charge, connected, types_of


async def test_refunds_never_exceed_the_charge(client: StripeClient) -> None:
    intent = await charge(client, "card_visa", 700)
    await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 500})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 201})
    assert (refused.value.code, refused.value.param) == ("amount_too_large", "amount")
    rest = await client.v1.refunds.create_async({"payment_intent": intent.id, "expand": ["charge"]})
    assert isinstance(rest.charge, stripe.Charge)
    assert (rest.amount, rest.charge.amount_refunded, rest.charge.refunded) == (200, 700, True)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refused.value.code == "charge_already_refunded"


async def test_a_refund_may_fail_after_it_succeeded(client: StripeClient, simulated: SimulatedStripe) -> None:
    intent = await charge(client, "card_refundFail", 700)
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})
    assert refund.status == "succeeded"
    simulated.settle()
    refund = await client.v1.refunds.retrieve_async(refund.id, {"expand": ["charge", "failure_balance_transaction"]})
    assert isinstance(refund.charge, stripe.Charge)
    assert isinstance(refund.failure_balance_transaction, stripe.BalanceTransaction)
    assert (refund.status, refund.charge.amount_refunded) == ("failed", 0)
    assert refund.failure_balance_transaction.reporting_category == "refund_failure"
    assert (await types_of(client))[-1] == "refund.failed"


async def test_a_refund_may_stay_pending_until_the_bank_has_it(
    client: StripeClient, simulated: SimulatedStripe
) -> None:
    intent = await charge(client, "card_pendingRefund")
    refund = await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refund.status == "pending"
    simulated.settle()
    assert (await client.v1.refunds.retrieve_async(refund.id)).status == "succeeded"


async def dispute_of(client: StripeClient, alias: str) -> stripe.Dispute:
    intent = await charge(client, alias, 700)
    return (await client.v1.disputes.list_async({"payment_intent": intent.id})).data[0]


async def test_a_dispute_takes_the_money_and_a_win_brings_it_back(
    client: StripeClient, simulated: SimulatedStripe
) -> None:
    dispute = await dispute_of(client, "card_createDispute")
    taken = dispute.balance_transactions[0]
    assert (dispute.status, taken.amount, taken.fee, taken.net) == ("needs_response", -700, 1500, -2200)
    assert dispute.payment_intent is not None
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.refunds.create_async({"payment_intent": str(dispute.payment_intent)})
    assert refused.value.code == "charge_disputed"
    await client.v1.disputes.update_async(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    simulated.settle()
    won = await client.v1.disputes.retrieve_async(dispute.id)
    back = won.balance_transactions[1]
    assert (won.status, back.net, back.reporting_category) == ("won", 700, "dispute_reversal")
    assert [kind for kind in await types_of(client) if "dispute" in kind] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.updated",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
    ]


async def test_a_dispute_that_we_close_is_lost(client: StripeClient, simulated: SimulatedStripe) -> None:
    dispute = await dispute_of(client, "card_createDispute")
    assert (await client.v1.disputes.close_async(dispute.id)).status == "lost"
    with pytest.raises(StripeError, match="status of lost"):
        simulated.order("disputes/win", dispute.id)


async def test_an_inquiry_moves_no_money_until_it_escalates(client: StripeClient, simulated: SimulatedStripe) -> None:
    inquiry = await dispute_of(client, "card_createDisputeInquiry")
    assert (inquiry.status, inquiry.balance_transactions) == ("warning_needs_response", [])
    escalated = simulated.order("disputes/escalate", inquiry.id)
    assert (escalated["status"], len(escalated["balance_transactions"])) == ("needs_response", 1)


async def test_warnings_and_reviews_point_to_their_charge(client: StripeClient) -> None:
    warned = await charge(client, "card_createIssuerFraudRecord")
    warning = (await client.v1.radar.early_fraud_warnings.list_async({"payment_intent": warned.id})).data[0]
    assert warning.charge == warned.latest_charge
    elevated = await charge(client, "card_riskLevelElevated")
    review = (await client.v1.reviews.list_async()).data[0]
    assert (review.payment_intent, review.open, elevated.review) == (elevated.id, True, review.id)
    assert (await client.v1.reviews.approve_async(review.id)).open is False


async def test_what_is_in_a_payout_sums_to_zero(client: StripeClient, simulated: SimulatedStripe) -> None:
    first = await charge(client, "card_visa", 10_000)
    await charge(client, "card_createDispute", 2000)
    await client.v1.refunds.create_async({"payment_intent": first.id, "amount": 500})
    simulated.advance(3 * 86_400)
    payout = simulated.order("payouts/create")
    late = await charge(client, "card_visa", 900)
    simulated.order("payouts/pay", payout["id"])
    listed = await client.v1.balance_transactions.list_async({"payout": payout["id"]})
    movements = [movement async for movement in listed.auto_paging_iter()]
    assert sum(movement.net for movement in movements) == 0
    assert {movement.reporting_category for movement in movements} == {"charge", "refund", "dispute", "payout"}
    assert all(movement.status == "available" for movement in movements)
    assert late.latest_charge not in {movement.source for movement in movements}
    assert (await types_of(client))[-1] == "payout.reconciliation_completed"


async def test_a_balance_transaction_may_come_after_its_charge() -> None:
    settings = SandboxStripeSettings(seed=1, balance_transaction_after_s=60.0, later_s=0.0)
    async with SimulatedStripe(settings) as simulated, connected(simulated.url) as client:
        intent = await charge(client, "card_visa", expand=["latest_charge"])
        assert isinstance(intent.latest_charge, stripe.Charge)
        assert intent.latest_charge.balance_transaction is None
        simulated.settle()
        later = await client.v1.charges.retrieve_async(intent.latest_charge.id)
        assert later.balance_transaction is not None
        assert (await types_of(client))[-1] == "charge.updated"

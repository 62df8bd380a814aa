"""Early fraud warnings: raised by the issuer, and over once their charge is refunded whole or disputed."""

from gateway.sandbox.stripe.objects import Charge, EarlyFraudWarning
from gateway.sandbox.stripe.world import World


def warn(world: World, charge_id: str) -> EarlyFraudWarning:
    """The issuer thinks that the charge is fraud; a dispute may follow."""
    charge = world.get(Charge, charge_id)
    warning = EarlyFraudWarning(
        id=world.id_for(EarlyFraudWarning),
        created=world.created,
        charge=charge.id,
        payment_intent=charge.payment_intent,
    )
    world.put(warning)
    world.emit("radar.early_fraud_warning.created", warning)
    return warning


def acted_on(world: World, charge_id: str) -> None:
    """The charge was refunded whole, or disputed."""
    for warning in [each for each in world.newest_first(EarlyFraudWarning) if each.charge == charge_id]:
        if warning.actionable:
            world.change("radar.early_fraud_warning.updated", warning, actionable=False)

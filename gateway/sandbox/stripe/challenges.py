"""How an intent says that the bank wants to hear from its customer."""

from gateway.sandbox.stripe.objects import Json
from gateway.sandbox.stripe.urls import checked_url
from gateway.sandbox.stripe.world import World


def next_action(world: World, intent_id: str, return_url: str | None) -> Json:
    """Where the customer is to go; without `return_url` it is left to Stripe.js, which is told the same page."""
    url = f"{world.origin}/authenticate/{intent_id}"
    if return_url is None:
        return {"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url}}
    back = checked_url(return_url, "return_url")
    return {"type": "redirect_to_url", "redirect_to_url": {"return_url": back, "url": url}}

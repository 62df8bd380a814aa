"""The customer portal: a session with a page where a customer sees and changes what Stripe keeps about them."""

from gateway.sandbox.stripe.objects import Customer, PortalSession
from gateway.sandbox.stripe.urls import checked_url
from gateway.sandbox.stripe.world import World


def create_portal_session(
    world: World, *, customer: str | None = None, return_url: str | None = None, locale: str | None = None
) -> PortalSession:
    """The page is in English whatever the `locale`."""
    known = world.get(Customer, customer or "", "customer")
    session_id = world.id_for(PortalSession)
    session = PortalSession(
        id=session_id,
        created=world.created,
        customer=known.id,
        return_url=checked_url(return_url, "return_url"),
        locale=locale,
        url=f"{world.origin}/p/session/{session_id}",
    )
    world.put(session)
    world.emit("billing_portal.session.created", session)
    return session

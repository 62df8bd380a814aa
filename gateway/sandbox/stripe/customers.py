"""Customers and their tax ids."""

from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Customer, Json, Metadata, PaymentMethod, TaxId, no_address
from gateway.sandbox.stripe.payment_methods import attach, usable
from gateway.sandbox.stripe.simulated import simulated
from gateway.sandbox.stripe.world import World


def create_customer(
    world: World,
    *,
    email: str | None = None,
    name: str | None = None,
    business_name: str | None = None,
    individual_name: str | None = None,
    description: str | None = None,
    phone: str | None = None,
    address: Json | None = None,
    shipping: Json | None = None,
    metadata: Metadata | None = None,
    tax_exempt: str = "none",
    preferred_locales: list[str] | None = None,
    payment_method: str | None = None,
    invoice_settings: Json | None = None,
    tax_id_data: list[Json] | None = None,
) -> Customer:
    method = usable(world, payment_method, "payment_method") if payment_method else None
    customer = Customer(
        id=world.id_for(Customer),
        created=world.created,
        email=email or None,
        name=name or None,
        business_name=business_name or None,
        individual_name=individual_name or None,
        description=description or None,
        phone=phone or None,
        address=_address(address),
        shipping=shipping or None,
        metadata=metadata or {},
        tax_exempt=tax_exempt or "none",
        preferred_locales=preferred_locales or [],
        invoice_prefix=world.new_id("", 8)[1:].upper(),
        invoice_settings=_invoice_settings(None) | _invoice_settings(invoice_settings),
    )
    world.put(customer)
    world.emit("customer.created", customer)
    if method is not None:
        attach(world, method, customer.id)
    for each in tax_id_data or []:
        create_tax_id(world, customer.id, **simulated(create_tax_id, each, "tax_id_data"))
    return customer


def present(world: World, customer_id: str, param: str | None = None) -> Customer:
    """A customer that was not deleted."""
    return world.get(Customer, customer_id, param)


def update_customer(
    world: World,
    customer_id: str,
    *,
    metadata: Metadata | None = None,
    address: Json | str | None = None,
    invoice_settings: Json | None = None,
    email: str | None = None,
    name: str | None = None,
    business_name: str | None = None,
    individual_name: str | None = None,
    description: str | None = None,
    phone: str | None = None,
    tax_exempt: str | None = None,
) -> Customer:
    """Change what is given; an empty value unsets."""
    customer = present(world, customer_id)
    texts = {
        "email": email,
        "name": name,
        "business_name": business_name,
        "individual_name": individual_name,
        "description": description,
        "phone": phone,
    }
    changes: Json = {key: value or None for key, value in texts.items() if value is not None}
    if tax_exempt is not None:
        changes["tax_exempt"] = tax_exempt or "none"
    if address is not None:
        changes["address"] = _address(address)
    if invoice_settings is not None:
        method_id = invoice_settings.get("default_payment_method")
        if method_id and world.get(PaymentMethod, method_id, "invoice_settings").customer != customer.id:
            raise invalid("The customer does not have a payment method with that id.", code="resource_missing")
        changes["invoice_settings"] = customer.invoice_settings | {k: v or None for k, v in invoice_settings.items()}
    return world.change("customer.updated", customer, **changes, metadata=merged(customer.metadata, metadata))


def delete_customer(world: World, customer_id: str) -> Json:
    customer = present(world, customer_id)
    for method in [each for each in world.newest_first(PaymentMethod) if each.customer == customer_id]:
        world.change("payment_method.detached", method, customer=None)
    world.remove(Customer, customer_id)
    world.deleted.add(customer_id)
    world.emit("customer.deleted", customer)
    return _deleted(customer_id)


def retrieve_customer(world: World, customer_id: str) -> Customer | Json:
    """A deleted customer is still known, as deleted."""
    return _deleted(customer_id) if customer_id in world.deleted else present(world, customer_id)


def _deleted(customer_id: str) -> Json:
    return {"id": customer_id, "object": "customer", "deleted": True}


def create_tax_id(world: World, customer_id: str, *, type: str, value: str) -> TaxId:
    present(world, customer_id)
    tax_id = TaxId(
        id=world.id_for(TaxId),
        created=world.created,
        country=type.split("_")[0].upper() if not type.startswith("eu_") else value[:2].upper(),
        customer=customer_id,
        owner={"customer": customer_id, "type": "customer", "customer_account": None},
        type=type,
        value=value,
    )
    world.put(tax_id)
    world.emit("customer.tax_id.created", tax_id)
    return tax_id


def delete_tax_id(world: World, customer_id: str, tax_id: str) -> Json:
    found = world.get(TaxId, tax_id)
    if found.customer != customer_id:
        raise invalid("The customer does not have this tax id.", code="resource_missing", param="id")
    world.remove(TaxId, tax_id)
    world.emit("customer.tax_id.deleted", found)
    return {"id": tax_id, "object": "tax_id", "deleted": True}


def tax_ids_of(world: World, customer_id: str | None) -> list[TaxId]:
    return [each for each in world.newest_first(TaxId) if customer_id and each.customer == customer_id]


def _address(given: Json | str | None) -> Json | None:
    return {**no_address(), **given} if isinstance(given, dict) else None


def _invoice_settings(given: Json | None) -> Json:
    if given is not None:
        return given
    return dict.fromkeys(("custom_fields", "default_payment_method", "footer", "rendering_options"))

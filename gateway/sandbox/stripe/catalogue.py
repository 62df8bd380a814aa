"""Products and one-time prices."""

from typing import Any

from gateway.sandbox.stripe.amounts import currency_of
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Json, Metadata, Price, Product
from gateway.sandbox.stripe.simulated import simulated
from gateway.sandbox.stripe.world import World


def create_product(
    world: World,
    *,
    name: str,
    description: str | None = None,
    active: bool = True,
    metadata: Metadata | None = None,
    tax_code: str | None = None,
    images: list[str] | None = None,
) -> Product:
    product = Product(
        id=world.id_for(Product),
        created=world.created,
        updated=world.created,
        name=name,
        description=description,
        active=active,
        metadata=metadata or {},
        tax_code=tax_code,
        images=images or [],
    )
    world.put(product)
    world.emit("product.created", product)
    return product


def update_product(
    world: World,
    product_id: str,
    *,
    name: str | None = None,
    description: str | None = None,
    active: bool | None = None,
    metadata: Metadata | None = None,
) -> Product:
    product = world.get(Product, product_id)
    changes: dict[str, Any] = {"name": name, "description": description, "active": active}
    changes = {key: value for key, value in changes.items() if value is not None}
    metadata = merged(product.metadata, metadata)
    return world.change("product.updated", product, **changes, metadata=metadata, updated=world.created)


def delete_product(world: World, product_id: str) -> Json:
    product = world.get(Product, product_id)
    if any(price.product == product_id for price in world.newest_first(Price)):
        raise invalid("This product cannot be deleted because it has one or more user-created prices.")
    world.remove(Product, product_id)
    world.emit("product.deleted", product)
    return {"id": product_id, "object": "product", "deleted": True}


def create_price(
    world: World,
    *,
    currency: str,
    unit_amount: int | None = None,
    product: str | None = None,
    product_data: Json | None = None,
    active: bool = True,
    tax_behavior: str = "unspecified",
    nickname: str | None = None,
    lookup_key: str | None = None,
    metadata: Metadata | None = None,
) -> Price:
    if unit_amount is None:
        raise invalid("Missing required param: unit_amount.", code="parameter_missing", param="unit_amount")
    if unit_amount < 0:
        raise invalid("This value must be greater than or equal to 0.", code="parameter_invalid_integer")
    if product_data:
        product = create_product(world, **simulated(create_product, product_data, "product_data")).id
    price = Price(
        id=world.id_for(Price),
        created=world.created,
        currency=currency_of(currency),
        unit_amount=unit_amount,
        unit_amount_decimal=str(unit_amount),
        product=world.get(Product, product or "", "product").id,
        active=active,
        tax_behavior=tax_behavior,
        nickname=nickname,
        lookup_key=lookup_key,
        metadata=metadata or {},
    )
    world.put(price)
    world.emit("price.created", price)
    return price


def update_price(world: World, price_id: str, *, active: bool | None = None, metadata: Metadata | None = None) -> Price:
    price = world.get(Price, price_id)
    active = price.active if active is None else active
    return world.change("price.updated", price, active=active, metadata=merged(price.metadata, metadata))

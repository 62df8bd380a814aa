"""What a Checkout Session sells, and for how much, taxes included."""

import msgspec

from gateway.sandbox.stripe import tax
from gateway.sandbox.stripe.amounts import check_amount
from gateway.sandbox.stripe.catalogue import create_price, create_product
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.objects import Json, LineItem, Price, Session
from gateway.sandbox.stripe.simulated import simulated
from gateway.sandbox.stripe.world import World


def line(world: World, given: Json, index: int) -> LineItem:
    where = f"line_items[{index}]"
    quantity = given.get("quantity", 1)
    if quantity < 1:
        raise invalid("Quantity should be at least 1.", param=f"{where}[quantity]")
    if data := given.get("price_data"):
        data = dict(data)
        if product_data := data.pop("product_data", None):
            data["product"] = create_product(
                world, **simulated(create_product, product_data, f"{where}[price_data][product_data]")
            ).id
        price = create_price(world, **simulated(create_price, data, f"{where}[price_data]"))
    elif given.get("price"):
        price = world.get(Price, given["price"], f"{where}[price]")
    else:
        raise invalid(f"Missing required param: {where}[price].", code="parameter_missing", param=f"{where}[price]")
    return LineItem(
        id=world.new_id("li"),
        amount_subtotal=price.unit_amount * quantity,
        amount_total=price.unit_amount * quantity,
        currency=price.currency,
        description=getattr(world.find(price.product), "name", ""),
        price=price,
        quantity=quantity,
    )


def check_lines(world: World, items: list[LineItem]) -> None:
    if not items:
        message = "You must pass `line_items` when `mode` is `payment`."
        raise invalid(message, code="parameter_missing", param="line_items")
    if len({item.currency for item in items}) > 1:
        raise invalid("The prices of a Checkout Session must all be in one currency.", param="line_items")
    check_amount(world, sum(item.amount_subtotal for item in items))


def priced(world: World, session: Session, country: str | None, business: bool) -> Session:
    """The session with its amounts for a buyer of `country`; nothing is taxed unless it was asked for."""
    if session.mode != "payment":
        return session
    rate = tax.rate_for(world, country, business) if session.automatic_tax["enabled"] else 0
    items = []
    for item in world.line_items[session.id]:
        inclusive = item.price.tax_behavior == "inclusive"
        amount = tax.tax_within(item.amount_subtotal, rate, inclusive)
        total = item.amount_subtotal + (0 if inclusive else amount)
        items.append(msgspec.structs.replace(item, amount_tax=amount, amount_total=total))
    world.line_items[session.id] = items
    taxes = sum(item.amount_tax for item in items)
    return msgspec.structs.replace(
        session,
        amount_subtotal=sum(item.amount_subtotal for item in items),
        amount_total=sum(item.amount_total for item in items),
        total_details={"amount_discount": 0, "amount_shipping": 0, "amount_tax": taxes},
    )

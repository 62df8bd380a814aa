"""`expand[]`: an id in an answer is replaced by its object, along a path such as `data.payment_intent.customer`."""

from typing import Any, Final

import msgspec

from gateway.sandbox.stripe.books import as_of_now
from gateway.sandbox.stripe.customers import tax_ids_of
from gateway.sandbox.stripe.errors import StripeError, invalid
from gateway.sandbox.stripe.objects import BalanceTransaction, Event, Json, Refund
from gateway.sandbox.stripe.world import World

_DEPTH_MAX: Final = 4


def shown(world: World, answer: Any, paths: list[str]) -> Json:
    """The answer as plain members, with every path expanded. Raises `StripeError` for what cannot be."""
    tree: Json = msgspec.to_builtins(_current(world, answer))
    for path in paths:
        parts = path.split(".")
        if len(parts) > _DEPTH_MAX:
            raise invalid("You cannot expand more than 4 levels of a property.", param="expand")
        _expand(world, tree, parts, path)
    return tree


def _current(world: World, thing: Any) -> Any:
    """Balance transactions change by time alone and events by what is delivered, so they are shown as of now."""
    if isinstance(thing, Event):
        return msgspec.structs.replace(thing, pending_webhooks=world.pending_webhooks(thing.id))
    if isinstance(thing, BalanceTransaction):
        return as_of_now(world, thing)
    if isinstance(thing, dict) and isinstance(thing.get("data"), list):
        return {**thing, "data": [_current(world, each) for each in thing["data"]]}
    return thing


def _expand(world: World, node: Any, parts: list[str], path: str) -> None:
    if isinstance(node, list):
        for each in node:
            _expand(world, each, parts, path)
        return
    name, below = parts[0], parts[1:]
    if not isinstance(node, dict):
        raise _cannot(path)
    if name not in node and not _include(world, node, name):
        raise _cannot(path)
    value = node[name]
    if isinstance(value, str):
        found = world.find(value)
        if found is None:
            raise _cannot(path)
        value = node[name] = msgspec.to_builtins(_current(world, found))
    elif isinstance(value, (int, float)):
        raise _cannot(path)
    if below and value is not None:
        _expand(world, value, below, path)


def _include(world: World, node: Json, name: str) -> bool:
    """Lists that are shown only if asked for."""
    things: list[Any]
    match node.get("object"), name:
        case "checkout.session", "line_items":
            things = world.line_items.get(node["id"], [])
        case "charge", "refunds":
            things = [refund for refund in world.newest_first(Refund) if refund.charge == node["id"]]
        case "customer", "tax_ids":
            things = list(tax_ids_of(world, node["id"]))
        case _:
            return False
    kind = "checkout/sessions" if name == "line_items" else f"{node['object']}s"
    url = f"/v1/{kind}/{node['id']}/{name}"
    node[name] = {"object": "list", "data": msgspec.to_builtins(things), "has_more": False, "url": url}
    return True


def _cannot(path: str) -> StripeError:
    return invalid(f"This property cannot be expanded ({path}).", param="expand")

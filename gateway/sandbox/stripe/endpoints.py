"""Webhook endpoints, on loopback only, and the secrets that sign what is sent to them."""

from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.sandbox.loopback import is_loopback
from gateway.sandbox.stripe.errors import invalid
from gateway.sandbox.stripe.metadata import merged
from gateway.sandbox.stripe.objects import Json, Metadata, WebhookEndpoint
from gateway.sandbox.stripe.settings import API_VERSION
from gateway.sandbox.stripe.world import World


def create_endpoint(
    world: World,
    *,
    url: str,
    enabled_events: list[str],
    api_version: str | None = None,
    description: str | None = None,
    metadata: Metadata | None = None,
) -> Json:
    """The secret is shown here and never again."""
    endpoint = add_endpoint(world, url, world.new_id("whsec", 32), enabled_events, api_version)
    described = msgspec.structs.replace(endpoint, description=description, metadata=metadata or {})
    world.put(described)
    return {**msgspec.structs.asdict(described), "secret": world.secrets[endpoint.id][0]}


def add_endpoint(
    world: World, url: str, secret: str, enabled_events: list[str], api_version: str | None = None
) -> WebhookEndpoint:
    _check(url, enabled_events, api_version)
    endpoint = WebhookEndpoint(
        id=world.id_for(WebhookEndpoint),
        created=world.created,
        api_version=api_version,
        enabled_events=enabled_events,
        url=url,
    )
    world.secrets[endpoint.id] = [secret]
    return world.put(endpoint)


def _check(url: str | None, events: list[str] | None, api_version: str | None = None) -> None:
    if url is not None and not is_loopback(urlsplit(url).hostname or ""):
        raise invalid("The sandbox sends webhooks to loopback addresses only.", code="url_invalid", param="url")
    if events is not None and ("*" in events) and len(events) > 1:
        raise invalid("Cannot combine * with other events.", param="enabled_events")
    if api_version not in (None, API_VERSION):
        raise invalid(f"The sandbox knows the API version {API_VERSION} only.", param="api_version")


def update_endpoint(
    world: World,
    endpoint_id: str,
    *,
    url: str | None = None,
    enabled_events: list[str] | None = None,
    disabled: bool | None = None,
    description: str | None = None,
    metadata: Metadata | None = None,
) -> WebhookEndpoint:
    endpoint = world.get(WebhookEndpoint, endpoint_id)
    _check(url, enabled_events)
    changes: dict[str, Any] = {"url": url, "enabled_events": enabled_events, "description": description}
    changes = {name: value for name, value in changes.items() if value is not None}
    if disabled is not None:
        changes["status"] = "disabled" if disabled else "enabled"
    return world.put(msgspec.structs.replace(endpoint, **changes, metadata=merged(endpoint.metadata, metadata)))


def delete_endpoint(world: World, endpoint_id: str) -> Json:
    world.get(WebhookEndpoint, endpoint_id)
    world.remove(WebhookEndpoint, endpoint_id)
    return {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True}


def roll_secret(world: World, endpoint_id: str) -> str:
    """A new secret; until the next roll the old one signs, too."""
    world.get(WebhookEndpoint, endpoint_id)
    new = world.new_id("whsec", 32)
    world.secrets[endpoint_id] = [new, world.secrets[endpoint_id][0]]
    return new

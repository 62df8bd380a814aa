"""What happened, and who is told."""

from msgspec import field

from gateway.sandbox.stripe.objects.base import Json, Live, Metadata


class WebhookEndpoint(Live, frozen=True, kw_only=True):
    object: str = "webhook_endpoint"
    api_version: str | None
    application: None = None
    description: str | None = None
    enabled_events: list[str]
    metadata: Metadata = field(default_factory=dict)
    status: str = "enabled"
    url: str


class Event(Live, frozen=True, kw_only=True):
    object: str = "event"
    api_version: str
    data: Json
    pending_webhooks: int = 0
    request: Json
    type: str

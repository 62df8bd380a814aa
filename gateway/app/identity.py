"""Whether tokens of an identity provider are taken, built out of the configuration."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.app.sources import now_ms
from gateway.app.stores import Stores
from gateway.config import Config, ConfigError
from gateway.core.jwts import ClaimNames
from gateway.core.roles import Role

if TYPE_CHECKING:
    from gateway.adapters.jwks import ConfiguredKey, KeySource
    from gateway.adapters.postgres.identities import TokenCallers


def token_callers(config: Config, stores: Stores) -> "TokenCallers | None":
    """None where no provider is configured; raises `ConfigError` for a key that cannot be used."""
    identity, callers = config.identity, config.callers
    if not identity.jwks_url and not identity.public_key_file:
        return None
    # Cryptography is large, and most gateways need none.
    from gateway.adapters.jwks import FetchedKeys, Verifier
    from gateway.adapters.postgres.identities import TokenCallers, TokenPolicy

    keys: KeySource
    if identity.jwks_url:
        keys = FetchedKeys(
            identity.jwks_url,
            timeout_s=identity.jwks_timeout_ms / 1000,
            age_s_max=identity.jwks_age_s_max,
            refetch_s=identity.jwks_refetch_s,
            clock=time.monotonic,
        )
    else:
        keys = _configured(Path(identity.public_key_file))
    verifier = Verifier(
        keys,
        issuer=identity.issuer,
        audience=identity.audience,
        names=ClaimNames(identity.account_claim, identity.member_claim, identity.email_claim),
        leeway_s=identity.leeway_s,
    )
    return TokenCallers(
        stores.pool,
        stores.accounts,
        stores.members,
        verifier,
        TokenPolicy(
            frozenset(each.value for each in identity.scopes),
            Role(identity.create_members) if identity.create_members else None,
            identity.link_by_email,
        ),
        cached_tokens_max=identity.cached_tokens_max,
        unknown_token_ttl_s=callers.unknown_key_ttl_ms / 1000,
        stale_s_max=callers.stale_s_max,
        poll_s=callers.poll_ms / 1000,
        clock=time.monotonic,
        now_ms=now_ms,
    )


def _configured(file: Path) -> "ConfiguredKey":
    from gateway.adapters.jwks import ConfiguredKey, UnusableKey

    try:
        return ConfiguredKey(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"identity.public_key_file: {file}: {error.strerror}") from error
    except UnusableKey as error:
        raise ConfigError(f"identity.public_key_file: {file}: {error}") from error

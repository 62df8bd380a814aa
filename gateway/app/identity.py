"""Whether tokens of an identity provider are taken, built out of the configuration."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.app.sources import now_ms
from gateway.app.stores import Stores
from gateway.config import Config, ConfigError
from gateway.config.sections import IdentityProvider
from gateway.core.access.jwts import ClaimNames
from gateway.core.access.operators import OperatorClaims
from gateway.core.access.roles import Role

if TYPE_CHECKING:
    from gateway.adapters.jwks import ConfiguredKey, KeySource, Verifier
    from gateway.adapters.operator_tokens import TokenOperators
    from gateway.adapters.postgres.identities import TokenCallers


def token_callers(config: Config, stores: Stores) -> "TokenCallers | None":
    """None where no provider is configured; raises `ConfigError` for a key that cannot be used."""
    identity, callers = config.identity, config.callers
    if not identity.is_given:
        return None
    from gateway.adapters.postgres.identities import TokenCallers, TokenPolicy

    return TokenCallers(
        stores.pool,
        stores.accounts,
        stores.members,
        _verifier(identity, "identity"),
        TokenPolicy(
            ClaimNames(identity.account_claim, identity.member_claim, identity.email_claim),
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


def token_operators(config: Config) -> "TokenOperators | None":
    """None where no provider is configured; raises `ConfigError` for a key that cannot be used."""
    identity = config.operator_identity
    if not identity.is_given:
        return None
    from gateway.adapters.operator_tokens import TokenOperators

    claims = OperatorClaims(
        identity.name_claim, identity.role_claim, identity.role_prefix, identity.lifetime_s_max + identity.leeway_s
    )
    return TokenOperators(_verifier(identity, "operator_identity"), claims, now_ms=now_ms)


def _verifier(provider: IdentityProvider, section: str) -> "Verifier":
    # Cryptography is large, and most gateways need none.
    from gateway.adapters.jwks import FetchedKeys, Verifier

    keys: KeySource
    if provider.jwks_url:
        keys = FetchedKeys(
            provider.jwks_url,
            timeout_s=provider.jwks_timeout_ms / 1000,
            age_s_max=provider.jwks_age_s_max,
            refetch_s=provider.jwks_refetch_s,
            clock=time.monotonic,
        )
    else:
        keys = _configured(Path(provider.public_key_file), section)
    return Verifier(keys, issuer=provider.issuer, audience=provider.audience, leeway_s=provider.leeway_s)


def _configured(file: Path, section: str) -> "ConfiguredKey":
    from gateway.adapters.jwks import ConfiguredKey, UnusableKey

    try:
        return ConfiguredKey(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{section}.public_key_file: {file}: {error.strerror}") from error
    except UnusableKey as error:
        raise ConfigError(f"{section}.public_key_file: {file}: {error}") from error

"""Who operates, by a token of the operators' identity provider: its claims name the operator and its roles."""

from collections.abc import Callable

from gateway.adapters.jwks import Verifier
from gateway.core.access.jwts import token_of
from gateway.core.access.operators import Operator, OperatorClaims, operator_of


class TokenOperators:
    def __init__(self, verifier: Verifier, read: OperatorClaims, *, now_ms: Callable[[], int]) -> None:
        self._verifier = verifier
        self._read = read
        self._now_ms = now_ms

    async def find(self, authorization: bytes) -> Operator | None:
        """Whom an Authorization header proves; None if it holds no token.

        Raises `Unauthenticated`, the same whatever is wrong with a token, or `IdentityUnavailable`.
        """
        token = token_of(authorization)
        if token is None:
            return None
        return operator_of(await self._verifier.claims(token.decode("ascii")), self._read, self._now_ms() // 1000)

"""Ids in Stripe's form, in an order that the seed alone decides."""

from random import Random

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Ids:
    """A source of ids that no other source with another seed will give."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def new(self, prefix: str, length: int = 24) -> str:
        """An id such as `pi_…`.

        >>> Ids(1).new("pi") == Ids(1).new("pi"), Ids(1).new("pi") == Ids(2).new("pi")
        (True, False)
        """
        return f"{prefix}_{''.join(self._random.choices(_LETTERS, k=length))}"

"""Which rate card is in force when: the newest whose day has come. A day begins at midnight UTC."""

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, date, datetime, time

from gateway.core.pricing.rates import RateCard


class Schedule:
    """Rate cards, at least one, by the moment they begin; of two that begin on one day, the later name is in force.

    Before the first day the first card is in force all the same: a clock that is behind must not stop the calls.
    A hold keeps the card it was opened under, so one that is replaced here still prices what it began.
    """

    def __init__(self, cards: Iterable[RateCard]) -> None:
        self._cards = sorted(cards, key=lambda card: (card.effective_from, card.name))
        self._starts_ms = [starts_ms(card.effective_from) for card in self._cards]

    def at(self, now_ms: int) -> RateCard:
        """The card in force at a Unix time."""
        return self._cards[max(bisect_right(self._starts_ms, now_ms) - 1, 0)]

    def from_now_on(self, now_ms: int) -> list[RateCard]:
        """The card in force, and those that will take over, in their order."""
        return self._cards[self._cards.index(self.at(now_ms)) :]


def starts_ms(day: date) -> int:
    """The Unix time at which `day` begins.

    >>> starts_ms(date(1970, 1, 2))
    86400000
    """
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1000

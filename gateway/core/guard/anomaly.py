"""Unusual spending: what an account, a member or a key spent lately, beside what is usual for it. Pure figures.

Usual is the mean of the hours, or days, in which anything was spent, so that nights and weekends do not make a normal
morning look like an attack. Who has spent too seldom to have a usual is judged by the burst rule alone.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal

import msgspec

from gateway.core.money import MicroCredits, format_credits

# What is put in review when something trips: the whole account, the key's member, or the key alone.
Width = Literal["account", "member", "key"]


class Rule(StrEnum):
    BURST = "burst"
    HOUR = "hour"
    DAY = "day"


class Bound(msgspec.Struct, frozen=True):
    """Beyond so many times the usual, and beyond an amount below which nobody is bothered."""

    times: int
    least: MicroCredits


class Rules(msgspec.Struct, frozen=True):
    """When spending is unusual."""

    burst: MicroCredits  # from one key within `burst_minutes`; 0: no such rule
    burst_minutes: int
    hour: Bound
    day: Bound
    known_min: int  # hours, or days, with spending that it takes to have a usual
    width: Width = "key"

    @property
    def least(self) -> MicroCredits:
        """Whoever spent no more than this in a day breaks no rule."""
        return min(self.hour.least, self.day.least, self.burst or self.day.least)


class Window(msgspec.Struct, frozen=True):
    """What was spent lately, and in the hours, or days, before."""

    spent: MicroCredits = 0
    usual_sum: MicroCredits = 0
    known: int = 0  # in how many of them anything was spent


class Spending(msgspec.Struct, frozen=True):
    """What one subject spent."""

    burst: MicroCredits = 0
    hour: Window = Window()  # the last 60 minutes, and the last day's hours before
    day: Window = Window()  # the last 24 hours, and the last week's days before


# The key of what was spent without one of the account's own: with a token, or as a trusted service has reported.
NO_KEY = ""


class Subject(msgspec.Struct, frozen=True):
    """Whose spending it is: a key's, a member's, or all of an account's."""

    account_id: str
    member_id: str | None = None
    key_id: str | None = None  # of a member's key or token, the member is named too


class Verdict(msgspec.Struct, frozen=True):
    """Spending that is unusual: by which rule, how much, and how much would have been let pass."""

    rule: Rule
    spent: MicroCredits
    limit: MicroCredits
    usual: MicroCredits  # of an hour or a day; 0 for a burst
    minutes: int

    def text(self) -> str:
        """
        >>> Verdict(Rule.HOUR, 60_000_000_000, 50_000_000_000, 10_000_000_000, 60).text()
        '60000 credits in the last 60 minutes, usually 10000 an hour; 50000 are let pass'
        """
        usual = f", usually {_rounded(self.usual)} {'an hour' if self.rule is Rule.HOUR else 'a day'}"
        window = f"{self.minutes} minutes" if self.minutes <= 60 else f"{self.minutes // 60} hours"
        spent = f"{_rounded(self.spent)} credits in the last {window}"
        return f"{spent}{'' if self.rule is Rule.BURST else usual}; {_rounded(self.limit)} are let pass"


def judge(subject: Subject, spending: Spending, rules: Rules) -> Verdict | None:
    """The first rule that this spending breaks, or None.

    Nobody is put in review because only a part of them spends unusually: work moves from one key to another.
    """
    if rules.burst and subject.key_id is not None and spending.burst > rules.burst:
        return Verdict(Rule.BURST, spending.burst, rules.burst, 0, rules.burst_minutes)
    if _widened(subject, rules.width) != subject:
        return None
    return _beyond(Rule.HOUR, 60, spending.hour, rules.hour, rules.known_min) or _beyond(
        Rule.DAY, 24 * 60, spending.day, rules.day, rules.known_min
    )


def _beyond(rule: Rule, minutes: int, window: Window, bound: Bound, known_min: int) -> Verdict | None:
    usual = bound.times * window.usual_sum
    if window.known < known_min or window.spent <= bound.least or window.spent * window.known <= usual:
        return None
    limit = max(usual // window.known, bound.least)
    return Verdict(rule, window.spent, limit, window.usual_sum // window.known, minutes)


def widen(tripped: Mapping[Subject, Verdict], width: Width) -> dict[Subject, Verdict]:
    """What of one account is put in review for what tripped: nothing twice, and nothing wider than it must be.

    An account trips together with its key, of course; it is the key that did it.
    """
    widened: dict[Subject, Verdict] = {}
    for subject, verdict in tripped.items():
        wide = _widened(subject, width)
        widened[wide] = tripped.get(wide) or widened.get(wide, verdict)
    keys = {each for each in widened if each.key_id is not None}
    members = {each for each in widened if each.key_id is None and each.member_id is not None}
    members -= {Subject(key.account_id, key.member_id) for key in keys}
    chosen = keys | members or widened.keys()
    return {subject: verdict for subject, verdict in widened.items() if subject in chosen}


def _widened(subject: Subject, width: Width) -> Subject:
    """What is put in review for a subject: where there is no key, the token's member, or the account."""
    if width == "account":
        return Subject(subject.account_id)
    if subject.key_id == NO_KEY or (width == "member" and subject.member_id is not None):
        return Subject(subject.account_id, subject.member_id)
    return subject


def _rounded(amount: MicroCredits) -> str:
    """Whole credits, from one credit on: nobody reads the millionths of a sum."""
    return format_credits(amount // 1_000_000 * 1_000_000 if amount >= 1_000_000 else amount)

"""Notices: what can be told to accounts and operators, in which words, and how a receiver knows that it came from here.

The words stand in config/notices.toml and are checked when it is read, so that no notice fails for its template.
"""

import hashlib
import hmac
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from string import Formatter
from typing import Literal, TypeAlias

import msgspec


class Kind(StrEnum):
    LOW_BALANCE = "low_balance"
    DAYS_LEFT = "days_left"
    SOFT_CAP = "soft_cap"
    IN_REVIEW = "in_review"
    UNUSUAL = "unusual"
    RELEASED = "released"
    RECHARGE_PAUSED = "recharge_paused"
    PAYMENT_FAILED = "payment_failed"
    PAYMENT_REVIEW = "payment_review"
    DISPUTE = "dispute"
    MISMATCH = "mismatch"
    BREAKER_OPENED = "breaker_opened"
    BREAKER_CLOSED = "breaker_closed"
    BROWNOUT = "brownout"
    TEST = "test"


Fields: TypeAlias = Mapping[str, str | int]

# What whoever raises a notice must tell; a template uses some or all of it. `account` is filled in for every notice.
FIELDS: dict[Kind, frozenset[str]] = {
    Kind.LOW_BALANCE: frozenset({"available", "below"}),
    Kind.DAYS_LEFT: frozenset({"available", "days", "below", "per_day"}),
    Kind.SOFT_CAP: frozenset({"name", "used", "cap", "percent", "resets_at"}),
    Kind.IN_REVIEW: frozenset({"reference", "subject", "rule", "figures"}),
    Kind.UNUSUAL: frozenset({"subject", "rule", "figures"}),
    Kind.RELEASED: frozenset({"reference", "subject", "reason"}),
    Kind.RECHARGE_PAUSED: frozenset({"reason", "remedy"}),
    Kind.PAYMENT_FAILED: frozenset({"amount", "reason"}),
    Kind.PAYMENT_REVIEW: frozenset({"reference", "amount", "reason"}),
    Kind.DISPUTE: frozenset({"payment", "amount", "reason", "reference"}),
    Kind.MISMATCH: frozenset({"what", "expected", "found"}),
    Kind.BREAKER_OPENED: frozenset({"model", "reason"}),
    Kind.BREAKER_CLOSED: frozenset({"model", "reason"}),
    Kind.BROWNOUT: frozenset({"model", "level", "until", "reason"}),
    Kind.TEST: frozenset({"at"}),
}

SUBJECT_LENGTH_MAX = 200
FIELD_LENGTH_MAX = 1000


class NoticesError(ValueError):
    """The list of notices cannot be used."""


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of one kind, and whom they are for."""

    to: tuple[Literal["account", "operators"], ...]
    again_s: int
    subject: str
    text: str


class Words(msgspec.Struct, frozen=True):
    """One notice as people read it."""

    subject: str
    text: str


class Templates(msgspec.Struct, frozen=True):
    by_kind: dict[Kind, Template]

    def write(self, kind: Kind, fields: Fields) -> Words:
        """The words of a notice. A subject is one line, whatever its fields hold: it becomes a mail's header."""
        template = self.by_kind[kind]
        told = {name: str(value)[:FIELD_LENGTH_MAX] for name, value in fields.items()}
        subject = " ".join(template.subject.format_map(told).split())
        return Words(subject[:SUBJECT_LENGTH_MAX], template.text.strip().format_map(told))


def load_templates(text: str) -> Templates:
    """Read notices.toml; raises `NoticesError` for a kind too few or too many, or a field that nobody fills in."""
    try:
        by_kind = msgspec.convert(tomllib.loads(text), dict[Kind, Template])
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise NoticesError(str(error)) from error
    missing = [kind.value for kind in Kind if kind not in by_kind]
    if missing:
        raise NoticesError(f"no words for {', '.join(missing)}")
    for kind, template in by_kind.items():
        if template.again_s < 0:
            raise NoticesError(f"{kind}: again_s must not be negative")
        for words in (template.subject, template.text):
            _check(kind, words)
    return Templates(by_kind)


def check_fields(kind: Kind, fields: Fields) -> None:
    """Raises ValueError unless exactly the fields of this kind are told: every template can then be filled in."""
    if fields.keys() != FIELDS[kind]:
        raise ValueError(f"a {kind} notice tells {sorted(FIELDS[kind])}, not {sorted(fields)}")


def _check(kind: Kind, words: str) -> None:
    """Only plain names in braces: an attribute or an index would read more of a value than its text."""
    try:
        parts = list(Formatter().parse(words))
    except ValueError as error:
        raise NoticesError(f"{kind}: {error}") from error
    for _, name, spec, conversion in parts:
        if name is not None and (spec or conversion or name not in FIELDS[kind] | {"account"}):
            known = ", ".join(sorted(FIELDS[kind] | {"account"}))
            raise NoticesError(f"{kind}: {{{name}}} is not one of its fields: {known}")


def signature(secret: str, body: bytes, at_s: int) -> str:
    """The value of `x-tollgate-signature`: HMAC-SHA256 over "AT.BODY", in hexadecimal.

    >>> signature("s", b"{}", 1700000000)[:30]
    't=1700000000,v1=e9232c9945da84'
    """
    digest = hmac.new(secret.encode(), b"%d.%s" % (at_s, body), hashlib.sha256)
    return f"t={at_s},v1={digest.hexdigest()}"

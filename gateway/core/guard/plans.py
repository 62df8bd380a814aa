"""Plans: the caps that accounts have by default, read from config/policies.toml; and how caps are read from text."""

import tomllib

import msgspec

from gateway.core.guard.caps import UNLIMITED, Caps, Excess, Shortfall
from gateway.core.money import InvalidAmount, parse_credits

DEFAULT_PLAN = "default"
UNLIMITED_WORD = "unlimited"

_IN_CREDITS = frozenset({"request", "day", "month"})


class PlansError(Exception):
    """policies.toml is not what it must be. The message says where."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A plan as it is written."""

    request: int | float | str | None = None
    day: int | float | str | None = None
    month: int | float | str | None = None
    output_tokens: int | str | None = None
    requests_a_minute: int | str | None = None
    tokens_a_minute: int | str | None = None
    concurrent: int | str | None = None
    models_allowed: tuple[str, ...] | None = None
    models_denied: tuple[str, ...] | None = None
    on_output: Excess | None = None
    on_unaffordable: Shortfall | None = None


class _Policies(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plan: dict[str, Plan] = {}


class Plans(msgspec.Struct, frozen=True):
    by_name: dict[str, Caps]

    @property
    def names(self) -> tuple[str, ...]:
        """Those an account can be on; the default one is there even if nothing is said of it."""
        return tuple(sorted(self.by_name.keys() | {DEFAULT_PLAN}))

    def caps(self, name: str) -> Caps:
        """The caps of a plan; those of the default one, if there is no such plan."""
        found = self.by_name.get(name)
        return self.by_name.get(DEFAULT_PLAN, Caps()) if found is None else found


def load_plans(text: str) -> Plans:
    """Read policies.toml; raises `PlansError`."""
    try:
        read = msgspec.convert(tomllib.loads(text), _Policies)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PlansError(str(error)) from error
    return Plans({name: _caps(name, plan) for name, plan in read.plan.items()})


def parse_limit(name: str, text: str) -> int:
    """A cap from a command or a file: credits for amounts, else a whole number; raises `InvalidAmount`.

    >>> parse_limit("day", "2.5"), parse_limit("concurrent", "10"), parse_limit("day", "unlimited") == UNLIMITED
    (2500000, 10, True)
    """
    if text == UNLIMITED_WORD:
        return UNLIMITED
    if name in _IN_CREDITS:
        limit = parse_credits(text)
    elif text.isascii() and text.isdecimal() and len(text) <= len(str(UNLIMITED)):
        limit = int(text)
    else:
        raise InvalidAmount(f"{text!r} is neither a whole number nor {UNLIMITED_WORD!r}")
    least = 1 if name == "output_tokens" else 0
    if not least <= limit < UNLIMITED:
        raise InvalidAmount(f"{text!r} is not from {least} up, or too large")
    return limit


def _caps(plan_name: str, plan: Plan) -> Caps:
    limits = {}
    for name, value in msgspec.structs.asdict(plan).items():
        if isinstance(value, int | float | str) and not isinstance(value, Excess | Shortfall):
            try:
                limits[name] = parse_limit(name, str(value))
            except InvalidAmount as error:
                raise PlansError(f"plan.{plan_name}.{name}: {error}") from error
    return Caps(
        **limits,
        models_allowed=plan.models_allowed,
        models_denied=plan.models_denied,
        on_output=plan.on_output,
        on_unaffordable=plan.on_unaffordable,
    )

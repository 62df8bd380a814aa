"""How a hold is written down in Redis, for those who look at it without a script. `lua/` alone writes it."""

import msgspec

from gateway.core.calls.usage import Usage
from gateway.core.holds import HoldState, Terms
from gateway.core.money import MicroCredits

_decode_terms = msgspec.json.Decoder(Terms).decode
_decode_usage = msgspec.json.Decoder(Usage).decode


class StoredHold(msgspec.Struct, frozen=True):
    epoch: int
    state: HoldState
    account_id: str
    attempt: int
    fingerprint: str
    amount: MicroCredits
    rest: bytes  # what the state has beside these

    def opened(self) -> tuple[MicroCredits, Usage, Terms]:
        """Of an open hold: its progress, the usage of that, and its terms."""
        progress, usage, terms = self.rest.split(b" ", 2)
        return int(progress), _decode_usage(usage), _decode_terms(terms)


def read_hold(line: bytes) -> StoredHold:
    """Read the value of a hold's key; raises `ValueError` if it is none.

    >>> read_hold(b"1 captured 0197a3c2 1 f00d 500 126 1-7").state
    <HoldState.CAPTURED: 'captured'>
    """
    epoch, state, account_id, attempt, fingerprint, amount, rest = line.split(b" ", 6)
    return StoredHold(
        int(epoch),
        HoldState(state.decode()),
        account_id.decode(),
        int(attempt),
        fingerprint.decode(),
        int(amount),
        rest,
    )


def owner_of(line: bytes | None) -> str:
    """The account of a hold; "" if there is none, or the line cannot be read."""
    words = (line or b"").split(b" ", 3)
    return words[2].decode() if len(words) > 3 else ""


def terms_of(line: bytes | None) -> Terms | None:
    """The terms of an open hold; None if there is none, or the line cannot be read."""
    try:
        hold = read_hold(line or b"")
        return hold.opened()[2] if hold.state is HoldState.OPEN else None
    except (ValueError, msgspec.DecodeError):
        return None

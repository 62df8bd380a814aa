"""The chain of seals over the ledger: each head is the hash of the head before it and of the transfers it covers.

Pure: how a chain goes on, and what is wrong where a stored seal and the ledger disagree.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

LEAF_BYTES = 32


class Leaf(NamedTuple):
    """The hash of one transfer with its entries and its usage line."""

    transfer_id: str
    hash: bytes


class Seal(msgspec.Struct, frozen=True):
    """One link of the chain; numbered from 1 without gaps."""

    number: int
    ordinal_last: int  # of the transfers covered by this and all seals before it
    leaves: tuple[Leaf, ...]
    head: bytes


BEGINNING = Seal(number=0, ordinal_last=0, leaves=(), head=b"")


def seal_after(before: Seal, ordinal_last: int, leaves: Sequence[Leaf]) -> Seal:
    """The seal that covers `leaves`, which follow on `before` in the ledger's order."""
    return Seal(before.number + 1, ordinal_last, tuple(leaves), _head(before.head, leaves))


def judge(before: Seal, seal: Seal, ledger: Sequence[Leaf]) -> list[str]:
    """What is wrong with `seal`, given the one before it and what the ledger holds in its place; nothing, if sound."""
    wrong = []
    if seal.number != before.number + 1:
        wrong.append(f"seals {before.number + 1} to {seal.number - 1} have vanished")
    elif seal.head != _head(before.head, seal.leaves):
        wrong.append(f"seal {seal.number} does not follow from the one before it: one of them was changed")
    sealed, held = dict(seal.leaves), dict(ledger)
    for transfer_id, leaf in sealed.items():
        if transfer_id not in held:
            wrong.append(f"transfer {transfer_id} of seal {seal.number} has vanished")
        elif held[transfer_id] != leaf:
            wrong.append(f"transfer {transfer_id} of seal {seal.number} was changed")
    wrong += [f"transfer {each} was slipped in under seal {seal.number}" for each in held if each not in sealed]
    if not wrong and list(sealed) != list(held):
        wrong.append(f"the transfers of seal {seal.number} were put in another order")
    return wrong


def _head(before: bytes, leaves: Sequence[Leaf]) -> bytes:
    return hashlib.sha256(before + b"".join(leaf.hash for leaf in leaves)).digest()

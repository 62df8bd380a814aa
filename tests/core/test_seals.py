"""The chain of seals: whatever is changed in the ledger or in a seal is found, and named."""

import hashlib

import msgspec
import pytest

from gateway.core.accounting.seals import BEGINNING, Leaf, Seal, judge, seal_after


def leaf(name: str) -> Leaf:
    return Leaf(name, hashlib.sha256(name.encode()).digest())


A, B, C = map(leaf, "abc")
FIRST = seal_after(BEGINNING, 2, [A, B])
SECOND = seal_after(FIRST, 3, [C])


def test_a_seal_that_agrees_with_the_ledger_is_sound() -> None:
    assert judge(BEGINNING, FIRST, [A, B]) == []
    assert judge(FIRST, SECOND, [C]) == []


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        ([A], "transfer b of seal 1 has vanished"),
        ([A, Leaf("b", C.hash)], "transfer b of seal 1 was changed"),
        ([A, B, C], "transfer c was slipped in under seal 1"),
        ([B, A], "the transfers of seal 1 were put in another order"),
    ],
)
def test_what_happened_to_a_transfer_is_named(ledger: list[Leaf], said: str) -> None:
    assert judge(BEGINNING, FIRST, ledger) == [said]


def test_a_seal_whose_hashes_were_changed_with_the_ledger_breaks_the_chain() -> None:
    forged = msgspec.structs.replace(FIRST, leaves=(A, C))
    assert judge(BEGINNING, forged, [A, C]) == [
        "seal 1 does not follow from the one before it: one of them was changed"
    ]


def test_a_seal_made_anew_breaks_the_chain_behind_it() -> None:
    forged = seal_after(BEGINNING, 2, [A, C])
    assert judge(BEGINNING, forged, [A, C]) == []
    assert judge(forged, SECOND, [C]) == ["seal 2 does not follow from the one before it: one of them was changed"]


def test_a_seal_that_has_vanished_is_missed() -> None:
    later: Seal = seal_after(SECOND, 4, [leaf("d")])
    assert judge(FIRST, later, [leaf("d")]) == ["seals 2 to 2 have vanished"]

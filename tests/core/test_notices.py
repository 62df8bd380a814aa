"""Notices: their words are checked when they are read, and their signature proves where they come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.notices import (
    FIELDS,
    Fields,
    Kind,
    NoticesError,
    Templates,
    load_templates,
    signature,
)
from gateway.resources import shipped
from tests.documented import is_from_tollgate

SHIPPED = (shipped("config") / "notices.toml").read_text()


@pytest.fixture(scope="module")
def templates() -> Templates:
    return load_templates(SHIPPED)


@pytest.mark.parametrize("kind", Kind)
def test_every_shipped_notice_can_be_written(templates: Templates, kind: Kind) -> None:
    words = templates.write(kind, {name: name.upper() for name in FIELDS[kind]} | {"account": "acme"})

    assert words.subject
    assert words.text
    assert "{" not in words.subject + words.text


@given(st.text(), st.text())
def test_whatever_its_fields_hold_a_subject_is_one_bounded_line(account: str, name: str) -> None:
    fields: Fields = {"account": account, "name": name, "used": 1, "cap": 2, "percent": 80, "resets_at": "midnight"}
    subject = load_templates(SHIPPED).write(Kind.SOFT_CAP, fields).subject

    assert len(subject.splitlines()) == 1
    assert len(subject) <= 200


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("{available} credits left", "{available.__class__} credits left", "available.__class__"),
        ("{available} credits left", "{available!r} credits left", "available"),
        ("{available} credits left", "{available:>99999999} credits left", "available"),
        ("{available} credits left", "{avialable} credits left", "avialable"),
        ("{available} credits left", "{ credits left", "low_balance"),
        ("[low_balance]", "[low_blance]", "low_blance"),
        ("again_s = 86400", "again_s = -1", "negative"),
        ('to = ["account"]', 'to = ["everybody"]', "everybody"),
    ],
)
def test_words_that_could_not_be_written_are_refused_when_they_are_read(was: str, becomes: str, said: str) -> None:
    with pytest.raises(NoticesError, match=said):
        load_templates(SHIPPED.replace(was, becomes, 1))


def test_a_kind_without_words_is_refused() -> None:
    with pytest.raises(NoticesError, match="no words for test"):
        load_templates(SHIPPED.partition("[test]")[0])


def test_a_receiver_accepts_what_was_signed_lately_and_nothing_else() -> None:
    header = signature("secret", b'{"a":1}', 1000)

    assert is_from_tollgate(header, b'{"a":1}', "secret", now_s=1100)
    assert not is_from_tollgate(header, b'{"a":2}', "secret", now_s=1100)
    assert not is_from_tollgate(header, b'{"a":1}', "other", now_s=1100)
    assert not is_from_tollgate(header, b'{"a":1}', "secret", now_s=1301)
    assert not is_from_tollgate(header.replace("t=1000", "t=1001"), b'{"a":1}', "secret", now_s=1100)


@given(st.text())
def test_no_header_upsets_a_receiver(header: str) -> None:
    assert not is_from_tollgate(header, b"{}", "secret", now_s=1000)

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls.sse import EventSplitter, event_data

LINES = st.sampled_from([b"data: {}", b"data:x", b"event: a", b": comment", b"id: 1", b"data: \xc3\xa9", b""])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def split(pieces: list[bytes], event_bytes_max: int = 1_000_000) -> tuple[list[bytes], bytes]:
    splitter = EventSplitter(event_bytes_max)
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.take_tail()


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(at % (len(stream) + 1) for at in cuts)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.lists(st.integers(0, 10_000)))
def test_any_split_of_a_stream_gives_the_same_events(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    whole, whole_tail = split([stream])
    pieces, pieces_tail = split(cut(stream, cuts))
    assert [*pieces, pieces_tail] == [*whole, whole_tail]


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000)))
def test_nothing_is_lost_or_changed(stream: bytes, cuts: list[int]) -> None:
    events, tail = split(cut(stream, cuts))
    assert b"".join(events) + tail == stream


def test_an_oversized_event_is_passed_on_and_not_read() -> None:
    big = b"data: " + b"x" * 100 + b"\n\n"
    events, tail = split([big[:40], big[40:90], big[90:], b"data: next\n\n"], event_bytes_max=32)
    assert b"".join(events) + tail == big + b"data: next\n\n"
    assert [event_data(event) for event in events if event_data(event)] == [b"next"]


def test_data_of_several_lines_is_joined() -> None:
    assert event_data(b"event: x\r\ndata: a\r\ndata: b\r\n\r\n") == b"a\nb"

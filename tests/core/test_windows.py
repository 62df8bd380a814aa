"""Days and months of every time zone: each moment lies in exactly one of them."""

from datetime import UTC, datetime
from zoneinfo import available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.guard.windows import UnknownTimeZone, ends_at, id_bound, opened_ms, windows_at
from gateway.core.ids import uuid7

HOUR_MS = 3_600_000
moments = st.integers(946_684_800_000, 4_102_444_800_000)  # 2000 … 2100
zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"}))


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@given(moments, zones)
def test_every_moment_lies_in_its_day_and_its_month(time_ms: int, zone: str) -> None:
    day, month = windows_at(time_ms, zone)
    assert day.start_ms <= time_ms < day.end_ms
    assert month.start_ms <= day.start_ms
    assert day.end_ms <= month.end_ms


@given(moments, zones)
def test_windows_follow_on_each_other_without_gap_or_overlap(time_ms: int, zone: str) -> None:
    for kind in (0, 1):
        window = windows_at(time_ms, zone)[kind]
        assert windows_at(window.start_ms, zone)[kind] == window
        assert windows_at(window.end_ms - 1, zone)[kind] == window
        after = windows_at(window.end_ms, zone)[kind]
        assert (after.start_ms, after.name > window.name) == (window.end_ms, True)
        assert windows_at(window.start_ms - 1, zone)[kind].end_ms == window.start_ms


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        ("2026-03-29T12:00+02:00", "Europe/Berlin", 23),
        ("2026-10-25T12:00+01:00", "Europe/Berlin", 25),
        ("2026-11-21T12:00+00:00", "UTC", 24),
        ("2018-11-04T12:00-02:00", "America/Sao_Paulo", 23),  # clocks skipped midnight
        ("2018-02-17T12:00-02:00", "America/Sao_Paulo", 25),  # and went back at it
        ("2026-04-05T12:00+10:30", "Australia/Lord_Howe", 24.5),
    ],
)
def test_a_day_is_as_long_as_its_clocks_say(day: str, zone: str, hours: float) -> None:
    window = windows_at(ms(day), zone).day
    assert (window.end_ms - window.start_ms) / HOUR_MS == hours


def test_the_date_is_that_of_the_accounts_own_zone() -> None:
    moment = ms("2026-11-30T23:30:00+00:00")
    assert [windows_at(moment, zone).day.name for zone in ("UTC", "Asia/Tokyo", "America/Los_Angeles")] == [
        "2026-11-30@UTC",
        "2026-12-01@Asia/Tokyo",
        "2026-11-30@America/Los_Angeles",
    ]
    assert windows_at(moment, "Asia/Tokyo").month.name == "2026-12@Asia/Tokyo"
    assert ends_at(windows_at(moment, "UTC").day, "UTC") == "2026-12-01T00:00:00+00:00"


@given(moments, st.binary(min_size=10, max_size=10))
def test_a_request_id_tells_when_its_call_was_opened(time_ms: int, random: bytes) -> None:
    request_id = uuid7(time_ms, random)
    assert opened_ms(request_id) == time_ms
    assert id_bound(time_ms) <= request_id < id_bound(time_ms + 1)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "/etc/localtime", "a" * 5000, "x\0y"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(UnknownTimeZone):
        windows_at(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000), name)

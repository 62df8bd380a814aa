"""Windows: the days and months of an account's own time zone, as spans of Unix time.

A call belongs to the window that it was opened in, by the time in its request id, wherever it ends: so over midnight
and over a month's end it is held, charged and counted anew in one and the same window.
"""

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

UTC_NAME = "UTC"


class UnknownTimeZone(ValueError):
    """There is no time zone of that name."""


class Window(NamedTuple):
    """A span of time: `start_ms` is in it, `end_ms` is not. Its name tells it from the same date of another zone."""

    name: str
    start_ms: int
    end_ms: int


class Windows(NamedTuple):
    """The windows that one moment lies in."""

    day: Window
    month: Window


def windows_at(time_ms: int, time_zone: str) -> Windows:
    """The day and the month of `time_ms` in `time_zone`; raises `UnknownTimeZone`.

    >>> windows_at(1_795_300_000_000, "Europe/Berlin").day.name
    '2026-11-21@Europe/Berlin'
    """
    zone = zone_of(time_zone)
    today = datetime.fromtimestamp(time_ms // 1000, zone).date()
    return _windows_of(today, time_zone)


@lru_cache(maxsize=1024)
def _windows_of(today: date, time_zone: str) -> Windows:
    zone = zone_of(time_zone)
    first = today.replace(day=1)
    after = (first + timedelta(days=31)).replace(day=1)
    return Windows(
        Window(f"{today}@{time_zone}", _start_ms(today, zone), _start_ms(today + timedelta(days=1), zone)),
        Window(f"{first:%Y-%m}@{time_zone}", _start_ms(first, zone), _start_ms(after, zone)),
    )


def _start_ms(day: date, zone: ZoneInfo) -> int:
    """When a day begins: its first midnight. Where the clocks skip midnight, the moment at which they do."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * 1000


@lru_cache(maxsize=1024)
def zone_of(time_zone: str) -> ZoneInfo:
    """The time zone of that name; raises `UnknownTimeZone`."""
    try:
        return ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownTimeZone(f"There is no time zone {time_zone[:64]!r}.") from error


def opened_ms(request_id: str) -> int:
    """The time in a request id, in Unix ms: when its call was opened.

    >>> opened_ms("018bcfe5-6800-7000-8000-000000000000")
    1700000000000
    """
    return int(request_id[:8] + request_id[9:13], 16)


def id_bound(time_ms: int) -> str:
    """The least request id of `time_ms`: what was opened before sorts below it, what was opened since does not.

    >>> id_bound(1_700_000_000_000)
    '018bcfe5-6800-0000-0000-000000000000'
    """
    text = f"{time_ms:012x}"
    return f"{text[:8]}-{text[8:]}-0000-0000-000000000000"


def ends_at(window: Window, time_zone: str) -> str:
    """When a window ends, as its account reads clocks.

    >>> ends_at(windows_at(1_795_300_000_000, "Europe/Berlin").month, "Europe/Berlin")
    '2026-12-01T00:00:00+01:00'
    """
    return datetime.fromtimestamp(window.end_ms // 1000, UTC).astimezone(zone_of(time_zone)).isoformat()

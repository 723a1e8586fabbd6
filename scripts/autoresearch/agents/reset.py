"""When a usage limit is over, read from what a client says: "8:11am (UTC)", "Nov 27, 5:32pm (Europe/Berlin)"."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WHEN = re.compile(
    r"""^\s*(?:resets?\s+|at\s+)*
    (?:(?P<month>[A-Za-z]{3,9})\.?\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?(?:,\s*(?P<year>\d{4}))?(?:,|\s+at)?\s+(?:at\s+)?)?
    (?P<hour>\d{1,2})(?::(?P<minute>\d{2}))?\s*(?P<half>[AaPp]\.?[Mm]\.?)?
    (?:\s*\(\s*(?P<zone>[^()]+?)\s*\)|\s+(?P<utc>UTC|GMT|Z))?[\s.]*$""",
    re.VERBOSE | re.ASCII,
)
_JUST_PAST = timedelta(minutes=10)  # a reset seen this shortly after it is over, not due in a year or a day


def reset_time(text: str, now: datetime) -> datetime | None:
    """The moment that ``text`` names, in ``now``'s zone; None if it names none.

    The text's own zone counts, without one it is ``now``'s. A time of day is the next one, a date without
    a year the next one too. What has passed in the last few minutes is given as it is: the limit is over.
    ``now`` must know its zone.
    """
    match = _WHEN.match(" ".join(text.split()))
    if match is None:
        return None
    zone = _zone(match["zone"] or match["utc"], now)
    time_of_day = _time_of_day(match["hour"], match["minute"], match["half"])
    if zone is None or time_of_day is None:
        return None
    moments = (
        datetime.combine(day, time_of_day.replace(fold=fold), tzinfo=zone).astimezone(now.tzinfo)
        for day in _days(match, now.astimezone(zone).date())
        for fold in (0, 1)  # at the end of summer time an hour comes twice
    )
    # Compared in UTC, since within one zone Python compares clock readings, and those repeat in that hour.
    earliest = now.astimezone(UTC) - _JUST_PAST
    return next((each for each in moments if match["year"] or each.astimezone(UTC) > earliest), None)


def _days(match: re.Match[str], today: date) -> Iterator[date]:
    """The days that may be meant, the earliest first."""
    if match["month"] is None:
        yield from (today + timedelta(days=days) for days in (-1, 0, 1))
        return
    years = [int(match["year"])] if match["year"] else range(today.year - 1, today.year + 9)
    for year in years:
        with contextlib.suppress(ValueError):  # no such month, or no such day in it, as 29 February
            yield date(year, _month(match["month"]), int(match["day"]))


def _time_of_day(hour_text: str, minute_text: str | None, half: str | None) -> time | None:
    hour, minute = int(hour_text), int(minute_text or 0)
    if half is not None and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    elif half is not None or minute_text is None:
        return None
    return time(hour, minute) if hour < 24 and minute < 60 else None


def _month(word: str) -> int:
    """1 to 12; 0, which is no month, for another word."""
    start = word[:3].lower()
    return _MONTHS.index(start) + 1 if start in _MONTHS else 0


def _zone(name: str | None, now: datetime) -> tzinfo | None:
    """The zone of that name; ``now``'s own if none is named; None if there is no such zone."""
    if name is None:
        return now.tzinfo
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # a path, a directory, a name that is not there
        return None

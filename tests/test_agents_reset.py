from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoresearch.agents.reset import reset_time

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]


NOON = utc(2026, 11, 24, 12)
MOMENTS = st.integers(0, 10 * 365 * 24 * 60).map(lambda minutes: utc(2025, 1, 1) + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("3pm", utc(2026, 11, 24, 15)),
        ("3:07 PM", utc(2026, 11, 24, 15, 7)),
        ("2:26 p.m.", utc(2026, 11, 24, 14, 26)),
        ("8:11am (UTC)", utc(2026, 11, 25, 8, 11)),  # over for today
        ("12am (UTC)", utc(2026, 11, 25)),
        ("12:30pm", utc(2026, 11, 24, 12, 30)),
        ("13:40", utc(2026, 11, 24, 13, 40)),
        ("resets 3pm (UTC)", utc(2026, 11, 24, 15)),
        ("3pm UTC", utc(2026, 11, 24, 15)),
        ("3pm (America/New_York)", utc(2026, 11, 24, 20)),
        ("12:30am (Asia/Tokyo)", utc(2026, 11, 24, 15, 30)),  # tomorrow there
        ("Nov 27, 5:32pm (Europe/Berlin)", utc(2026, 11, 27, 16, 32)),
        ("Nov 27, 5pm", utc(2026, 11, 27, 17)),
        ("Nov 29th, 2026 12:01 PM", utc(2026, 11, 29, 12, 1)),
        ("December 1 at 9am", utc(2026, 12, 1, 9)),
        ("Jan 2, 3pm (UTC)", utc(2027, 1, 2, 15)),  # next year
        ("Feb 29, 3pm (UTC)", utc(2028, 2, 29, 15)),  # the next one there is
        ("  Nov 27,\n   5:32pm (Europe/\n Berlin)", None),
        ("Nov 27,\n   5:32pm\n (UTC)", utc(2026, 11, 27, 17, 32)),  # wrapped
    ],
)
def test_text_names_a_moment(text: str, moment: datetime | None) -> None:
    assert reset_time(text, NOON) == moment


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "5", "25:00", "13pm", "0am", "8:61am", "Feb 30, 1pm", "Feb 30, 2026 1:00 PM", "Foo 3, 1pm",
        "8:11am (Mars/Base)", "8:11am (../etc)", "8:11am (/etc/passwd)", "8:11am (Europe)", "8:11am ()", "in 3 hours",
        "-1:00", "99999999999pm", "Nov 27, 2026", "8:11am (UTC) or so", "1:00\x00", "\uff18pm", "Jan 1, 0000 1:00 PM",
    ],
)  # fmt: skip
def test_nonsense_names_none(text: str) -> None:
    assert reset_time(text, NOON) is None


def test_time_without_a_zone_is_the_machines() -> None:
    assert reset_time("3pm", NOON.astimezone(BERLIN)) == utc(2026, 11, 24, 14)
    moment = reset_time("11am", NOON.astimezone(BERLIN))
    assert moment == utc(2026, 11, 25, 10)


def test_limit_that_is_just_over_is_not_waited_for_until_tomorrow() -> None:
    """A line on the screen outlives its time: whoever reads it minutes later may go on at once."""
    assert reset_time("11:55am (UTC)", NOON) == utc(2026, 11, 24, 11, 55)
    assert reset_time("11:45am (UTC)", NOON) == utc(2026, 11, 25, 11, 45)
    assert reset_time("11:58pm (UTC)", utc(2026, 11, 25, 0, 2)) == utc(2026, 11, 24, 23, 58)
    assert reset_time("Dec 31, 11:58pm (UTC)", utc(2027, 1, 1, 0, 2)) == utc(2026, 12, 31, 23, 58)


@pytest.mark.parametrize(
    ("text", "now", "moment"),
    [
        ("8am", datetime(2026, 10, 24, 22, tzinfo=BERLIN), utc(2026, 10, 25, 7)),  # summer time has ended by then
        ("2:30am", datetime(2026, 10, 24, 22, tzinfo=BERLIN), utc(2026, 10, 25, 0, 30)),  # the first of the two
        ("6am", datetime(2026, 3, 7, 22, tzinfo=NEW_YORK), utc(2026, 3, 8, 10)),  # summer time has begun by then
        ("2:30am", datetime(2026, 3, 7, 22, tzinfo=NEW_YORK), utc(2026, 3, 8, 7, 30)),  # shown by no clock
        ("2:30am (America/New_York)", utc(2026, 3, 8, 3), utc(2026, 3, 8, 7, 30)),
        ("8am (Europe/Berlin)", utc(2026, 10, 24, 20), utc(2026, 10, 25, 7)),
        ("2:50am", utc(2026, 10, 25, 0, 30).astimezone(BERLIN), utc(2026, 10, 25, 0, 50)),
        ("2:50am", utc(2026, 10, 25, 1, 30).astimezone(BERLIN), utc(2026, 10, 25, 1, 50)),  # it is 2:30 a second time
    ],
)
def test_clock_changes_do_not_move_the_moment(text: str, now: datetime, moment: datetime) -> None:
    found = reset_time(text, now)
    assert found is not None
    assert found.astimezone(UTC) == moment
    assert found.tzinfo == now.tzinfo


@given(
    now=MOMENTS,
    minutes=st.integers(1, 24 * 60 - 11),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "Asia/Tokyo", "America/Phoenix", "Pacific/Kiritimati"]),
)
def test_a_time_of_day_is_found_again(now: datetime, minutes: int, zone: str) -> None:
    """In zones without summer time: what a client prints is what it meant, to the minute."""
    meant = (now + timedelta(minutes=minutes)).replace(second=0, microsecond=0)
    there = meant.astimezone(ZoneInfo(zone))
    text = f"{there:%I:%M%p}".lstrip("0").lower()
    assert reset_time(f"{text} ({zone})", now) == meant


@given(
    now=MOMENTS,
    days=st.integers(1, 300),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_a_date_is_found_again(now: datetime, days: int, zone: str) -> None:
    there = (now + timedelta(days=days)).astimezone(ZoneInfo(zone)).replace(hour=12, minute=0, second=0, microsecond=0)
    assert reset_time(f"{there:%b %d}, 12pm ({zone})", now) == there


@given(st.text(max_size=60))
def test_any_text_is_answered(text: str) -> None:
    moment = reset_time(text, NOON)
    assert moment is None or moment.tzinfo is not None

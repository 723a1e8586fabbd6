"""What the other agents of a session have kept and tried, as a few lines beside a status."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.campaign.memory import Lesson
from autoresearch.campaign.others import Other
from autoresearch.output import one_line

KEEPS_SHOWN = 3
FAILED_SHOWN = 2
DESCRIPTION_WIDTH = 70


def other_lines(others: Sequence[Other]) -> list[str]:
    """At most a dozen lines for a few agents."""
    if not others:
        return []
    lines = ["others, at work on the same number (a gain there is a hint here, never counted):"]
    for other in others:
        gain = "no baseline yet" if other.gain is None else f"gain {other.gain:+.3g}"
        strange = "" if other.comparable else "; measured otherwise than here"
        lines.append(f"  {other.tag}: {other.kept} of {other.tried} kept, {gain}{strange}")
        lines += [_kept(other, lesson) for lesson in other.keeps[:KEEPS_SHOWN]]
        lines += [_line(lesson) for lesson in other.failed[:FAILED_SHOWN]]
    if wanted := [lesson for other in others for lesson in other.keeps if lesson.number not in other.known]:
        lines.append(f"  adopt one: python scripts/run_experiment.py --adopt {wanted[0].tag}/{wanted[0].number}")
    return lines


def _kept(other: Other, lesson: Lesson) -> str:
    own = other.known.get(lesson.number)
    return _line(lesson) + (f" (here it is experiment {own})" if own else "")


def _line(lesson: Lesson) -> str:
    gain = "-" if lesson.gain is None else f"{lesson.gain:+.3g}"
    where = f"{lesson.tag}/{lesson.number}"
    description = one_line(lesson.description, DESCRIPTION_WIDTH)
    return f"    {where:<14} {lesson.commit[:7]} {lesson.status:<8}{gain:>10} {description}"

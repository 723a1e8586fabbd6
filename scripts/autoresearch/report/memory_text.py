"""What was tried before, as lines for a terminal: short beside a status, long on request."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from autoresearch.campaign.memory import Earlier, Family, Lesson, Memory
from autoresearch.output import one_line
from autoresearch.report.format import number

CAMPAIGNS_SHOWN = 3
FAMILIES_SHOWN = 6
KEEPS_SHOWN = 3
DESCRIPTION_WIDTH = 70
NOTE_WIDTH = 100
UNNAMED = "no family"


def memory_lines(memory: Memory) -> list[str]:
    """The current campaign's families, and what each earlier campaign came to."""
    lines = [f"families: {family_list(memory.families)}"] if memory.families else []
    return lines + earlier_lines(memory, keeps=0)


def earlier_lines(memory: Memory, *, keeps: int = KEEPS_SHOWN) -> list[str]:
    """What earlier campaigns of this project came to, each with its ``keeps`` largest gains."""
    if not memory.earlier:
        return []
    lines = [f"earlier campaigns tried: {family_list(memory.earlier_families)}"]
    for earlier in memory.earlier[:CAMPAIGNS_SHOWN]:
        lines.append(f"  {_result(earlier)}")
        lines += [f"    {_kept(lesson)}" for lesson in earlier.keeps[:keeps]]
    more = len(memory.earlier) - CAMPAIGNS_SHOWN
    if more > 0:
        lines.append(f"  and {more} more")
    lines.append("  all of it: python scripts/status.py --memory")
    return lines


def family_list(families: Sequence[Family]) -> str:
    """``optimizer 3 of 12 kept, data 0 of 4``."""
    shown = [f"{family.name or UNNAMED} {family.kept} of {family.tried}" for family in families[:FAMILIES_SHOWN]]
    shown[:1] = [f"{shown[0]} kept"] if shown else []
    more = len(families) - FAMILIES_SHOWN
    return ", ".join([*shown, f"and {more} more"] if more > 0 else shown)


def near_miss_lines(near_misses: Sequence[Lesson], incumbent_commit: str) -> list[str]:
    """Discards that looked a little better, and whether the code they were tried on is still the incumbent."""
    lines = [f"  {_outcome(lesson)}{_other_base(lesson, incumbent_commit)}" for lesson in near_misses]
    return ["near misses:", *lines] if lines else []


def render_lessons(lessons: Sequence[Lesson], *, left_off: bool) -> str:
    """All that was tried, by family; with ``left_off`` the oldest are missing."""
    if not lessons:
        return "nothing was tried in this project yet"
    by_family = sorted(lessons, key=lambda lesson: lesson.family)  # stable: the newest stays first
    lines = [f"{len(lessons)} ideas tried, the newest first{'; older ones are left off' * left_off}"]
    lines.append("gain: beside the incumbent of its time, above 0 is better")
    for family, group in groupby(by_family, key=lambda lesson: lesson.family):
        members = list(group)
        kept = sum(lesson.status == "keep" for lesson in members)
        lines.append(f"{family or UNNAMED}: {kept} of {len(members)} kept")
        lines += [f"  {_outcome(lesson)}{_note(lesson)}" for lesson in members]
    return "\n".join(lines)


def _result(earlier: Earlier) -> str:
    way = ""
    if earlier.first is not None and earlier.best is not None:
        way = f" {number(earlier.first)} -> {number(earlier.best)}"
    return f"{earlier.tag}: {earlier.metric}{way}, {earlier.kept} of {earlier.tried} kept"


def _kept(lesson: Lesson) -> str:
    return f"{_gain(lesson)} {one_line(lesson.description, DESCRIPTION_WIDTH)}"


def _outcome(lesson: Lesson) -> str:
    where = f"{lesson.tag} #{lesson.number}"
    return f"{where:<12} {lesson.status:<8}{_gain(lesson):>10} {one_line(lesson.description, DESCRIPTION_WIDTH)}"


def _gain(lesson: Lesson) -> str:
    return "-" if lesson.gain is None else f"{lesson.gain:+.3g}"


def _note(lesson: Lesson) -> str:
    return f"; {one_line(lesson.note, NOTE_WIDTH)}" if lesson.note else ""


def _other_base(lesson: Lesson, incumbent_commit: str) -> str:
    return "" if lesson.base.startswith(incumbent_commit) else " (the code has changed since: a retry is fair)"

"""The parts of a campaign's page: kept ideas, near misses, failures, time, families, notes, next steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from autoresearch.output import one_line
from autoresearch.plain import plain
from autoresearch.report.figures import Judged, Summary
from autoresearch.report.format import NOTHING, duration, gpu_hours, share, signed
from autoresearch.report.page import MOST_WIDTH, Column, Section, command, facts, line, more, table
from autoresearch.report.recommendations import recommend

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

KEPT_SHOWN = 14  # the last ones
NEAR_MISSES_SHOWN = 5
CONSTRAINED_SHOWN = 3
FAILURES_SHOWN = 5
FAMILIES_SHOWN = 6
NOTES_SHOWN = 4
INSIGHTS_SHOWN = 8  # lines
EVENTS_SHOWN = 4
STEPS_SHOWN = 8


def kept(summary: Summary, width: int) -> Section:
    undone = sum(bool(each.undone) for each in summary.kept)
    title = f"Kept ideas ({len(summary.kept) - undone}" + (f", and {undone} taken back)" if undone else ")")
    shown = judged_table(summary.kept[-KEPT_SHOWN:], width, epochs=summary.epoch > 1)
    return Section(title=title, parts=[*shown, *more(len(summary.kept), KEPT_SHOWN, "earlier")])


def near_misses(summary: Summary, width: int) -> Section:
    title = f"Near misses (of {summary.inconclusive} inconclusive): worth more seeds"
    return Section(title=title, parts=judged_table(summary.near_misses[:NEAR_MISSES_SHOWN], width))


def constraint_limited(summary: Summary, width: int) -> Section:
    found = summary.constraint_limited
    shown = judged_table(found[:CONSTRAINED_SHOWN], width)
    return Section(title="Better, but refused by a constraint", parts=[*shown, *more(len(found), CONSTRAINED_SHOWN)])


def judged_table(experiments: Sequence[Judged], width: int, *, epochs: bool = False) -> list[RenderableType]:
    if not experiments:
        return []
    columns = [
        Column(title="#"),
        *([Column(title="epoch", rank=5)] if epochs else []),
        Column(title="commit", words=True, rank=4),
        Column(title="gain ± 95 %"),
        Column(title="z", rank=1),
        Column(title="trials", rank=2),
        Column(title="lines", rank=3),
        Column(title="description"),
    ]
    rows: list[list[Text | str]] = [
        [
            str(each.number),
            *([str(each.epoch)] if epochs else []),
            each.commit[:7],
            gain_text(each),
            NOTHING if each.z is None else f"{each.z:.1f}",
            str(each.trials),
            f"+{each.lines_added} -{each.lines_deleted}",
            _remarked(each),
        ]
        for each in experiments
    ]
    return [table(columns, rows, width)]


def gain_text(idea: Judged) -> Text:
    """The gain and half its 95 % interval, which is symmetric."""
    if idea.gain is None or idea.gain_low is None or idea.gain_high is None:
        return line(NOTHING)
    text = f"{signed(idea.gain)} ± {plain((idea.gain_high - idea.gain_low) / 2, 2)}"
    if idea.undone:
        return line(text, "dim")
    return line(text, "green" if idea.gain_low > 0 else "red" if idea.gain_high < 0 else "")


def _remarked(idea: Judged) -> Text:
    remark = ""
    if idea.undone:
        remark = f"(undone: {idea.undone}) "
    elif idea.constraint:
        remark = f"({idea.constraint}) "
    elif idea.verdict == "equivalent":
        remark = "(simplification) "
    return line(one_line(remark + idea.description, MOST_WIDTH), "dim" if idea.undone else "")


def failures(summary: Summary, width: int) -> Section:
    columns = [
        Column(title="outcome", words=True),
        Column(title="cause", words=True),
        Column(title="trials", rank=1),
        Column(title="experiments", rank=3),
        Column(title="time", rank=2),
        Column(title="last one"),
    ]
    rows: list[list[Text | str]] = [
        [
            line(each.outcome, "red"),
            one_line(each.cause, 16) or NOTHING,
            str(each.trials),
            str(each.experiments),
            duration(each.wall_s),
            one_line(f"#{each.last_number}: {each.last_reason}", MOST_WIDTH),
        ]
        for each in summary.failures[:FAILURES_SHOWN]
    ]
    shown = [table(columns, rows, width)] if rows else []
    return Section(title="Failed trials by cause", parts=[*shown, *more(len(summary.failures), FAILURES_SHOWN)])


def time_by_outcome(summary: Summary, width: int) -> Section:
    used = summary.throughput
    columns = [
        Column(title="outcome", words=True),
        Column(title="trials", rank=2),
        Column(title="time"),
        Column(title="GPU-h", rank=1),
        Column(title="share"),
    ]
    rows = [
        [
            each.outcome,
            str(each.trials),
            duration(each.wall_s),
            gpu_hours(each.gpu_s),
            share(each.wall_s / used.trial_s if used.trial_s else None),
        ]
        for each in summary.time_by_outcome
    ]
    title = f"Trial time ({duration(used.trial_s)}"
    title += f", {gpu_hours(used.gpu_s)} GPU-hours)" if used.gpu_s else ", none of it on a GPU)"
    return Section(title=title, parts=[table(columns, rows, width)] if rows else [])


def families(summary: Summary, width: int) -> Section:
    columns = [
        Column(title="tried"),
        Column(title="kept"),
        Column(title="crashed", rank=3),
        Column(title="success"),
        Column(title="best gain", rank=1),
        Column(title="trials", rank=4),
        Column(title="time", rank=2),
        Column(title="family"),
    ]
    rows = [
        [
            str(each.experiments),
            str(each.kept),
            str(each.crashed),
            share(each.success_rate),
            signed(each.best_gain),
            str(each.trials),
            duration(each.wall_s),
            one_line(each.family, MOST_WIDTH) or "(none)",
        ]
        for each in summary.families[:FAMILIES_SHOWN]
    ]
    shown = [table(columns, rows, width)] if rows else []
    return Section(title="Families", parts=[*shown, *more(len(summary.families), FAMILIES_SHOWN)])


def notes(summary: Summary) -> Section:
    """What the agent noted: data, like a description."""
    shown = [
        line(f"#{each.number} {each.status}: {one_line(each.text, MOST_WIDTH)}")
        for each in summary.notes[-NOTES_SHOWN:]
    ]
    title = f"The agent's notes ({summary.noted})"
    return Section(title=title, parts=[*shown, *more(summary.noted, NOTES_SHOWN, "earlier")])


def insights(summary: Summary) -> Section:
    """The beginning of insights.md as data: behind bars, so that nobody takes it for what we say."""
    told = [text for each in summary.insights.splitlines() if (text := one_line(each, MOST_WIDTH))]
    shown = [line(f"| {text}") for text in told[:INSIGHTS_SHOWN]]
    title = "From insights.md (the agent's words, not checked)"
    return Section(title=title, parts=[*shown, *more(len(told), INSIGHTS_SHOWN)])


def events(summary: Summary) -> Section:
    kinds = ", ".join(f"{count} {one_line(kind, 20)}" for kind, count in islice(summary.event_counts.items(), 10))
    shown = [
        line(f"{event.at[:16].replace('T', ' ')} {event.kind}: {one_line(event.text, MOST_WIDTH)}")
        for event in summary.events[-EVENTS_SHOWN:]
    ]
    return Section(title=f"Last events (UTC), of {kinds}", parts=shown)


def next_steps(summary: Summary) -> Section:
    parts: list[RenderableType] = []
    for at, each in enumerate(recommend(summary)[:STEPS_SHOWN], start=1):
        parts.append(facts([(f"{at}.", each.text)]))
        if each.command:
            parts.append(command(each.command))
    return Section(title="Next", parts=parts)

"""What a campaign found out, as parts of its page: sure effects, interactions, sweeps, what never helps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from autoresearch.output import one_line
from autoresearch.report.figures import Retried, Summary, SweptAxis
from autoresearch.report.format import NOTHING, number, plural, signed
from autoresearch.report.page import MOST_WIDTH, Column, Section, line, paragraph, table
from autoresearch.report.sections import gain_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

EFFECTS_SHOWN = 3  # in each direction
SHOWN = 4  # of each other list
TRIES_SHOWN = 3


def discovery_sections(summary: Summary, width: int) -> Iterator[Section]:
    yield Section(title="Largest sure effects (the 95 % interval excludes zero)", parts=_effects(summary, width))
    yield Section(title="Interactions", parts=[*_stack(summary), *_ablations(summary, width), *_retried(summary)])
    yield Section(title="Sweeps", parts=_sweeps(summary, width))
    yield Section(
        title="What never helped (numbers in the wording aside)", parts=[*_hopeless(summary), *_fruitless(summary)]
    )


def _effects(summary: Summary, width: int) -> list[RenderableType]:
    found = summary.discoveries
    shown = [*found.gains[:EFFECTS_SHOWN], *reversed(found.losses[:EFFECTS_SHOWN])]
    if not shown:
        return []
    columns = [
        Column(title="#"),
        Column(title="gain ± 95 %"),
        Column(title="status", words=True, rank=1),
        Column(title="family", words=True, rank=2),
        Column(title="description"),
    ]
    rows: list[list[Text | str]] = [
        [
            str(each.number),
            gain_text(each),
            each.status,
            one_line(each.family, 16) or NOTHING,
            one_line(each.description, MOST_WIDTH),
        ]
        for each in shown
    ]
    return [table(columns, rows, width)]


def _stack(summary: Summary) -> Iterator[RenderableType]:
    stack, credit = summary.discoveries.stack, summary.credit
    if stack.keeps > 1 and credit is not None:
        yield paragraph(
            f"{stack.keeps} kept changes stand on one another, so {plural(stack.pairs, 'pair')} of them ran together: "
            f"{signed(stack.gains_sum)} in all when they were kept, {signed(credit.gain)} credited."
        )


def _ablations(summary: Summary, width: int) -> list[RenderableType]:
    found = summary.discoveries.ablations
    if not found:
        return []
    columns = [
        Column(title="#"),
        Column(title="in the best"),
        Column(title="when kept", rank=1),
        Column(title="interaction", rank=2),
        Column(title="seeds", rank=3),
        Column(title="description"),
    ]
    rows = [
        [
            str(each.number),
            signed(each.gain),
            signed(each.gain_when_kept),
            signed(each.interaction),
            str(each.seeds),
            one_line(each.description, MOST_WIDTH),
        ]
        for each in found[:SHOWN]
    ]
    return [table(columns, rows, width)]


def _retried(summary: Summary) -> list[RenderableType]:
    return [line(_tries(each)) for each in summary.discoveries.retried[-SHOWN:]]


def _tries(found: Retried) -> str:
    gains = ", ".join(f"{signed(each.gain)} on #{each.incumbent}" for each in found.tries[-TRIES_SHOWN:])
    return f"tried {len(found.tries)} times: {gains}: {one_line(found.description, MOST_WIDTH)}"


def _sweeps(summary: Summary, width: int) -> list[RenderableType]:
    axes = summary.discoveries.sweeps[:SHOWN]
    if not axes:
        return []
    columns = [
        Column(title="parameter", words=True),
        Column(title="effect", rank=1),
        Column(title="points", rank=2),
        Column(title="best first"),
    ]
    rows = [
        [
            one_line(axis.name, 24),
            NOTHING if axis.effect is None else f"{axis.effect:.3g}",
            str(sum(each.points for each in axis.values)),
            _values(axis),
        ]
        for axis in axes
    ]
    return [table(columns, rows, width)]


def _values(axis: SweptAxis) -> str:
    return one_line(", ".join(f"{each.value}: {number(each.metric)}" for each in axis.values), MOST_WIDTH)


def _hopeless(summary: Summary) -> list[RenderableType]:
    return [
        line(
            f"family {one_line(each.family, 40) or '(none)'}: 0 of {each.discarded + each.crashed} kept"
            + (f", {each.crashed} crashed" if each.crashed else "")
        )
        for each in summary.discoveries.hopeless[:SHOWN]
    ]


def _fruitless(summary: Summary) -> list[RenderableType]:
    return [
        line(
            f"tried {each.tries} times"
            + (f", {each.crashed} crashed" if each.crashed else "")
            + ("" if each.best_gain is None else f", at best {signed(each.best_gain)}")
            + f": {one_line(each.idea, MOST_WIDTH)}"
        )
        for each in summary.discoveries.fruitless[:SHOWN]
    ]

"""A campaign's figures as text: coloured on a terminal, plain columns when piped, bounded for any size."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import islice
from typing import TYPE_CHECKING

from autoresearch.output import one_line
from autoresearch.report.figures import Judged, Measured, Noise, OpenExperiment, Record, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

PIPED_WIDTH = 120  # columns
LEAST_WIDTH = 80  # the figures of a row need it; a narrower terminal wraps
MOST_WIDTH = 160
SEEDS_SHOWN = 5
KEPT_SHOWN = 14  # the last ones
NEAR_MISSES_SHOWN = 5
FAILURES_SHOWN = 5
FAMILIES_SHOWN = 6
EVENTS_SHOWN = 5
CAMPAIGNS_SHOWN = 40  # the newest ones
NOTHING = "-"
WORD_COLUMNS = ("commit", "outcome", "cause")


def render(summary: Summary, *, width: int | None = None, colour: bool | None = None) -> str:
    """At most 80 lines on one campaign; ``width`` and ``colour`` are those of stdout unless given."""
    parts: list[RenderableType] = [*_headline(summary)]
    if summary.experiments.run:
        parts.append(_facts(summary))
    for title, section in (
        (_kept_title(summary), _kept(summary)),
        (f"Near misses (of {summary.inconclusive} inconclusive): worth more seeds", _near_misses(summary)),
        ("Failed trials by cause", _failures(summary)),
        (f"Trial time ({duration(_trial_time_s(summary))})", _time_by_outcome(summary)),
        ("Families", _families(summary)),
        (_event_title(summary), _events(summary)),
    ):
        if section:
            parts += ["", _styled(title, "bold"), *section]
    return _print(parts, width, colour)


def render_comparison(summaries: Sequence[Summary], *, width: int | None = None, colour: bool | None = None) -> str:
    """One line for each campaign, the newest last."""
    table = _table("tried", "kept", "crashed", "time", "baseline", "best", "gain", "campaign")
    for summary in summaries[-CAMPAIGNS_SHOWN:]:
        table.add_row(
            str(summary.experiments.run),
            str(summary.experiments.kept),
            str(summary.experiments.crashed),
            duration(summary.elapsed_s),
            _level(summary.baseline),
            _level(summary.incumbent),
            NOTHING if summary.credit is None else signed(summary.credit.gain),
            f"{summary.tag}: {summary.metric}, {summary.direction} is better",
        )
    parts: list[RenderableType] = [_styled(f"Campaigns ({len(summaries)})", "bold"), table]
    return _print([*parts, *_cut(len(summaries), CAMPAIGNS_SHOWN, "older ")], width, colour)


# ---- numbers as text


def number(value: float | None) -> str:
    """Six decimals, as in results.tsv, where they show the value; else nine significant digits."""
    if value is None:
        return NOTHING
    return f"{value:.6f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.9g}"


def signed(value: float | None) -> str:
    """A difference, to three significant digits."""
    return NOTHING if value is None else f"{value:+.3g}"


def duration(seconds: float) -> str:
    """``9 h 40 min``, ``3 min 20 s`` or ``12.4 s``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


# ---- sections


def _headline(summary: Summary) -> list[RenderableType]:
    counts = summary.experiments
    lines: list[RenderableType] = [
        _styled(f"Campaign {summary.tag}: {summary.metric}, {summary.direction} is better", "bold")
    ]
    if not counts.run:
        return [
            *lines,
            'No experiment has been run yet. Next: python scripts/run_experiment.py -d "baseline"',
        ]
    rate = "" if summary.experiments_per_h is None else f" ({summary.experiments_per_h:.1f} per hour)"
    kept = f"{counts.kept} kept"
    if counts.baselines:
        kept += f" ({counts.baselines} of them baseline{'s' * (counts.baselines > 1)})"
    undone = f" ({counts.undone} of them kept at first)" if counts.undone else ""
    lines.append(
        f"{counts.run} experiment{'s' * (counts.run != 1)} in {duration(summary.elapsed_s)}{rate}: {kept}, "
        f"{counts.discarded} discarded{undone}, {counts.crashed} crashed, {counts.open} open"
    )
    if summary.baseline is None or summary.baseline.metric is None or summary.incumbent is None:
        return [*lines, "No baseline has been measured, so there is nothing to compare with yet."]
    best = f"{summary.metric} {number(summary.baseline.metric)} -> {number(summary.incumbent.metric)}"
    if summary.credit is not None:
        credit = summary.credit
        best += f"; credited {number(credit.level)} ± {credit.se:.2g}, a gain of {signed(credit.gain)}"
        if summary.baseline.metric:
            best += f" ({credit.gain / abs(summary.baseline.metric):+.2%})"
    return [*lines, _styled(best, "bold green", wrap=True)]


def _facts(summary: Summary) -> Table:
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    if summary.baseline is not None:
        grid.add_row("baseline", _measured(summary.baseline))
    if summary.incumbent is not None:
        grid.add_row("best", _measured(summary.incumbent))
        if summary.incumbent.retests:
            grid.add_row("re-tests", f"of the best: {_values(summary.incumbent.retests)}")
    if summary.claim is not None:
        reason = summary.claim["reason"].removeprefix(f"{summary.claim['word']}: ")
        grid.add_row("claim", f"{summary.claim['word']}: {summary.claim['b']} against {summary.claim['a']}: {reason}")
    if summary.record is not None:
        grid.add_row("record", _record(summary.record))
    if summary.noise is not None:
        grid.add_row("noise", _noise(summary.noise))
    if summary.validation_looks:
        grid.add_row("looks", f"{summary.validation_looks} at the validation set, one for each completed trial")
    if summary.open_experiment is not None:
        grid.add_row("open", _open(summary.open_experiment))
    return grid


def _measured(measured: Measured) -> str:
    text = f"{number(measured.metric)}, experiment {measured.number} ({measured.commit[:7]})"
    if measured.values:
        text += f", {_seeds(len(measured.values))}: {_values(measured.values)}"
    if measured.sd is not None:
        text += f"; sd {measured.sd:.2g}"
    return f"{text}; {one_line(measured.description, 60)}"


def _record(record: Record) -> str:
    gain = "" if record.gain is None else f" ({signed(record.gain)} on the baseline)"
    where = f"experiment {record.number}, seed {record.seed}, {record.status}"
    return f"{number(record.metric)}{gain}, luck included: the best single run ({where})"


def _noise(noise: Noise) -> str:
    if noise.deterministic:
        return "none: the training is deterministic, the seed changes nothing"
    if noise.df == 0:
        return "not known yet: no code has run at two seeds"
    return f"sigma {noise.sigma:.3g} for one run ({noise.df} df), same-seed correlation {noise.rho:.2f}"


def _open(found: OpenExperiment) -> str:
    text = f"experiment {found.number} ({found.commit[:7]}, {one_line(found.description, 60)}): "
    if found.state == "judged":
        return f"{text}judged {found.verdict}, to be logged: python scripts/log_result.py"
    done = f"{len(found.values)} of its trials completed"
    seeds = ", ".join(map(str, islice(found.running_seeds, SEEDS_SHOWN)))
    return f"{text}{done}" + (f", running at seed {seeds}" if seeds else "")


def _kept_title(summary: Summary) -> str:
    undone = sum(bool(each.undone) for each in summary.kept)
    return f"Kept ideas ({len(summary.kept) - undone}" + (f", and {undone} taken back)" if undone else ")")


def _kept(summary: Summary) -> list[RenderableType]:
    shown = summary.kept[-KEPT_SHOWN:]
    return [*_judged(shown, epochs=summary.epoch > 1), *_cut(len(summary.kept), KEPT_SHOWN, "earlier ")]


def _near_misses(summary: Summary) -> list[RenderableType]:
    return _judged(summary.near_misses[:NEAR_MISSES_SHOWN], epochs=False)


def _judged(experiments: Sequence[Judged], *, epochs: bool) -> list[RenderableType]:
    if not experiments:
        return []
    first = ["#", "epoch"] if epochs else ["#"]
    table = _table(*first, "commit", "gain ± 95 %", "z", "trials", "lines", "description")
    for each in experiments:
        remark = f"(undone: {each.undone}) " if each.undone else ""
        remark += "(simplification) " if each.verdict == "equivalent" and not each.undone else ""
        table.add_row(
            str(each.number),
            *([str(each.epoch)] if epochs else []),
            each.commit[:7],
            _gain(each),
            NOTHING if each.z is None else f"{each.z:.1f}",
            str(each.trials),
            f"+{each.lines_added} -{each.lines_deleted}",
            one_line(remark + each.description, MOST_WIDTH),
            style="dim" if each.undone else "",
        )
    return [table]


def _gain(judged: Judged) -> str:
    """The gain and half its 95 % interval, which is symmetric."""
    if judged.gain is None or judged.gain_low is None or judged.gain_high is None:
        return NOTHING
    return f"{signed(judged.gain)} ± {(judged.gain_high - judged.gain_low) / 2:.2g}"


def _failures(summary: Summary) -> list[RenderableType]:
    if not summary.failures:
        return []
    table = _table("outcome", "cause", "trials", "experiments", "time", "last one")
    for each in summary.failures[:FAILURES_SHOWN]:
        table.add_row(
            each.outcome,
            one_line(each.cause, 16) or NOTHING,
            str(each.trials),
            str(each.experiments),
            duration(each.wall_s),
            one_line(f"#{each.last_number}: {each.last_reason}", MOST_WIDTH),
        )
    return [table, *_cut(len(summary.failures), FAILURES_SHOWN)]


def _time_by_outcome(summary: Summary) -> list[RenderableType]:
    if not summary.time_by_outcome:
        return []
    total_s = _trial_time_s(summary)
    table = _table("outcome", "trials", "time", "share")
    for each in summary.time_by_outcome:
        share = f"{each.wall_s / total_s:.0%}" if total_s else NOTHING
        table.add_row(each.outcome, str(each.trials), duration(each.wall_s), share)
    return [table]


def _trial_time_s(summary: Summary) -> float:
    return sum(each.wall_s for each in summary.time_by_outcome)


def _families(summary: Summary) -> list[RenderableType]:
    if not summary.families:
        return []
    table = _table("tried", "kept", "crashed", "success", "best gain", "trials", "time", "family")
    for each in summary.families[:FAMILIES_SHOWN]:
        table.add_row(
            str(each.experiments),
            str(each.kept),
            str(each.crashed),
            NOTHING if each.success_rate is None else f"{each.success_rate:.0%}",
            signed(each.best_gain),
            str(each.trials),
            duration(each.wall_s),
            one_line(each.family, MOST_WIDTH) or "(none)",
        )
    return [table, *_cut(len(summary.families), FAMILIES_SHOWN)]


def _event_title(summary: Summary) -> str:
    kinds = ", ".join(f"{count} {one_line(kind, 20)}" for kind, count in islice(summary.event_counts.items(), 10))
    return f"Last events (UTC), of {kinds}"


def _events(summary: Summary) -> list[RenderableType]:
    return [
        _styled(f"{event.at[:16].replace('T', ' ')} {event.kind}: {one_line(event.text, MOST_WIDTH)}")
        for event in summary.events[-EVENTS_SHOWN:]
    ]


# ---- pieces


def _level(measured: Measured | None) -> str:
    return NOTHING if measured is None else number(measured.metric)


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _values(values: dict[int, float]) -> str:
    shown = ", ".join(number(value) for value in islice(values.values(), SEEDS_SHOWN))
    more = len(values) - SEEDS_SHOWN
    return f"{shown} … and {more} more" if more > 0 else shown


def _cut(length: int, shown: int, what: str = "") -> list[RenderableType]:
    return [_styled(f"… and {length - shown} {what}more", "dim")] if length > shown else []


def _styled(text: str, style: str = "", *, wrap: bool = False) -> Text:
    """One line, cut where the page ends unless it may ``wrap``."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=not wrap)


def _table(*columns: str) -> Table:
    """A table without rules: figures to the right, words to the left, and only the last column is cut."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=True)
    for column in columns[:-1]:
        table.add_column(column, justify="left" if column in WORD_COLUMNS else "right", no_wrap=True)
    table.add_column(columns[-1], no_wrap=True, overflow="ellipsis", ratio=1)  # it takes what the others leave
    return table


def _print(parts: Iterable[RenderableType], width: int | None, colour: bool | None) -> str:
    from rich.console import Console
    from rich.text import Text

    terminal = sys.stdout.isatty()
    if colour is None:
        colour = terminal and not os.environ.get("NO_COLOR")
    if width is None:
        width = shutil.get_terminal_size().columns if terminal else PIPED_WIDTH
    console = Console(
        file=StringIO(),
        width=min(max(width, LEAST_WIDTH), MOST_WIDTH),
        force_terminal=colour,
        color_system="auto" if colour else None,
        markup=False,  # a description may hold [brackets] and :colons:
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part, no_wrap=isinstance(part, Text) and part.no_wrap, overflow="ellipsis")
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"

"""A campaign's figures as text: coloured on a terminal, plain columns when piped, bounded for any size.

The most important thing stands first, what to do next stands last, beside the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from autoresearch.output import one_line
from autoresearch.plain import plain
from autoresearch.report import sections
from autoresearch.report.discovery_sections import discovery_sections
from autoresearch.report.figures import Credit, Measured, Noise, OpenExperiment, Summary, Throughput
from autoresearch.report.format import NOTHING, duration, gpu_hours, margin, number, plural, share, signed
from autoresearch.report.open_text import open_lines, progress, under_way
from autoresearch.report.page import (
    Column,
    Section,
    command,
    facts,
    line,
    more,
    page_width,
    paragraph,
    print_page,
    table,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

SEEDS_SHOWN = 5
OPEN_SHOWN = 12
WIDE_ENOUGH = 76  # for explanations beside figures; on a narrower page they wrap
CAMPAIGNS_SHOWN = 40  # the newest ones
CLAIM_WORDS = {"confirmed": "confirmed on fresh seeds", "inconclusive": "inconclusive on fresh seeds"}


def render(summary: Summary, *, width: int | None = None, colour: bool | None = None) -> str:
    """At most 150 lines of 80 cells on one campaign; ``width`` and ``colour`` are those of stdout unless given."""
    width = page_width(width)
    parts: list[RenderableType] = [*_headline(summary)]
    if summary.experiments.run:
        for figures in (list(_honesty(summary, width)), [facts(_facts(summary))]):
            parts += ["", *figures] if figures else []
    for section in _sections(summary, width):
        if section.parts:
            parts += ["", paragraph(section.title, "bold"), *section.parts]
    return print_page(parts, width, colour)


def _sections(summary: Summary, width: int) -> Iterator[Section]:
    yield _under_way(summary, width)
    yield sections.kept(summary, width)
    yield sections.near_misses(summary, width)
    yield sections.constraint_limited(summary, width)
    yield from discovery_sections(summary, width)
    yield sections.failures(summary, width)
    yield sections.time_by_outcome(summary, width)
    yield sections.families(summary, width)
    yield sections.notes(summary)
    yield sections.insights(summary)
    yield sections.events(summary)
    yield sections.next_steps(summary)


def render_comparison(summaries: Sequence[Summary], *, width: int | None = None, colour: bool | None = None) -> str:
    """One line for each campaign, the newest last."""
    width = page_width(width)
    columns = [
        Column(title="tried", rank=3),
        Column(title="kept", rank=4),
        Column(title="crashed", rank=5),
        Column(title="time", rank=6),
        Column(title="baseline", rank=2),
        Column(title="best"),
        Column(title="gain", rank=1),
        Column(title="campaign"),
    ]
    rows = [
        [
            str(summary.experiments.run),
            str(summary.experiments.kept),
            str(summary.experiments.crashed),
            duration(summary.elapsed_s),
            _level(summary.baseline),
            _level(summary.incumbent),
            NOTHING if summary.credit is None else signed(summary.credit.gain),
            f"{summary.tag}: {summary.metric}, {summary.direction} is better",
        ]
        for summary in summaries[-CAMPAIGNS_SHOWN:]
    ]
    parts: list[RenderableType] = [line(f"Campaigns ({len(summaries)})", "bold"), table(columns, rows, width)]
    return print_page([*parts, *more(len(summaries), CAMPAIGNS_SHOWN, "older")], width, colour)


# ---- the first lines


def _headline(summary: Summary) -> Iterator[Text]:
    counts = summary.experiments
    yield paragraph(f"Campaign {summary.tag}: {summary.metric}, {summary.direction} is better", "bold")
    if not counts.run:
        yield paragraph("No experiment has been run yet. Next:")
        yield command('python scripts/run_experiment.py -d "baseline"')
        return
    rate = "" if summary.experiments_per_h is None else f" ({summary.experiments_per_h:.1f} per hour)"
    kept = f"{counts.kept} kept"
    if counts.baselines:
        kept += f" ({counts.baselines} of them baseline{'s' * (counts.baselines > 1)})"
    undone = f" ({counts.undone} of them kept at first)" if counts.undone else ""
    yield paragraph(
        f"{plural(counts.run, 'experiment')} in {duration(summary.elapsed_s)}{rate}: {kept}, "
        f"{counts.discarded} discarded{undone}, {counts.crashed} crashed, {counts.open} open"
    )
    yield _best(summary)


def _best(summary: Summary) -> Text:
    """How good the best is, from where, and whether that is certain."""
    baseline, credit = summary.baseline, summary.credit
    if baseline is None or baseline.metric is None or summary.incumbent is None:
        return paragraph("No baseline has been measured, so there is nothing to compare with yet.", "yellow")
    if credit is None:
        return paragraph(f"best {summary.metric} {number(summary.incumbent.metric)} from {number(baseline.metric)}")
    best = f"best {summary.metric} {number(credit.level)} ± {margin(credit.se)} (95 %) from {number(baseline.metric)}"
    if not summary.discoveries.stack.keeps:
        return paragraph(f"{best}: nothing better than the baseline has been kept", "yellow")
    part = f" ({credit.gain / abs(baseline.metric):+.2%})" if baseline.metric else ""
    claim = _claim_word(summary)
    style = "bold green" if claim == CLAIM_WORDS["confirmed"] else "bold"
    return paragraph(f"{best}: a gain of {signed(credit.gain)}{part}, {claim}", style)


def _claim_word(summary: Summary) -> str:
    best, claim = summary.incumbent, summary.claim
    if summary.noise is not None and summary.noise.deterministic:
        return "exact, since the training is deterministic"
    if claim is None or best is None or claim["arms"][1] != best.commit:
        return "not claimed yet on fresh seeds"
    return CLAIM_WORDS[claim["word"]]


def _honesty(summary: Summary, width: int) -> Iterator[Table]:
    """The naive figures above the honest ones, so that the difference is seen."""
    rows = [row for row in (_record_row(summary), _kept_row(summary), _credit_row(summary), _claim_row(summary)) if row]
    if rows:
        columns = [
            Column(title="how good is it", words=True),
            Column(title=summary.metric[:24]),
            Column(title="gain", rank=1),
            Column(title="what that is"),
        ]
        if width >= WIDE_ENOUGH:
            yield table(columns, rows, width, wraps=True)
        else:
            yield facts((name, f"{value}, {gain}: {what}") for name, value, gain, what in rows)


def _record_row(summary: Summary) -> list[str]:
    record = summary.record
    if record is None:
        return []
    where = f"luck included: experiment {record.number}, seed {record.seed}, {record.status}"
    return ["best single run", number(record.metric), signed(record.gain), where]


def _kept_row(summary: Summary) -> list[str]:
    best, baseline = summary.incumbent, summary.baseline
    if best is None or best.metric is None or baseline is None or baseline.metric is None:
        return []
    sign = 1 if summary.direction == "higher" else -1
    gain = sign * (best.metric - baseline.metric)
    what = f"experiment {best.number}; its {plural(len(best.values), 'seed')} also chose it"
    return ["mean when kept", number(best.metric), signed(gain), what]


def _credit_row(summary: Summary) -> list[str]:
    credit: Credit | None = summary.credit
    if credit is None:
        return []
    what = f"± 95 %, each win less its luck; {plural(summary.retests, 're-test')} and misses counted"
    return ["credited", f"{number(credit.level)} ± {margin(credit.se)}", signed(credit.gain), what]


def _claim_row(summary: Summary) -> list[str]:
    claim = summary.claim
    if claim is None:
        return []
    interval = ""
    if claim.get("gain_low") is not None:
        interval = f" (95 % {signed(claim['gain_low'])} to {signed(claim['gain_high'])})"
    what = f"{claim['word']}{interval}: {claim['b']} against {claim['a']}"
    return ["fresh seeds", NOTHING, signed(claim.get("gain")), what]


# ---- facts


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    if summary.baseline is not None:
        yield "baseline", _measured(summary.baseline)
    if summary.incumbent is not None:
        yield "best", _measured(summary.incumbent)
        if summary.incumbent.retests:
            yield "re-tests", f"of the best: {_values(summary.incumbent.retests)}"
    if summary.claim is not None:
        yield "claim", one_line(summary.claim["reason"], 240)
    if summary.noise is not None:
        yield "noise", _noise(summary.noise)
    if summary.throughput.trials:
        yield "use", _use(summary.throughput)
    if summary.validation_looks:
        yield "looks", f"{summary.validation_looks} at the validation set, one for each completed trial"
    if summary.open_experiment is not None and not _are_several(summary):
        yield "open", _open(summary.open_experiment, summary.trials_under_way)


def _measured(measured: Measured) -> str:
    text = f"{number(measured.metric)}, experiment {measured.number} ({measured.commit[:7]})"
    if measured.values:
        text += f", {plural(len(measured.values), 'seed')}: {_values(measured.values)}"
    if measured.sd is not None:
        text += f"; sd {plain(measured.sd, 2)}"
    return f"{text}; {one_line(measured.description, 60)}"


def _noise(noise: Noise) -> str:
    if noise.deterministic:
        return "none: the training is deterministic, the seed changes nothing"
    if noise.df == 0:
        return "not known yet: no code has run at two seeds"
    return f"σ {noise.sigma:.3g} for one run ({noise.df} df), same-seed correlation ρ {noise.rho:.2f}"


def _use(used: Throughput) -> str:
    text = f"{plural(used.trials, 'trial')} took {duration(used.trial_s)}"
    if used.gpu_s:
        text += f", {gpu_hours(used.gpu_s)} GPU-hours"
    return text if used.busy_share is None else f"{text}; the device was busy {share(used.busy_share)} of the time"


def _open(found: OpenExperiment, trials: Sequence[Mapping[str, Any]]) -> str:
    text = f"experiment {found.number} ({found.commit[:7]}, {one_line(found.description, 60)}): "
    if found.state == "judged":
        return f"{text}judged {found.verdict}, to be logged: python scripts/log_result.py"
    done = f"{len(found.values)} of its trials completed"
    seeds = ", ".join(map(str, islice(found.running_seeds, SEEDS_SHOWN)))
    own = next((trial for trial in trials if trial["number"] == found.number), None)
    if own is None or own["waits_for"] or own["ended"] or len(found.running_seeds) != 1:
        return f"{text}{done}" + (f", running at seed {seeds}" if seeds else "")
    return f"{text}{done}, running at seed {', '.join([seeds, *progress(own)])}"


def _are_several(summary: Summary) -> bool:
    """Whether more is under way than one experiment with one trial of its own."""
    opened = {each.number for each in summary.open_experiments}
    trials = [trial["number"] for trial in summary.trials_under_way]
    return len(opened) > 1 or len(trials) > 1 or not opened.issuperset(trials)


def _under_way(summary: Summary, width: int) -> Section:
    """Where one fact cannot tell it all: a line each."""
    if not _are_several(summary):
        return Section(title="", parts=[])
    title, rows = under_way(summary)
    shown = [line(each) for each in open_lines(rows[:OPEN_SHOWN], width)]
    return Section(title=title, parts=[*shown, *more(len(rows), OPEN_SHOWN)])


def _level(measured: Measured | None) -> str:
    return NOTHING if measured is None else number(measured.metric)


def _values(values: dict[int, float]) -> str:
    shown = ", ".join(number(value) for value in islice(values.values(), SEEDS_SHOWN))
    further = len(values) - SEEDS_SHOWN
    return f"{shown} … and {further} more" if further > 0 else shown

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pty
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean, stdev

import pytest
from tests.ledger_builder import LedgerBuilder, make_repository

from autoresearch.campaign.opened import lock
from autoresearch.ledger import Ledger, Purpose, State, Status, Trial
from autoresearch.report.digest import digest
from autoresearch.report.format import duration, number
from autoresearch.report.recommendations import recommend
from autoresearch.report.summary import summarise
from autoresearch.report.text import render, render_comparison
from autoresearch.trial import Outcome
from autoresearch.verdict import KeepRule

ROOT = Path(__file__).resolve().parent.parent
COMMITS = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(5)]
FAILURES = [outcome for outcome in Outcome if outcome not in (Outcome.COMPLETED, Outcome.PRUNED)]
MAX_LINES = 150  # at 80 columns and more
NASTY = [
    "tab\tand\nnewline",
    "自主研究把学习率加倍",
    "<script>alert(1)</script>",
    "[bold]:smile:[/bold]",
    "long " * 400,
    "\x1b[31mred\x1b[0m\x07",
    "\u202eright to left",
]

Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "state", create=True) as ledger:
        yield ledger


def fill(builder: LedgerBuilder, ideas: int, *, seed: int = 1, scale: float = 1.0, level: float = 1.0) -> None:
    """A campaign with some of everything; ``scale`` is the size of the metric."""
    rng = random.Random(seed)
    sign = 1 if builder.settings.direction == "lower" else -1

    def run(effect: float) -> float:
        return scale * (level - sign * effect + rng.gauss(0, 0.002))

    with builder.ledger.transaction():
        builder.baseline([run(0.0) for _ in range(3)])
        standing = 0.0
        for at in range(ideas):
            builder.trial_s = rng.uniform(200, 400)
            family = rng.choice(["optimizer", "model", "data", ""])
            if rng.random() < 0.15:
                builder.crash(f"idea {at}", rng.choice(FAILURES), rng.choice(["oom_gpu", "exit"]), family=family)
                continue
            effect = standing + rng.gauss(-0.001, 0.004)
            values = [run(effect) for _ in range(rng.randint(1, 3))]
            lines = (rng.randrange(40), rng.randrange(40))
            if builder.idea(f"idea {at} {rng.choice(NASTY)}", values, family=family, lines=lines).status == Status.KEEP:
                standing = effect
            if at % 9 == 8:
                builder.retest(run(standing))
        builder.ledger.add_event(builder.tag, "repair", "the branch was missing")
        open_experiment = builder.open("still running")
        builder.trial(open_experiment, 1, metric=run(standing - 1.0))
        builder.trial(open_experiment, 2)


def ended_at(trial: Trial) -> datetime:
    seconds = 0.0 if trial.result is None else trial.result.duration_s
    return datetime.fromisoformat(trial.created_at) + timedelta(seconds=seconds)


def outcome_of(trial: Trial) -> Outcome | None:
    return None if trial.result is None else trial.result.outcome


# ---- the figures


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_every_figure_equals_the_ledger(ledger: Ledger, direction: str) -> None:
    builder = LedgerBuilder(ledger, COMMITS, direction=direction)
    fill(builder, 120)
    summary = summarise(ledger, builder.campaign)

    rows, trials = ledger.experiments("apr5"), ledger.trials("apr5")
    statuses = [row.status for row in rows]
    counts = summary.experiments
    assert (counts.run, counts.kept, counts.discarded, counts.crashed, counts.open) == (
        len(rows),
        *(statuses.count(word) for word in (Status.KEEP, Status.DISCARD, Status.CRASH, None)),
    )
    assert counts.run == counts.kept + counts.discarded + counts.crashed + counts.open
    assert (counts.baselines, counts.undone) == (1, len([row for row in rows if row.undone]))

    baseline, incumbent = ledger.baseline("apr5", 1), ledger.incumbent("apr5")
    assert baseline is not None
    assert incumbent is not None
    assert incumbent.number > 0, "the campaign must have found something for this test to mean anything"
    for shown, row in ((summary.baseline, baseline), (summary.incumbent, incumbent)):
        assert shown is not None
        own = [trial for trial in trials if trial.number == row.number]
        runs = {trial.seed: trial.metric for trial in own if trial.purpose is not Purpose.RETEST}
        assert (shown.number, shown.commit, shown.description) == (row.number, row.commit, row.description)
        assert shown.values == runs
        assert shown.metric == row.metric == fmean(shown.values.values())
        assert shown.sd == (stdev(shown.values.values()) if len(runs) > 1 else None)
        assert shown.retests == {trial.seed: trial.metric for trial in own if trial.purpose is Purpose.RETEST}

    assert builder.rule is not None
    assert summary.credit is not None
    assert summary.noise is not None
    assert dataclasses.astuple(summary.credit) == (
        builder.rule.incumbent_level, builder.rule.incumbent_se, builder.rule.credited_gain,
    )  # fmt: skip
    assert dataclasses.astuple(summary.noise) == (
        builder.rule.sigma,
        builder.rule.sigma_df,
        builder.rule.rho,
        False,
    )
    assert summary.credit.gain > 0

    completed = [
        (trial.metric, trial.number, trial.seed)
        for trial in trials
        if outcome_of(trial) is Outcome.COMPLETED and trial.metric is not None
    ]
    assert baseline.metric is not None
    assert summary.record is not None
    record = min(completed) if direction == "lower" else max(completed)
    assert (summary.record.metric, summary.record.number, summary.record.seed) == record
    assert summary.record.gain == pytest.approx(abs(record[0] - baseline.metric))
    assert summary.record.gain is not None
    assert summary.record.gain > summary.credit.gain, "the record counts luck that the credit does not"

    assert summary.validation_looks == len(completed)
    assert summary.retests == len([trial for trial in trials if trial.purpose is Purpose.RETEST]) > 0


def test_kept_list_and_near_misses_carry_the_evidence_of_their_decisions(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    fill(builder, 120)
    summary = summarise(ledger, builder.campaign)
    rows = {row.number: row for row in ledger.experiments("apr5")}

    kept = [n for n, row in rows.items() if n and (row.status is Status.KEEP or row.undone)]
    missed = [row for row in rows.values() if row.verdict == "inconclusive" and not row.undone]
    promising = sorted((row for row in missed if row.judgement["z"] > 0), key=lambda row: -row.judgement["z"])
    assert [each.number for each in summary.kept] == kept
    assert [each.number for each in summary.near_misses] == [row.number for row in promising[:20]]
    assert summary.inconclusive == len(missed) > len(promising) > 0
    for each in (*summary.kept, *summary.near_misses):
        row = rows[each.number]
        trials = [trial for trial in ledger.trials("apr5", each.number) if trial.purpose is not Purpose.RETEST]
        assert (each.commit, each.family, each.description) == (row.commit, row.family, row.description)
        assert (each.lines_added, each.lines_deleted) == (row.lines_added, row.lines_deleted)
        assert (each.verdict, each.undone, each.metric, each.epoch) == (
            row.verdict,
            row.undone,
            row.metric,
            1,
        )
        assert [each.gain, each.gain_low, each.gain_high, each.z] == [
            row.judgement[name] for name in ("gain", "gain_low", "gain_high", "z")
        ]
        assert each.trials == len(trials) == row.judgement["n_trials"]


def test_near_misses_are_discards_that_were_never_kept(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.02, 0.98])
    missed = builder.idea("missed", [0.985], status=Status.DISCARD)
    hopeless = builder.idea("hopeless", [1.01], status=Status.DISCARD)
    taken_back = builder.idea("taken back", [0.985], status=Status.KEEP)
    builder.undo(taken_back.number, "no gain")
    waiting = builder.open("waiting")
    waiting.state, waiting.verdict, waiting.judgement = State.JUDGED, "inconclusive", missed.judgement
    ledger.update_experiment(waiting, "state", "verdict", "judgement")
    assert {each.verdict for each in (missed, hopeless, taken_back, waiting)} == {"inconclusive"}
    summary = summarise(ledger, builder.campaign)
    assert [each.number for each in summary.near_misses] == [missed.number]
    assert summary.inconclusive == 2


def test_times_failures_and_families_add_up_to_the_trials(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    fill(builder, 120)
    summary = summarise(ledger, builder.campaign)
    rows, trials = ledger.experiments("apr5"), ledger.trials("apr5")
    results = [trial.result for trial in trials if trial.result is not None]

    for time in summary.time_by_outcome:
        seconds = [result.duration_s for result in results if result.outcome == time.outcome]
        assert (time.trials, time.wall_s) == (len(seconds), pytest.approx(sum(seconds)))
    assert sum(time.trials for time in summary.time_by_outcome) == len(results)

    totals = {(total["outcome"], total["cause"]): total for total in ledger.trial_totals("apr5")}
    for failure in summary.failures:
        total = totals[failure.outcome, failure.cause]
        numbers = [
            trial.number
            for trial in trials
            if trial.result and (trial.result.outcome, trial.result.cause) == (failure.outcome, failure.cause)
        ]
        assert (failure.trials, failure.wall_s) == (total["trials"], pytest.approx(total["duration_s"]))
        assert failure.experiments == len(set(numbers))
        assert failure.last_number == max(numbers)
        assert failure.last_reason == rows[failure.last_number].reason
    assert {(f.outcome, f.cause) for f in summary.failures} == {key for key in totals if key[0] != "completed"}
    assert [failure.trials for failure in summary.failures] == sorted(
        (f.trials for f in summary.failures), reverse=True
    )

    assert {family.family for family in summary.families} == {"optimizer", "model", "data", ""}
    for family in summary.families:
        ideas = [row for row in rows if row.family == family.family]
        words = Counter(row.status for row in ideas)
        gains = [row.judgement["gain"] for row in ideas if row.status is Status.KEEP]
        own = [trial for trial in trials if rows[trial.number].family == family.family]
        assert (family.experiments, family.trials) == (len(ideas), len(own))
        assert (family.kept, family.discarded, family.crashed, family.open) == (
            words[Status.KEEP], words[Status.DISCARD], words[Status.CRASH], words[None],
        )  # fmt: skip
        assert family.success_rate == words[Status.KEEP] / (len(ideas) - words[None])
        assert family.best_gain == max(gains, default=None)
        assert family.wall_s == pytest.approx(sum(trial.result.duration_s for trial in own if trial.result))

    first = datetime.fromisoformat(rows[0].created_at)
    elapsed_s = (max(ended_at(trial) for trial in trials) - first).total_seconds()
    assert summary.elapsed_s == pytest.approx(elapsed_s, abs=0.01)
    assert summary.experiments_per_h == pytest.approx((len(rows) - 1) / (elapsed_s / 3600), rel=1e-6)


def test_a_comparison_on_the_next_day_makes_no_night_longer(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    baseline = builder.baseline([1.00, 1.02, 1.04])
    night = summarise(ledger, builder.campaign)
    builder.at(9 * 3600)
    builder.trial(baseline, 1001, Purpose.CLAIM, metric=1.01)
    day = summarise(ledger, builder.campaign)
    assert (day.elapsed_s, day.experiments_per_h) == (night.elapsed_s, night.experiments_per_h) == (900, 4.0)
    assert (day.throughput.trials, day.throughput.trial_s, day.throughput.busy_share) == (4, 1200, 1.0)
    assert ended_at(ledger.trials("apr5")[-1]) == datetime.fromisoformat(day.last_at or "")
    builder.idea("the loop goes on", [1.3])
    assert summarise(ledger, builder.campaign).elapsed_s == 9 * 3600 + 5 * 300


@pytest.mark.parametrize("width", [76, 80, 100, 200])
def test_what_each_figure_of_the_best_is_stands_there_in_full(ledger: Ledger, width: int) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.001, 1.002])
    builder.idea("good", [0.9])
    text = render(summarise(ledger, builder.campaign), width=width, colour=False)
    told = text[text.index("how good is it") : text.index("\nbaseline  ")]
    assert max(map(len, told.splitlines())) <= width
    words = " ".join(told.split())
    for last in ("seed 1, keep", "its 1 seed also chose it", "misses counted"):
        assert last.split()[-1] in words
    assert "…" not in told


def test_retests_inform_the_credit_and_not_the_mean(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.02, 1.04])
    before = summarise(ledger, builder.campaign)
    builder.retest(1.10)
    after = summarise(ledger, builder.campaign)
    assert before.incumbent is not None
    assert after.incumbent is not None
    assert before.credit is not None
    assert after.credit is not None
    assert after.incumbent.metric == before.incumbent.metric
    assert after.incumbent.values == {1: 1.00, 2: 1.02, 3: 1.04}
    assert after.incumbent.retests == {7: 1.10}
    assert after.credit.level > before.credit.level


def test_undone_keep_is_listed_and_not_counted_as_kept(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    lucky = builder.idea("lucky", [0.90, 0.91], status=Status.KEEP)
    builder.undo(lucky.number, "its re-test showed no gain")
    summary = summarise(ledger, builder.campaign)
    assert (summary.experiments.kept, summary.experiments.discarded, summary.experiments.undone) == (1, 1, 1)
    assert [each.undone for each in summary.kept] == ["its re-test showed no gain"]
    assert summary.incumbent is not None
    assert summary.incumbent.number == 0
    assert "(undone: its re-test showed no gain) lucky" in render(summary)
    assert "Kept ideas (0, and 1 taken back)" in render(summary)


def test_only_the_last_attempt_counts_for_values_and_all_attempts_for_trials(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    experiment = builder.open("mended after a crash")
    builder.trial(experiment, 1, outcome=Outcome.CRASHED, cause="exit")
    builder.trial(experiment, 1, outcome=Outcome.CRASHED, cause="exit")
    builder.trial(experiment, 2, metric=0.5)
    experiment.attempt = 2
    ledger.update_experiment(experiment, "attempt")
    builder.trial(experiment, 1, metric=0.9)
    experiment.status, experiment.state, experiment.metric = Status.KEEP, State.DECIDED, 0.9
    ledger.update_experiment(experiment, "status", "state", "metric")
    summary = summarise(ledger, builder.campaign)
    assert summary.incumbent is not None
    assert summary.incumbent.values == {1: 0.9}
    assert summary.kept[0].trials == 4
    (failure,) = summary.failures
    assert (failure.trials, failure.experiments) == (2, 1)


def test_a_new_epoch_compares_with_its_own_baseline(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    builder.idea("first epoch", [0.5, 0.5], status=Status.KEEP)
    builder.new_epoch()
    waiting = summarise(ledger, builder.campaign)
    assert (waiting.baseline, waiting.incumbent, waiting.credit, waiting.record) == (None, None, None, None)
    assert "No baseline has been measured" in render(waiting)
    builder.baseline([2.00, 2.01, 1.99])
    builder.idea("second epoch", [1.9, 1.9], status=Status.KEEP)
    summary = summarise(ledger, builder.campaign)
    assert summary.baseline is not None
    assert summary.incumbent is not None
    assert summary.record is not None
    assert summary.baseline.metric == pytest.approx(2.0)
    assert (summary.incumbent.number, summary.record.metric) == (3, 1.9)
    assert [(each.number, each.epoch) for each in summary.kept] == [(1, 1), (3, 2)]
    assert "epoch" in render(summary)


def test_experiments_without_trials_are_shown_as_far_as_they_are_known(ledger: Ledger) -> None:
    """As after the import of a results.tsv."""
    builder = LedgerBuilder(ledger, COMMITS)
    for metric in (0.9979, 0.9932):
        experiment = builder.open("imported")
        experiment.status, experiment.state, experiment.metric = Status.KEEP, State.DECIDED, metric
        ledger.update_experiment(experiment, "status", "state", "metric")
    summary = summarise(ledger, builder.campaign)
    assert summary.incumbent is not None
    assert (summary.incumbent.metric, summary.incumbent.values, summary.record) == (0.9932, {}, None)
    assert "best val_bpb 0.993200 from 0.997900\n" in render(summary)


def test_summary_is_of_its_own_campaign(ledger: Ledger) -> None:
    first, second = LedgerBuilder(ledger, COMMITS, tag="apr5"), LedgerBuilder(ledger, COMMITS, tag="apr6")
    fill(first, 10, seed=1)
    fill(second, 20, seed=2)
    ledger.add_event("apr5", "drift", "another driver")
    assert summarise(ledger, first.campaign).experiments.run == 12
    assert summarise(ledger, second.campaign).experiments.run == 22
    assert summarise(ledger, second.campaign).event_counts == {"repair": 1}


# ---- the text


def assert_fits(text: str, width: int = 120, most_lines: int = MAX_LINES) -> None:
    """Everything but the commands below "Next", which are not broken so that they can be copied."""
    assert len(text.splitlines()) <= most_lines
    assert max(cells(line) for line in text.splitlines() if not re.match("   (git|python|/)", line)) <= width
    assert not [char for char in text if unicodedata.category(char) in ("Cc", "Cf") and char != "\n"]


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def section(text: str, title: str, below: int = 2) -> list[str]:
    """The lines below a title, without the header of the table."""
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(title))
    body = lines[start + below :]
    return body[: body.index("")] if "" in body else body


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_text_prints_the_figures(ledger: Ledger, direction: str) -> None:
    builder = LedgerBuilder(ledger, COMMITS, direction=direction)
    fill(builder, 60)
    summary = summarise(ledger, builder.campaign)
    text = render(summary)
    counts = Counter(row.status for row in ledger.experiments("apr5"))
    assert f"Campaign apr5: val_bpb, {direction} is better\n" in text
    shown = re.search(
        r"^62 experiments in .*: (\d+) kept .*, (\d+) discarded.*, (\d+) crashed, 1 open$", text, re.MULTILINE
    )
    assert shown
    assert [int(count) for count in shown.groups()] == [counts[word] for word in Status]
    baseline, incumbent = ledger.baseline("apr5", 1), ledger.incumbent("apr5")
    assert baseline is not None
    assert incumbent is not None
    assert builder.rule is not None
    level, se = builder.rule.incumbent_level, builder.rule.incumbent_se
    assert f"best val_bpb {level:.6f} ± {1.96 * se:.2g} (95 %) from {baseline.metric:.6f}: a gain of " in text
    assert f" {builder.rule.sigma:.3g} for one run ({builder.rule.sigma_df} df)" in text

    rows = section(text, "Kept ideas")
    kept = [row for row in ledger.experiments("apr5") if (row.status is Status.KEEP or row.undone) and row.number]
    assert 2 <= len(rows) == len(kept) <= 14
    for line, row in zip(rows, kept, strict=True):
        judgement = row.judgement
        half = (judgement["gain_high"] - judgement["gain_low"]) / 2
        expected = [
            *(str(row.number), row.commit[:7]),
            *(
                f"{judgement['gain']:+.3g}",
                "±",
                f"{half:.2g}",
                f"{judgement['z']:.1f}",
                str(judgement["n_trials"]),
            ),
            *(f"+{row.lines_added}", f"-{row.lines_deleted}"),
        ]
        assert line.split()[: len(expected)] == expected

    families = {line.split()[-1]: line.split() for line in section(text, "Families")}
    for family in ("optimizer", "model", "data"):
        ideas = [row for row in ledger.experiments("apr5") if row.family == family]
        words = Counter(row.status for row in ideas)
        assert families[family][:3] == [str(len(ideas)), str(words[Status.KEEP]), str(words[Status.CRASH])]
    assert_fits(text)


def test_tables_print_the_ledgers_numbers(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    fill(builder, 60)
    builder.device = "NVIDIA H100"
    builder.crash("too wide", cause="oom_gpu")
    text = render(summarise(ledger, builder.campaign))
    rows, trials = ledger.experiments("apr5"), ledger.trials("apr5")
    ended = [(trial, trial.result) for trial in trials if trial.result is not None]
    baseline, incumbent = ledger.baseline("apr5", 1), ledger.incumbent("apr5")
    assert baseline is not None
    assert incumbent is not None
    assert builder.rule is not None

    assert baseline.metric is not None
    assert incumbent.metric is not None
    single = min((t.metric, t.number, t.seed) for t, r in ended if r.outcome is Outcome.COMPLETED and t.metric)
    naive, kept, credited = section(text, "how good is it", below=1)
    assert naive.split()[3:5] == [f"{single[0]:.6f}", f"{baseline.metric - single[0]:+.3g}"]
    assert f"experiment {single[1]}, seed {single[2]}" in naive
    assert kept.split()[3:5] == [f"{incumbent.metric:.6f}", f"{baseline.metric - incumbent.metric:+.3g}"]
    level, se = builder.rule.incumbent_level, builder.rule.incumbent_se
    assert credited.split()[1:5] == [f"{level:.6f}", "±", f"{1.96 * se:.2g}", f"{builder.rule.credited_gain:+.3g}"]
    retests = [trial for trial in trials if trial.purpose is Purpose.RETEST]
    assert f"± 95 %, each win less its luck; {len(retests)} re-tests and misses counted" in credited

    missed = [row for row in rows if row.verdict == "inconclusive" and row.judgement["z"] > 0 and not row.undone]
    missed = [row for row in missed if row.status is Status.DISCARD]
    missed.sort(key=lambda row: -row.judgement["z"])
    shown = section(text, "Near misses")
    assert [line.split()[0] for line in shown] == [str(row.number) for row in missed[:5]]
    for line, row in zip(shown, missed, strict=False):
        assert line.split()[2] == f"{row.judgement['gain']:+.3g}"
        assert line.split()[5:7] == [f"{row.judgement['z']:.1f}", str(row.judgement["n_trials"])]

    failed = Counter((r.outcome.value, r.cause) for _, r in ended if r.outcome in FAILURES)
    for line in section(text, "Failed trials")[:5]:
        outcome, cause, count, experiments = line.split()[:4]
        assert int(count) == int(experiments) == failed[outcome, cause]
        lost_s = sum(r.duration_s for _, r in ended if (r.outcome, r.cause) == (outcome, cause))
        assert f" {duration(lost_s)}  #" in line

    total = sum(result.duration_s for _, result in ended)
    assert f"{len(ended)} trials took {duration(total)}, {builder.trial_s / 3600:.3g} GPU-hours" in text
    times = {line.split()[0]: line for line in section(text, "Trial time")}
    assert times.keys() == {result.outcome.value for _, result in ended}
    for outcome, line in times.items():
        spent = [r.duration_s for _, r in ended if r.outcome == outcome]
        gpu = f"{builder.trial_s / 3600:.3g}" if outcome == "crashed" else "-"
        assert re.fullmatch(rf"{outcome} +{len(spent)} +{duration(sum(spent))} +{gpu} +{sum(spent) / total:.0%}", line)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160, 200])
def test_text_is_bounded_for_a_long_campaign(ledger: Ledger, width: int) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.new_epoch()
    fill(builder, 300)
    with ledger.transaction():
        for at in range(30):
            last = builder.crash(f"crash {at}", FAILURES[at % len(FAILURES)], f"cause {at}", family=f"family {at} " * 9)
            last.undone = "by hand " * 50
            ledger.update_experiment(last, "undone")
            ledger.add_event("apr5", f"kind {at}", "text " * 100)
        builder.crash("pruned", Outcome.PRUNED)
        for number in (0, ledger.next_number("apr5") - 1):
            experiment = ledger.experiment("apr5", number)
            assert experiment is not None
            experiment.description = "long " * 400
            ledger.update_experiment(experiment, "description")
        experiment = builder.open("open " * 400)
        for seed in range(40):
            builder.trial(experiment, seed)
        builder.retest(1.0)
    summary = summarise(ledger, builder.campaign)
    text = render(summary, width=width, colour=False)
    assert_fits(text, width, MAX_LINES if width >= 80 else 2 * MAX_LINES)
    assert len(summary.near_misses) == 20 < summary.inconclusive
    shown = [line.split()[0] for line in section(text, "Kept ideas")]
    assert shown[:-1] == [str(each.number) for each in summary.kept[-14:]]
    rows = text[text.index("Kept ideas") :].splitlines()
    assert [row for row in rows if "…" in row[1:-1]] == [], "only the last column is cut"
    assert f"… and {len(summary.kept) - 14} earlier" in text
    assert f"… and {len(summary.failures) - 5} more" in text
    assert f"… and {len(summary.families) - 6} more" in text


@pytest.mark.parametrize("width", range(40, 201, 20))
def test_rows_are_complete_and_flush_on_a_page_of_any_width(ledger: Ledger, width: int) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    names = ["plain", "自主研究把学习率加倍", "réglage 自主 " * 20, "plain again"]
    for at, name in enumerate(names, start=1):
        builder.idea(f">{name}", [1 - at / 10, 1 - at / 10], status=Status.KEEP, lines=(120, 1000))
    summary = summarise(ledger, builder.campaign)
    text = render(summary, width=width, colour=False)
    assert_fits(text, width)
    rows = section(text, "Kept ideas")
    for row, each in zip(rows, summary.kept, strict=True):
        assert each.gain is not None
        assert f" {each.gain:+.3g} ± " in row
        assert row.partition(">")[2][:5] == each.description[1:6]
    assert len({cells(row.partition(">")[0]) for row in rows}) == 1
    if width >= 100:
        assert all("+120 -1000" in row for row in rows)


@pytest.mark.parametrize("description", NASTY, ids=lambda text: ascii(text[:12]))
def test_a_description_is_shown_as_one_line_of_text(ledger: Ledger, description: str) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99], description=description)
    builder.idea(description, [0.90, 0.91], status=Status.KEEP, family=description)
    builder.crash(description, family=description, cause=description)
    builder.open(description)
    ledger.add_event("apr5", "repair", description)
    text = render(summarise(ledger, builder.campaign))
    assert_fits(text)
    (row,) = section(text, "Kept ideas")
    start = " ".join(re.sub(r"[\x00-\x1f\u202e]", " ", description).split())[:20]
    assert start in row


def test_empty_campaign_names_the_first_command(ledger: Ledger) -> None:
    text = render(summarise(ledger, LedgerBuilder(ledger, COMMITS).campaign))
    assert text.splitlines() == [
        "Campaign apr5: val_bpb, lower is better",
        "No experiment has been run yet. Next:",
        '   python scripts/run_experiment.py -d "baseline"',
    ]


def test_every_uncertainty_is_told_at_95_percent(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    summary = summarise(ledger, builder.campaign)
    assert summary.credit is not None
    assert f"{summary.credit.se:.2g}" == "0.0058"
    _, text = digest(summary)
    assert "credited 1.000000 ± 0.011 (95 %), a gain of" in text


def test_the_counts_of_a_digest_add_up_and_one_is_no_plural(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.crash("baseline")
    title, text = digest(summarise(ledger, builder.campaign))
    assert title == "apr5: 1 experiment, no baseline yet"
    assert "1 experiment in 5 min 0 s: 0 kept, 0 discarded, 1 crashed\n" in text
    assert text.endswith("most failures: crashed exit, 1 trial")
    builder.baseline([1.00, 1.01, 0.99])
    builder.open("runs")
    _, text = digest(summarise(ledger, builder.campaign))
    assert ": 1 kept (1 baseline), 0 discarded, 1 crashed, 1 open\n" in text


def test_campaign_of_only_a_baseline(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    summary = summarise(ledger, builder.campaign)
    text = render(summary)
    assert "1 experiment in 15 min 0 s (4.0 per hour): 1 kept (1 of them baseline), 0 discarded" in text
    assert "best val_bpb 1.000000 ± 0.011 (95 %) from 1.000000: nothing better than the baseline has been kept" in text
    assert "Kept ideas" not in text
    assert "Families" not in text


def test_baseline_of_one_run_tells_no_noise(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00])
    assert "not known yet: no code has run at two seeds" in render(summarise(ledger, builder.campaign))


def test_deterministic_training_is_called_so(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.25, 1.25, 1.25])
    assert "the training is deterministic" in render(summarise(ledger, builder.campaign))
    builder.idea("half the batch", [1.0], status=Status.KEEP)
    exact = "a gain of +0.25 (+20.00%), exact, since the training is deterministic\n"
    assert exact in render(summarise(ledger, builder.campaign))


def test_campaign_of_only_crashes(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.crash("baseline", cause="oom_gpu")
    builder.crash("baseline again", cause="oom_gpu")
    text = render(summarise(ledger, builder.campaign))
    assert "2 experiments in 10 min 0 s (12.0 per hour): 0 kept, 0 discarded, 2 crashed, 0 open" in text
    assert "No baseline has been measured" in text
    assert section(text, "Failed trials")[0].split()[:4] == ["crashed", "oom_gpu", "2", "2"]
    assert "measure the unmodified code" in " ".join(text.split())
    assert text.endswith('   python scripts/run_experiment.py -d "baseline"\n')
    assert "\n\n\n" not in text


def test_baseline_that_is_still_running(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.trial(builder.open("baseline"), 1)
    summary = summarise(ledger, builder.campaign)
    assert summary.experiments_per_h is None
    assert "running at seed 1" in render(summary)


def test_running_experiment_is_shown_with_its_seeds(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    experiment = builder.open("half the batch")
    builder.trial(experiment, 1, metric=0.98)
    builder.trial(experiment, 2)
    summary = summarise(ledger, builder.campaign)
    assert summary.open_experiment is not None
    assert (summary.open_experiment.values, summary.open_experiment.running_seeds) == ({1: 0.98}, [2])
    assert f"experiment 1 ({experiment.commit[:7]}, half the batch): 1 of its trials completed" in render(summary)


def test_judged_experiment_names_the_command_that_logs_it(ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    experiment = builder.open("half the batch")
    experiment.state, experiment.verdict = State.JUDGED, "better"
    ledger.update_experiment(experiment, "state", "verdict")
    assert "judged better, to be logged: python scripts/log_result.py" in render(summarise(ledger, builder.campaign))


@pytest.mark.parametrize("scale", [1e-9, 1e9, -1.0])
def test_metrics_far_from_one_keep_their_digits(ledger: Ledger, scale: float) -> None:
    builder = LedgerBuilder(ledger, COMMITS, direction="higher")
    fill(builder, 40, scale=scale)
    summary = summarise(ledger, builder.campaign)
    assert summary.baseline is not None
    assert summary.baseline.metric is not None
    text = render(summary)
    shown = re.search(r"best val_bpb (\S+) ± \S+ \(95 %\) from (\S+):", text)
    assert shown
    assert summary.credit is not None
    assert float(shown[1]) == pytest.approx(summary.credit.level, rel=1e-6)
    assert float(shown[2]) == pytest.approx(summary.baseline.metric, rel=1e-6)
    json.dumps(dataclasses.asdict(summary), allow_nan=False)
    assert_fits(text)


def test_numbers_keep_what_a_reader_needs() -> None:
    assert [number(x) for x in (0.99791, 0.0, 44.0, 1.23456789e-9, 1234567890.0, -0.5, None)] == [
        "0.997910", "0.000000", "44.000000", "1.23456789e-09", "1.23456789e+09", "-0.500000", "-",
    ]  # fmt: skip
    assert [duration(x) for x in (0.0, 12.42, 59.97, 200, 3599.8, 34800, 360000)] == [
        "0.0 s", "12.4 s", "1 min 0 s", "3 min 20 s", "1 h 0 min", "9 h 40 min", "100 h 0 min",
    ]  # fmt: skip


def test_comparison_has_a_line_for_each_campaign_and_is_bounded(ledger: Ledger) -> None:
    builders = [LedgerBuilder(ledger, COMMITS, tag=f"apr{at}") for at in range(45)]
    builders[-1].baseline([1.0, 1.1, 1.2])
    summaries = [summarise(ledger, builder.campaign) for builder in builders]
    text = render_comparison(summaries)
    assert_fits(text)
    assert "apr4:" not in text
    assert "apr5: val_bpb, lower is better" in text
    assert text.splitlines()[-2].split()[:3] == ["1", "1", "0"]
    assert text.splitlines()[-1] == "… and 5 older"


# ---- the script


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose ledger holds the campaigns apr5 and apr6."""
    project = tmp_path / "project"
    commits = make_repository(project)
    with Ledger(project / ".git" / "autoresearch", create=True) as ledger:
        for tag, ideas in (("apr5", 12), ("apr6", 5)):
            fill(LedgerBuilder(ledger, commits, tag=tag, project=project), ideas)
            subprocess.run(["git", "branch", f"autoresearch/{tag}"], cwd=project, check=True)
    return project


def test_script_summarizes_the_campaign_of_the_branch(project: Path, run_script: Script) -> None:
    subprocess.run(["git", "switch", "--quiet", "autoresearch/apr5"], cwd=project, check=True)
    done = run_script("summarize", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Campaign apr5: val_bpb, lower is better\n14 experiments")
    assert "\x1b" not in done.stdout


def test_script_gives_the_same_figures_as_json(project: Path, run_script: Script, tmp_path: Path) -> None:
    done = run_script("summarize", "--project", project, "--tag", "apr6", "--json", cwd=tmp_path)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["ok"], answer["command"], answer["error"]) == (0, True, "summarize", None)
    with Ledger(project / ".git" / "autoresearch") as ledger:
        campaign = ledger.campaign("apr6")
        assert campaign is not None
        expected = dataclasses.asdict(summarise(ledger, campaign))
        rule = KeepRule.from_json(campaign.rule or {})
        expected["recommendations"] = [dataclasses.asdict(each) for each in recommend(summarise(ledger, campaign))]
    for trial in (*answer["data"]["trials_under_way"], *expected["trials_under_way"]):
        assert trial.pop("elapsed_s") > 0, "which goes on between the two"
    assert answer["data"] == json.loads(json.dumps(expected))
    assert answer["data"]["credit"]["level"] == rule.incumbent_level
    assert math.isfinite(answer["data"]["noise"]["sigma"])


def test_script_compares_all_campaigns(project: Path, run_script: Script) -> None:
    answer = json.loads(run_script("summarize", "--all-tags", "--json", cwd=project).stdout)
    assert [(c["tag"], c["experiments"]["run"]) for c in answer["data"]["campaigns"]] == [
        ("apr5", 14),
        ("apr6", 7),
    ]
    assert run_script("summarize", "--all-tags", cwd=project).stdout.startswith("Campaigns (2)\n")


def test_script_without_a_campaign_says_how_to_set_one_up(git_repo: Path, run_script: Script) -> None:
    done = run_script("summarize", "--json", cwd=git_repo)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (3, "no_campaign")
    assert "setup_campaign.py" in error["hint"]
    assert not (git_repo / ".git" / "autoresearch").exists()


def test_script_with_an_unknown_tag_names_the_known_ones(project: Path, run_script: Script) -> None:
    done = run_script("summarize", "--tag", "may1", cwd=project)
    assert done.returncode == 3
    assert "apr5, apr6" in done.stderr


def test_script_neither_waits_for_the_loop_nor_writes(project: Path, run_script: Script) -> None:
    state = project / ".git" / "autoresearch"

    def stamps() -> dict[Path, tuple[int, int]]:
        """Not the contents: a process that opens and closes a database drops its own locks on it."""
        files = (path for path in project.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    with Ledger(state) as ledger, lock(state / "apr5", wait_s=0), ledger.transaction():
        ledger.add_event("apr5", "repair", "not committed yet")
        before = stamps()
        done = run_script("summarize", "--tag", "apr5", cwd=project, timeout_s=20)
        assert stamps() == before
    assert done.returncode == 0
    assert "not committed yet" not in done.stdout


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_text_is_coloured_on_a_terminal_unless_no_color_is_set(project: Path, no_color: str, coloured: bool) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "scripts" / "summarize.py"), "--tag", "apr5"]
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color, "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=project, stdin=terminal, stdout=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(controller, 65536)
            except OSError:  # Linux's end of file on a terminal
                break
            shown += chunk
    os.close(controller)
    assert process.returncode == 0
    assert b"Campaign apr5" in shown
    assert (b"\x1b[" in shown) is coloured

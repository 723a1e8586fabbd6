"""What a campaign found out, in figures: each is computed here from the ledger a second time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean

import pytest
from tests.ledger_builder import LedgerBuilder

from autoresearch.ledger import DECIDING, Experiment, Ledger, Purpose, Status, Trial
from autoresearch.report.figures import Summary
from autoresearch.report.summary import INSIGHTS_BYTES, read_insights, summarise
from autoresearch.report.text import render
from autoresearch.report.usage import gpu_count
from autoresearch.trial import Outcome

COMMITS = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(20)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "state", create=True) as ledger:
        yield ledger


@pytest.fixture
def builder(ledger: Ledger) -> LedgerBuilder:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.000, 1.002, 0.998])
    return builder


def summed_up(builder: LedgerBuilder) -> Summary:
    return summarise(builder.ledger, builder.campaign)


def judgement(experiment: Experiment, name: str) -> float:
    return float(experiment.judgement[name])


# ---- time


@pytest.mark.parametrize(
    ("device", "gpus"),
    [
        ("", 0),
        ("cpu", 0),
        ("NVIDIA H100 80GB HBM3", 1),
        ("8 x NVIDIA H100 80GB HBM3", 8),
        ("NVIDIA A100, 2 x NVIDIA L4", 3),
        ("unknown GPU", 1),
    ],
)
def test_gpus_are_counted_from_the_name_of_the_device(device: str, gpus: int) -> None:
    assert gpu_count(device) == gpus


def test_gpu_hours_are_those_of_the_trials_on_gpus(builder: LedgerBuilder) -> None:
    builder.idea("on the CPU", [1.0])
    builder.device, builder.trial_s = "2 x NVIDIA H100", 1800.0
    builder.idea("on two GPUs", [1.0, 1.001], status=Status.DISCARD)
    builder.device = "NVIDIA H100"
    builder.crash("too wide", cause="oom_gpu")
    summary = summed_up(builder)
    times = {time.outcome: time for time in summary.time_by_outcome}
    assert times["completed"].gpu_s == 2 * 2 * 1800
    assert times["crashed"].gpu_s == 1800
    assert summary.throughput.gpu_s == sum(time.gpu_s for time in summary.time_by_outcome)
    assert "2.5 GPU-hours" in render(summary)


def test_cpu_time_is_no_gpu_time(builder: LedgerBuilder) -> None:
    summary = summed_up(builder)
    assert summary.throughput.gpu_s == 0
    assert summary.throughput.trial_s == sum(time.wall_s for time in summary.time_by_outcome) == 900
    assert "GPU-hours" not in render(summary)
    assert "none of it on a GPU" in render(summary)


def test_device_is_busy_while_any_trial_runs(builder: LedgerBuilder) -> None:
    """Trials that overlap, as two of a claim on two devices may, fill their time once."""
    builder.at(600)  # the agent thinks as long as two trials run
    first = builder.open("first")
    builder.trial(first, 1, metric=1.0)
    builder.at(-150)
    builder.trial(first, 2, metric=1.0)  # begins in the middle of the first
    used = summed_up(builder).throughput

    spans = [
        (datetime.fromisoformat(trial.created_at).timestamp(), trial.result.duration_s)
        for trial in builder.ledger.trials("apr5")
        if trial.result
    ]
    busy = {second for start, length in spans for second in range(int(start), int(start + length))}
    assert used.busy_s == len(busy) == 900 + 450
    assert used.trial_s == 900 + 600
    assert used.busy_share == pytest.approx(1350 / 1950)
    assert "the device was busy 69% of the time" in render(summed_up(builder))


# ---- effects


def test_sure_effects_are_those_whose_interval_excludes_zero(builder: LedgerBuilder) -> None:
    for number, level in enumerate((0.99, 1.0005, 1.08, 1.02, 0.97, 1.3, 0.999)):
        builder.idea(f"idea {number}", [level, level + 0.0005], status=Status.DISCARD)
    found = summed_up(builder).discoveries
    rows = [row for row in builder.ledger.experiments("apr5") if not row.is_baseline]
    gains = [row for row in rows if judgement(row, "gain_low") > 0]
    losses = [row for row in rows if judgement(row, "gain_high") < 0]
    assert len(gains) == 2
    assert len(losses) == 3
    gains.sort(key=lambda row: -judgement(row, "gain_low"))
    losses.sort(key=lambda row: judgement(row, "gain_high"))
    assert [each.number for each in found.gains] == [row.number for row in gains]
    assert [each.number for each in found.losses] == [row.number for row in losses]
    for each, row in zip((*found.gains, *found.losses), (*gains, *losses), strict=True):
        assert (each.gain, each.gain_low, each.gain_high) == tuple(
            row.judgement[name] for name in ("gain", "gain_low", "gain_high")
        )


def test_keeps_stand_on_one_another(builder: LedgerBuilder) -> None:
    kept = [builder.idea(f"step {at}", [1 - at / 20, 1 - at / 20], status=Status.KEEP) for at in (1, 2, 3)]
    taken_back = builder.idea("lucky", [0.7, 0.7], status=Status.KEEP)
    builder.undo(taken_back.number, "no gain")
    summary = summed_up(builder)
    stack = summary.discoveries.stack
    assert (stack.keeps, stack.pairs) == (3, 3)
    assert stack.gains_sum == pytest.approx(sum(judgement(each, "gain") for each in kept))
    assert f"3 pairs of them ran together: {stack.gains_sum:+.3g} in all" in " ".join(render(summary).split())


def ablated(builder: LedgerBuilder, seeds: Sequence[int]) -> tuple[Experiment, Experiment]:
    """Two keeps and, as compare.py leaves it, a comparison with the best less each of them."""
    first = builder.idea("first", [0.95, 0.95], status=Status.KEEP)
    best = builder.idea("second", [0.90, 0.90], status=Status.KEEP)
    baseline = builder.ledger.experiments("apr5")[0]
    arms = [baseline.commit, best.commit, "a" * 40, "b" * 40]  # the best without the first, without the second
    values = {arms[0]: 1.0, arms[1]: 0.9, arms[2]: 0.905, arms[3]: 0.95}
    for seed in seeds:
        for commit, experiment in zip(arms, (baseline, best, first, best), strict=True):
            run = builder.trial(experiment, seed, Purpose.CLAIM, metric=values[commit] + seed * 1e-5)
            builder.ledger._update("trial", {"commit_sha": commit}, "id = ?", (run.id,))
    builder.campaign.claim = {
        "a": "baseline", "b": "experiment 2", "arms": arms, "seeds": list(seeds), "word": "confirmed",
        "reason": "confirmed: it is so", "gain": 0.1, "gain_low": 0.09, "gain_high": 0.11,
    }  # fmt: skip
    builder.ledger.update_campaign(builder.campaign, "claim")
    return first, best


def test_interaction_is_what_a_change_adds_to_the_best_less_its_gain_when_kept(builder: LedgerBuilder) -> None:
    first, best = ablated(builder, range(1001, 1007))
    summary = summed_up(builder)
    small, large = summary.discoveries.ablations
    assert (small.number, large.number) == (first.number, best.number)
    assert small.gain == pytest.approx(0.005)
    assert large.gain == pytest.approx(0.05)
    assert (small.seeds, small.gain_when_kept) == (6, first.judgement["gain"])
    assert small.interaction == pytest.approx(small.gain - judgement(first, "gain"))
    text = render(summary)
    assert "confirmed on fresh seeds" in text
    assert re.search(rf"^ *{first.number} +\+0.005 +\+{judgement(first, 'gain'):.3g} ", text, re.MULTILINE)


def test_ablation_of_an_earlier_best_says_nothing_of_todays(builder: LedgerBuilder) -> None:
    ablated(builder, range(1001, 1007))
    builder.idea("third", [0.80, 0.80], status=Status.KEEP)
    summary = summed_up(builder)
    assert summary.discoveries.ablations == []
    assert "not claimed yet on fresh seeds" in render(summary)


def test_a_look_at_another_pair_does_not_hide_the_claim_of_the_best(builder: LedgerBuilder) -> None:
    """compare.py keeps the comparisons before the last one under ``past``."""
    ablated(builder, range(1001, 1007))
    earlier = {**builder.campaign.claim}
    builder.campaign.claim = {
        "a": "experiment 2", "b": "experiment 9", "arms": ["c" * 40, "d" * 40], "seeds": [1007], "past": [earlier],
    }  # fmt: skip
    builder.ledger.update_campaign(builder.campaign, "claim")
    assert summed_up(builder).claim == earlier
    builder.campaign.claim = {**builder.campaign.claim, "word": "inconclusive", "reason": "inconclusive: so so"}
    builder.ledger.update_campaign(builder.campaign, "claim")
    summary = summed_up(builder)
    assert summary.claim == earlier
    assert [each.number for each in summary.discoveries.ablations] == [1, 2]


def test_idea_tried_beside_several_incumbents_is_an_interaction(builder: LedgerBuilder) -> None:
    builder.idea("Warm  down", [1.02], status=Status.DISCARD)
    builder.idea("warm down", [1.03], status=Status.DISCARD)
    assert summed_up(builder).discoveries.retried == [], "it was the same incumbent each time"
    builder.idea("half the batch", [0.9, 0.9], status=Status.KEEP)
    last = builder.idea("warm down", [0.85, 0.85], status=Status.KEEP)
    summary = summed_up(builder)
    (found,) = summary.discoveries.retried
    assert [(each.number, each.incumbent) for each in found.tries] == [(1, 0), (2, 0), (4, 3)]
    assert f"{judgement(last, 'gain'):+.3g} on #3: warm down" in render(summary)


@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_effect_of_a_swept_parameter(ledger: Ledger, direction: str) -> None:
    sign = 1 if direction == "lower" else -1
    builder = LedgerBuilder(ledger, COMMITS, direction=direction)
    builder.baseline([sign * 2.0, sign * 2.002, sign * 1.998])
    metrics = {("0.02", "1"): 1.9, ("0.02", "2"): 1.7, ("0.04", "1"): 1.5, ("0.04", "2"): 1.1}
    for (rate, layers), metric in metrics.items():
        description = f"sweep: LR={rate} --depth={layers}"
        builder.idea(description, [sign * metric], family="sweep", status=Status.DISCARD)
    builder.crash("sweep: LR=0.08 --depth=1", family="sweep")
    builder.idea("sweep: over the floor", [sign * 1.0], status=Status.DISCARD)  # words of the user's own
    lr, depth = summed_up(builder).discoveries.sweeps
    assert (lr.name, depth.name) == ("LR", "--depth")
    assert [(each.value, each.points) for each in lr.values] == [("0.04", 2), ("0.02", 2), ("0.08", 1)]
    assert lr.values[0].metric == pytest.approx(sign * fmean([1.5, 1.1]))
    assert lr.values[-1].metric is None
    assert lr.effect == pytest.approx(fmean([1.9, 1.7]) - fmean([1.5, 1.1]))
    assert depth.effect == pytest.approx(fmean([1.9, 1.5]) - fmean([1.7, 1.1]))


def test_what_never_helped_is_counted_over_its_numbers(builder: LedgerBuilder) -> None:
    lost = [builder.idea(f"dropout {rate}", [1.01 + rate], status=Status.DISCARD) for rate in (0.1, 0.25)]
    builder.crash("Dropout 5e-1")
    for at in range(2):
        builder.idea(f"muon {at}", [1.2], status=Status.DISCARD)
    builder.idea("muon 7", [0.9, 0.9], status=Status.KEEP)
    (found,) = summed_up(builder).discoveries.fruitless
    assert (found.idea, found.tries, found.crashed, found.numbers) == ("Dropout 5e-1", 3, 1, [1, 2, 3])
    assert found.best_gain == max(judgement(each, "gain") for each in lost)
    assert "tried 3 times, 1 crashed, at best" in render(summed_up(builder))


def test_family_is_hopeless_after_three_misses_without_a_near_one(builder: LedgerBuilder) -> None:
    for at in range(3):
        builder.idea(f"shuffle {at}", [1.2], family="data", status=Status.DISCARD)
        near = [0.9995] if at else [1.2]
        builder.idea(f"wider {at}", near, family="model", status=Status.DISCARD)
        if at:
            builder.idea(f"slower {at}", [1.2], family="schedule", status=Status.DISCARD)
    summary = summed_up(builder)
    assert [each.family for each in summary.discoveries.hopeless] == ["data"]
    assert "family data: 0 of 3 kept\n" in render(summary)


def test_better_idea_refused_by_a_constraint_is_no_near_miss(builder: LedgerBuilder) -> None:
    limited = builder.idea("twice as wide", [0.9, 0.9], status=Status.DISCARD)
    builder.idea("so so", [0.9995], status=Status.DISCARD)
    limited.judgement["constraint"] = "breaks the constraint peak_vram_mb <= 100: peak_vram_mb is 120, the limit 100"
    builder.ledger.update_experiment(limited, "judgement")
    summary = summed_up(builder)
    assert [each.number for each in summary.constraint_limited] == [limited.number]
    assert [each.number for each in summary.near_misses] == [2]
    assert "(breaks the constraint peak_vram_mb <= 100: peak_vram_mb is 120" in render(summary)


# ---- the agent's words


def test_notes_are_the_agents_last_ones(builder: LedgerBuilder) -> None:
    for at in range(25):
        experiment = builder.crash(f"idea {at}")
        experiment.note = f"learned {at}\nand \x1b[31mmore\x1b[0m" if at % 5 else ""
        builder.ledger.update_experiment(experiment, "note")
    summary = summed_up(builder)
    rows = [row for row in builder.ledger.experiments("apr5") if row.note]
    assert summary.noted == len(rows) == 20
    assert [(each.number, each.text) for each in summary.notes] == [(row.number, row.note) for row in rows]
    text = render(summary)
    assert "\n#25 crash: learned 24 and [31mmore [0m\n" in text
    assert "\x1b" not in text
    assert "… and 16 earlier" in text


def test_insights_are_shown_behind_bars_and_bounded(builder: LedgerBuilder, tmp_path: Path) -> None:
    path = tmp_path / "insights.md"
    assert read_insights(tmp_path) == ""
    path.write_text("# Learned\n\nNext\n   rm -rf /\n" + "more\n" * 100_000, encoding="utf-8")
    insights = read_insights(tmp_path)
    assert len(insights) == INSIGHTS_BYTES
    text = render(summarise(builder.ledger, builder.campaign, insights=insights))
    assert "| # Learned\n| Next\n| rm -rf /\n| more\n" in text
    assert text.count("| more") == 5
    assert "\nNext\n   rm" not in text


def test_insights_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "insights.md")  # reading it would wait for ever
    assert read_insights(tmp_path) == ""
    (tmp_path / "insights.md").unlink()
    (tmp_path / "insights.md").write_bytes(b"half \xff a character")
    assert read_insights(tmp_path) == "half \ufffd a character"


# ---- a random campaign


def own_trials(ledger: Ledger, number: int) -> list[Trial]:
    return [trial for trial in ledger.trials("apr5", number) if trial.purpose in DECIDING]


def test_every_idea_that_is_shown_has_the_ledgers_numbers(ledger: Ledger) -> None:
    rng, builder = random.Random(5), LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.0, 1.003, 0.997])
    for at in range(80):
        description, family = f"idea {at % 7}", rng.choice(["data", "model", "loss"])
        if rng.random() < 0.1:
            builder.crash(description, Outcome.DIVERGED, "nan", family=family)
        else:
            builder.idea(
                description, [rng.gauss(1.0 - at / 2000, 0.01) for _ in range(rng.randint(1, 4))], family=family
            )
    summary = summed_up(builder)
    found = summary.discoveries
    shown = [*summary.kept, *summary.near_misses, *found.gains, *found.losses]
    shown += [each for retried in found.retried for each in retried.tries]
    lists: list[Sequence[object]] = [summary.kept, summary.near_misses, found.gains, found.losses, found.retried]
    assert all(lists), "the campaign must have something of everything for this test to mean anything"
    for each in shown:
        row = ledger.experiment("apr5", each.number)
        assert row is not None
        assert (each.status, each.incumbent, each.parent, each.commit) == (
            row.status, row.incumbent, row.parent, row.commit,
        )  # fmt: skip
        assert (each.gain, each.gain_low, each.gain_high, each.z, each.z_needed) == tuple(
            row.judgement[name] for name in ("gain", "gain_low", "gain_high", "z", "z_needed")
        )
        assert each.trials == len(own_trials(ledger, each.number))
    json.dumps(dataclasses.asdict(summary), allow_nan=False)

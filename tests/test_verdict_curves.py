from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from autoresearch.trial import TrialSpec
from autoresearch.verdict.curves import (
    CHECKPOINTS,
    LEAST_TRIALS,
    Curve,
    FinishedTrial,
    diverged_above,
    prune_bounds,
    reading,
)

RECORDED = Path(__file__).parents[1] / "benchmarks" / "keep_rule" / "h100_curves.json"


def curve(effect: float, noise: float, source: random.Random) -> list[tuple[float, float]]:
    """A loss that falls from 5 to 1 + effect; the effect grows along the run."""
    return [
        (step / 100, 1 + effect * step / 100 + 4 * math.exp(-step / 15) + noise * source.gauss(0, 1))
        for step in range(1, 101)
    ]


def trial(effect: float, noise: float, source: random.Random) -> FinishedTrial:
    ours, theirs = curve(effect, noise, source), curve(0.0, noise, source)
    return FinishedTrial(curve=ours, incumbent_curve=theirs, excess=effect + noise / 2 * source.gauss(0, 1))


def pruned_at(bounds: tuple[tuple[float, float], ...], run: Curve) -> float | None:
    for fraction, bound in bounds:
        loss = reading(run, fraction)
        if loss is not None and loss > bound:
            return fraction
    return None


def campaign(effects: list[float], noise: float, number: int = 0) -> list[FinishedTrial]:
    source = random.Random(number)
    return [trial(effect, noise, source) for effect in effects]


def test_nothing_is_pruned_before_a_dozen_trials_have_finished() -> None:
    finished = campaign([0.1 * n for n in range(LEAST_TRIALS)], noise=0.01)
    assert prune_bounds(finished[0].incumbent_curve, finished[:-1]) == ()
    assert len(prune_bounds(finished[0].incumbent_curve, finished)) == len(CHECKPOINTS)


def test_a_hopeless_trial_is_pruned_at_the_first_checkpoint_and_a_good_one_never() -> None:
    finished = campaign([-0.1, 0.2, 0.3, -0.05, 0.1, 0.5, 0.0, 0.4, 0.2, 0.3, 0.6, 0.1], noise=0.01)
    source = random.Random(9)
    theirs = curve(0.0, 0.01, source)
    bounds = prune_bounds(theirs, finished)
    assert pruned_at(bounds, curve(3.0, 0.01, source)) == CHECKPOINTS[0]
    assert pruned_at(bounds, curve(-0.2, 0.01, source)) is None
    assert pruned_at(bounds, theirs) is None


def test_bounds_are_what_a_runner_takes(tmp_path: Path) -> None:
    finished = campaign([0.1 * n for n in range(12)], noise=0.01)
    bounds = prune_bounds(finished[0].incumbent_curve, finished)
    assert [fraction for fraction, _ in bounds] == sorted(fraction for fraction, _ in bounds)
    spec = TrialSpec(
        trial_id="t", directory=str(tmp_path), command="true", cwd=str(tmp_path), env={}, seed=1, budget_s=1,
        limit_s=2, metric="loss", metric_pattern="x", prune_above=bounds,
    )  # fmt: skip
    assert TrialSpec.read(spec.write()).prune_above == bounds


def test_no_incumbent_curve_prunes_nothing() -> None:
    assert prune_bounds((), campaign([0.1 * n for n in range(20)], noise=0.01)) == ()


def test_a_curve_that_ends_early_is_compared_as_far_as_it_goes() -> None:
    finished = campaign([0.1 * n for n in range(20)], noise=0.01)
    half = finished[0].incumbent_curve[:55]
    assert [fraction for fraction, _ in prune_bounds(half, finished)] == [0.3, 0.4, 0.5]


@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
def test_good_trials_are_rarely_pruned_and_bad_ones_often_through_long_campaigns(noise: float) -> None:
    """Pruned trials feed back into the bounds, which must not make these stricter and stricter."""
    source = random.Random(int(100 * noise))
    pruned = {True: 0, False: 0}
    seen = {True: 0, False: 0}
    for _ in range(8):
        finished: list[FinishedTrial] = []
        for _ in range(80):
            effect = source.choice([-0.3, 0.0, 0.4, 0.8, 1.5]) * abs(source.gauss(0, 1))
            new = trial(effect, noise, source)
            at = pruned_at(prune_bounds(new.incumbent_curve, finished), new.curve)
            if len(finished) >= LEAST_TRIALS:
                seen[effect <= 0] += 1
                pruned[effect <= 0] += at is not None
            if at is not None:
                new = FinishedTrial(
                    curve=[point for point in new.curve if point[0] <= at],
                    incumbent_curve=new.incumbent_curve,
                    excess=None,
                )
            finished.append(new)
    assert pruned[True] / seen[True] < 0.05
    assert pruned[False] / seen[False] > (0.3 if noise < 1 else 0.05)


def test_a_pruned_trial_keeps_counting_with_the_lag_it_was_pruned_with() -> None:
    level = [(n / 10, 1.0) for n in range(1, 11)]
    good = FinishedTrial(curve=[(at, 1.1) for at, _ in level], incumbent_curve=level, excess=0.0)
    cut = FinishedTrial(curve=[(at, 3.0) for at, _ in level[:3]], incumbent_curve=level, excess=None)
    bounds = dict(prune_bounds(level, [good, cut] * 6))
    assert bounds[0.9] == pytest.approx(bounds[0.3])


def test_a_trial_only_a_little_behind_is_never_pruned() -> None:
    finished = campaign([-1.0] * 6 + [1.0] * 6, noise=0.0)
    theirs = curve(0.0, 0.0, random.Random(0))
    assert pruned_at(prune_bounds(theirs, finished), curve(0.4, 0.0, random.Random(0))) is None
    assert pruned_at(prune_bounds(theirs, finished), curve(0.6, 0.0, random.Random(0))) == 0.3


def test_a_reading_is_the_mean_of_the_latest_losses_when_the_fraction_is_passed() -> None:
    run = [(n / 10, float(n)) for n in range(1, 11)]
    assert reading(run, 0.65) == pytest.approx((3 + 4 + 5 + 6 + 7) / 5)
    assert reading(run, 0.2) == pytest.approx(1.5)
    assert reading(run[:5], 0.6) is None


def test_divergence_lies_far_above_any_loss_of_the_incumbent() -> None:
    assert diverged_above([[(0.1, 9.0), (1.0, 1.5)], [(0.1, 8.0), (1.0, 1.0)]]) == pytest.approx(25.0)
    assert diverged_above([]) == diverged_above([[]]) == 0.0


def test_on_recorded_h100_curves_leaving_one_out_saves_time_and_errs_never() -> None:
    trials = json.loads(RECORDED.read_text())["trials"]
    baseline = {each["seed"]: each for each in trials if each["change"] == "baseline"}
    assert len(trials) == 14

    def losses(each) -> list[tuple[float, float]]:
        return [(n / 10, loss) for n, loss in enumerate(each["train_loss"], start=1)]

    finished = {
        (each["change"], each["seed"]): FinishedTrial(
            curve=losses(each),
            incumbent_curve=losses(baseline[each["seed"]]),
            excess=each["val_bpb"] - baseline[each["seed"]]["val_bpb"],
        )
        for each in trials
        if each["change"] != "baseline" and not each["change"].startswith("WARM")  # schedules are exempt
    }
    saved, errors = 0.0, 0
    for name, left_out in finished.items():
        rest = [each for other, each in finished.items() if other != name]
        at = pruned_at(prune_bounds(left_out.incumbent_curve, rest, least_trials=8), left_out.curve)
        if at is not None:
            saved += 1 - at
            errors += left_out.excess is not None and left_out.excess < 0
    assert saved / len(finished) > 0.15
    assert errors == 0

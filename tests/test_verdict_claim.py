from __future__ import annotations

import json
import random
import statistics
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoresearch.errors import UsageError
from autoresearch.verdict.claim import (
    CONFIRMED,
    INCONCLUSIVE,
    compare_arms,
    leave_one_out,
    paired_t_p,
    wilcoxon_p,
)

SEEDS = range(101, 107)


def arms(gain: float, *, sigma: float = 1.0, number: int = 0, seeds=SEEDS) -> tuple[dict, dict]:
    source = random.Random(number)
    a = {seed: 5 + sigma * source.gauss(0, 1) for seed in seeds}
    return a, {seed: 5 - gain + sigma * source.gauss(0, 1) for seed in seeds}


def test_all_numbers_agree_with_scipy() -> None:
    a, b = arms(1.2)
    claim = compare_arms(a, b, "lower")
    first, second = list(a.values()), list(b.values())
    test = stats.ttest_rel(first, second, alternative="greater")
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert claim.p_t == pytest.approx(test.pvalue)
    assert (claim.gain_low, claim.gain_high) == pytest.approx((interval.low, interval.high))
    wilcoxon = stats.wilcoxon(first, second, alternative="greater", method="exact")
    assert claim.p_wilcoxon == pytest.approx(wilcoxon.pvalue)
    assert (claim.mean_a, claim.sd_a) == pytest.approx((np.mean(first), np.std(first, ddof=1)))
    assert (claim.mean_b, claim.sd_b) == pytest.approx((np.mean(second), np.std(second, ddof=1)))
    assert claim.gain == pytest.approx(np.mean(first) - np.mean(second))


@given(st.lists(st.floats(-10, 10).filter(lambda x: abs(x) > 1e-6), min_size=2, max_size=12, unique_by=abs))
def test_wilcoxon_without_ties_is_scipys_exact_test(gains: list[float]) -> None:
    expected = stats.wilcoxon(gains, alternative="greater", method="exact").pvalue
    assert wilcoxon_p(gains) == pytest.approx(expected)


@given(st.lists(st.integers(-3, 3).filter(bool), min_size=2, max_size=8))
def test_wilcoxon_with_ties_is_the_full_permutation_of_signs(gains: list[int]) -> None:
    ranks = stats.rankdata(np.abs(gains))
    patterns = np.array(np.meshgrid(*[[0, 1]] * len(gains))).reshape(len(gains), -1)
    expected = np.mean(ranks @ patterns >= ranks @ (np.array(gains) > 0) - 1e-9)
    assert wilcoxon_p(gains) == pytest.approx(expected)


def test_five_wins_of_five_are_the_least_that_wilcoxon_confirms() -> None:
    assert wilcoxon_p([1, 2, 3, 4, 5]) == pytest.approx(1 / 32)
    assert wilcoxon_p([1, 2, 3, 4]) > 0.05
    assert wilcoxon_p([-1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)


def test_zeros_carry_no_sign() -> None:
    assert wilcoxon_p([0.0, 0.0]) == 1.0
    assert wilcoxon_p([0.0, -1, 2, 3, 4, 5]) == wilcoxon_p([-1, 2, 3, 4, 5])


def test_a_large_gain_is_confirmed_and_none_is_not() -> None:
    assert compare_arms(*arms(4.0), "lower").word == CONFIRMED
    assert compare_arms(*arms(0.0), "lower").word == INCONCLUSIVE


def test_a_large_loss_is_inconclusive_and_its_gain_negative() -> None:
    claim = compare_arms(*arms(-4.0), "lower")
    assert claim.word == INCONCLUSIVE
    assert claim.gain < 0
    assert claim.p_t == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("gains", "t_says_yes", "wilcoxon_says_yes"),
    [
        ([10.0, 11.0, 9.0, 10.5, 9.5, 8.0], True, True),
        ([10.0, 11.0, 9.0, 10.5, 9.5, -9.55], True, False),
        ([1.0, 1.1, 1.2, 1.3, 1.4, 40.0], False, True),
    ],
)
def test_both_tests_must_agree(gains: list[float], t_says_yes: bool, wilcoxon_says_yes: bool) -> None:
    claim = compare_arms(dict(enumerate(gains)), dict.fromkeys(range(6), 0.0), "lower")
    assert claim.p_t is not None
    assert claim.p_wilcoxon is not None
    assert (claim.p_t < 0.05, claim.p_wilcoxon <= 0.05) == (t_says_yes, wilcoxon_says_yes)
    assert (claim.word == CONFIRMED) == (t_says_yes and wilcoxon_says_yes)


def test_higher_is_better_mirrors_the_comparison() -> None:
    a, b = arms(2.0)
    lower = compare_arms(a, b, "lower")
    higher = compare_arms({s: -v for s, v in a.items()}, {s: -v for s, v in b.items()}, "higher")
    assert (higher.gains, higher.p_t, higher.word) == (lower.gains, lower.p_t, lower.word)


def test_only_seeds_that_both_arms_completed_count() -> None:
    a, b = arms(3.0)
    del a[101]
    claim = compare_arms(a, b | {999: 0.0}, "lower")
    assert claim.seeds == (102, 103, 104, 105, 106)
    assert claim.n == len(claim.gains) == 5


def test_fewer_than_five_pairs_are_refused() -> None:
    a, b = arms(3.0, seeds=range(4))
    with pytest.raises(UsageError, match=r"at least 5 seeds.*got 4") as refused:
        compare_arms(a, b, "lower")
    assert "--exploratory" in refused.value.hint


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_an_exploratory_comparison_never_confirms(count: int) -> None:
    claim = compare_arms(*arms(50.0, seeds=range(count)), "lower", exploratory=True)
    assert claim.word == INCONCLUSIVE
    assert claim.exploratory
    assert (claim.p_t is None) == (claim.sd_a is None) == (claim.gain_low is None) == (count == 1)


def test_no_common_seed_is_refused_even_when_exploratory() -> None:
    with pytest.raises(UsageError, match="at least 1 seed "):
        compare_arms({1: 1.0}, {2: 1.0}, "lower", exploratory=True)


def test_an_unknown_direction_and_a_nan_are_refused() -> None:
    a, b = arms(1.0)
    with pytest.raises(UsageError, match="direction"):
        compare_arms(a, b, "down")
    with pytest.raises(UsageError, match="finite"):
        compare_arms(a, b | {101: float("nan")}, "lower")


def test_arms_that_no_seed_moves_confirm_nothing() -> None:
    claim = compare_arms(dict.fromkeys(SEEDS, 2.0), dict.fromkeys(SEEDS, 1.0), "lower")
    assert claim.word == INCONCLUSIVE
    assert "one run" in claim.reason
    assert claim.p_t == 0.0


def test_a_constant_gain_over_varying_seeds_is_confirmed() -> None:
    a = {seed: float(seed) for seed in SEEDS}
    assert compare_arms(a, {seed: value - 1 for seed, value in a.items()}, "lower").word == CONFIRMED


def test_a_claim_can_be_stored_as_json_and_its_sentence_holds_the_numbers() -> None:
    claim = compare_arms(*arms(3.0), "lower")
    json.dumps(asdict(claim), allow_nan=False)
    assert claim.p_t is not None
    assert f"{claim.gain:+.4g}" in claim.reason
    assert f"p = {claim.p_t:.3g}" in claim.reason


def test_empty_differences_are_confirmed_at_most_one_time_in_twenty() -> None:
    words = [compare_arms(*arms(0.0, number=number), "lower").word for number in range(600)]
    assert words.count(CONFIRMED) <= 45


def test_a_gain_of_three_sigma_is_nearly_always_confirmed_on_six_seeds() -> None:
    words = [compare_arms(*arms(3.0, number=number), "lower").word for number in range(200)]
    assert words.count(CONFIRMED) >= 185


def test_equal_gains_have_no_t_test_to_speak_of() -> None:
    assert [paired_t_p([x, x]) for x in (1.0, 0.0, -1.0)] == [0.0, 0.5, 1.0]


# ---- leave one out


def test_leave_one_out_finds_the_change_that_carries_the_gain() -> None:
    seeds = range(1, 11)
    source = random.Random(4)

    def arm(level: float) -> dict[int, float]:
        return {seed: level + 0.1 * source.gauss(0, 1) for seed in seeds}

    found = leave_one_out(arm(1.0), {"warm-up": arm(1.0), "width": arm(3.0), "decay": arm(1.05)}, "lower")
    assert found[-1].name == "width"
    assert [part.claim.word for part in found] == [INCONCLUSIVE, INCONCLUSIVE, CONFIRMED]
    assert found[-1].share == pytest.approx(0.97, abs=0.1)
    assert sum(part.share or 0 for part in found) == pytest.approx(1)


def test_looking_at_many_changes_raises_the_bar_for_each() -> None:
    a, full = arms(2.2, number=3)
    alone = leave_one_out(full, {"x": a}, "lower")[0].claim
    assert alone.word == CONFIRMED
    crowd = {"x": a} | {f"empty {n}": arms(0.0, number=n)[1] for n in range(20, 40)}
    among_many = next(part.claim for part in leave_one_out(full, crowd, "lower") if part.name == "x")
    assert among_many.p_t is not None
    assert alone.p_t is not None
    assert among_many.p_t > alone.p_t
    assert among_many.word == INCONCLUSIVE


def test_equal_evidence_stays_equal_after_the_correction() -> None:
    a, full = arms(2.2, number=3)
    first, second = leave_one_out(full, {"x": a, "y": dict(a)}, "lower")
    assert first.claim.p_t == second.claim.p_t
    assert first.claim.p_wilcoxon == second.claim.p_wilcoxon


def test_corrected_p_values_are_those_of_holm() -> None:
    seeds = range(1, 9)
    source = random.Random(1)
    full = {seed: source.gauss(0, 1) for seed in seeds}
    without = {f"{n}": {seed: source.gauss(n, 1) for seed in seeds} for n in range(4)}
    raw = sorted(compare_arms(arm, full, "lower").p_t or 0.0 for arm in without.values())
    expected = np.maximum.accumulate(np.minimum(1, np.array(raw) * [4, 3, 2, 1]))
    corrected = sorted(part.claim.p_t or 0.0 for part in leave_one_out(full, without, "lower"))
    assert corrected == pytest.approx(expected)
    assert statistics.fmean(corrected) > statistics.fmean(raw)

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autoresearch.verdict import Judgement, KeepRule, RuleSettings
from autoresearch.verdict.belief import LOOK_BACK, Belief, FirstRuns
from autoresearch.verdict.noise import RESIDUALS_KEPT, Noise
from autoresearch.verdict.student_t import t_boundary, t_quantile, t_tail

SCRIPTS = Path(__file__).parents[1] / "scripts"
DEFAULT = RuleSettings()
BASELINE = {1: 1.00, 2: 1.02, 3: 0.97}


class Played(NamedTuple):
    rule: KeepRule
    story: str  # k keep, 1..6 trials before a discard, u undo, r re-test
    judgements: list[Judgement]
    standing: list[float]  # true gains of the keeps that stand


def play(
    number: int,
    effects: Callable[[random.Random, int], float],
    *,
    ideas: int,
    sigma: float,
    rho: float = 0.0,
    rule_settings: RuleSettings = DEFAULT,
    shown: Callable[[float], float] = lambda loss: loss,
    through_json: bool = False,
) -> Played:
    """A campaign of ``ideas`` ideas around a loss of 5; ``shown`` turns a loss into the printed metric."""
    source, luck = random.Random(number), random.Random(-number - 1)
    lucks: dict[int, float] = {}
    standing: list[float] = []

    def run(gain: float, seed: int) -> float:
        lucks.setdefault(seed, luck.gauss(0, 1))
        noise = math.sqrt(rho) * lucks[seed] + math.sqrt(1 - rho) * source.gauss(0, 1)
        return shown(5 - gain + sigma * noise)

    rule = KeepRule.start({seed: run(0, seed) for seed in (1, 2, 3)}, rule_settings)
    story, judgements = "", []

    def learn() -> str:
        done = ""
        while rule.retest_due:
            done += "r"
            if rule.add_incumbent_run(run(sum(standing), rule.retest_seed())):
                standing.pop()
                done += "u"
        return done

    story += learn()
    for idea in range(ideas):
        if through_json:
            rule = KeepRule.from_json(json.loads(json.dumps(rule.to_json(), allow_nan=False)))
        gain, decision = effects(source, idea), "run"
        runs: dict[int, float] = {}
        while decision == "run":
            seed = rule.next_seed(len(runs))
            runs[seed] = run(sum(standing) + gain, seed)
            judgements.append(rule.judge(runs))
            decision = judgements[-1].decision
        story += "k" if decision == "keep" else str(len(runs))
        if rule.close(runs, kept=decision == "keep"):
            standing.pop()
            story += "u"
        if decision == "keep":
            standing.append(gain)
        else:
            story += learn()
    return Played(rule, story, judgements, standing)


def mixed(source: random.Random, idea: int) -> float:
    return source.gauss(-0.3, 0.8)


# ---- known numbers


class Recorded(NamedTuple):
    boldness: str
    number: int
    sigma: float
    story: str
    level: float
    level_var: float
    noise: float
    df: int
    rho: float
    credited: float


RECORDED = [  # computed once with the prototype that the rule grew out of
    Recorded(
        "default", 0, 0.8, "21131k1k32112111r11k1kk11111211r1k1u1111k21",
        0.723267100792, 0.158967495638, 0.985762974716, 32, 0.000489370102, 3.974178993048,
    ),
    Recorded(
        "strict", 13, 0.8, "1165kk6k1611111k1k11411111ur11311111r111112",
        2.779832964871, 0.128503026232, 0.842290000931, 42, 0.021907449394, 2.393257779915,
    ),
    Recorded(
        "fast", 24, 0.2, "kkkk1uk111kk11k111k1111111111111111r111k1u1",
        -1.580114821262, 0.396843213413, 0.267883753542, 4, 0.170770824666, 6.523948311089,
    ),
]  # fmt: skip


@pytest.mark.parametrize("known", RECORDED, ids=lambda known: known.boldness)
def test_campaigns_without_strays_reproduce_the_recorded_numbers(known: Recorded) -> None:
    played = play(known.number, mixed, ideas=40, sigma=known.sigma, rule_settings=RuleSettings(boldness=known.boldness))
    rule = played.rule
    assert played.story == known.story
    assert rule.incumbent_level == pytest.approx(known.level)
    assert rule.incumbent_se == pytest.approx(known.noise * math.sqrt(known.level_var))
    assert (rule.sigma, rule.rho) == (pytest.approx(known.noise), pytest.approx(known.rho))
    assert rule.sigma_df == known.df
    assert rule.credited_gain == pytest.approx(known.credited)
    assert any(judgement.boldness == 1 for judgement in played.judgements) == (known.boldness == "fast")


@pytest.mark.parametrize("df", [1, 2, 3, 7, 30, 199])
def test_t_boundaries_agree_with_scipy(df: int) -> None:
    for z in (0.0, 0.3, 1.0, 2.0, 3.3):
        assert t_boundary(z, df) == pytest.approx(stats.t.isf(stats.norm.sf(z), df), rel=1e-9, abs=1e-12)
        assert t_tail(z, df) == pytest.approx(stats.t.sf(z, df), rel=1e-9)
        assert t_tail(-z, df) == pytest.approx(stats.t.cdf(z, df), rel=1e-9)
    assert t_quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


# ---- properties

campaigns: st.SearchStrategy[dict] = st.builds(
    dict,
    number=st.integers(0, 10**6),
    sigma=st.floats(0.05, 3),
    rho=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    rule_settings=st.builds(RuleSettings, boldness=st.sampled_from(["strict", "default", "fast"])),
)


@settings(max_examples=40, deadline=None)
@given(campaigns)
def test_a_rule_that_goes_through_json_before_each_idea_decides_the_same(campaign) -> None:
    plain = play(effects=mixed, ideas=25, **campaign)
    stored = play(effects=mixed, ideas=25, through_json=True, **campaign)
    assert (plain.story, plain.judgements) == (stored.story, stored.judgements)
    assert plain.rule == stored.rule


@settings(max_examples=40, deadline=None)
@given(campaigns)
def test_the_same_numbers_lead_to_the_same_state(campaign) -> None:
    first, second = (play(effects=mixed, ideas=25, **campaign) for _ in range(2))
    assert json.dumps(first.rule.to_json()) == json.dumps(second.rule.to_json())


@settings(max_examples=40, deadline=None)
@given(campaigns)
def test_a_metric_where_higher_is_better_is_the_mirror_image(campaign) -> None:
    lower = play(effects=mixed, ideas=25, **campaign)
    campaign["rule_settings"] = RuleSettings(boldness=campaign["rule_settings"].boldness, direction="higher")
    higher = play(effects=mixed, ideas=25, shown=lambda loss: -loss, **campaign)
    assert higher.story == lower.story
    assert higher.judgements == lower.judgements
    assert higher.rule.incumbent_level == -lower.rule.incumbent_level
    assert higher.rule.credited_gain == lower.rule.credited_gain


@settings(max_examples=40, deadline=None)
@given(campaigns, st.sampled_from([1e-9, 1e-3, 7.0, 1e9]), st.sampled_from([-20.0, 0.0, 3.0]))
def test_units_and_offset_of_the_metric_do_not_matter(campaign, scale: float, shift: float) -> None:
    plain = play(effects=mixed, ideas=25, **campaign)
    other = play(effects=mixed, ideas=25, shown=lambda loss: scale * (loss + shift), **campaign)
    assert other.story == plain.story
    assert [judgement.verdict for judgement in other.judgements] == [j.verdict for j in plain.judgements]
    assert other.rule.sigma == pytest.approx(scale * plain.rule.sigma, rel=1e-6)
    assert other.rule.credited_gain == pytest.approx(scale * plain.rule.credited_gain, rel=1e-5, abs=scale * 1e-6)


# ---- small simulations: rates that must hold


def test_sixty_empty_ideas_leave_about_one_keep_standing() -> None:
    keeps = [len(play(number, lambda *_: 0.0, ideas=60, sigma=1.0).standing) for number in range(80)]
    assert statistics.fmean(keeps) < 1.5
    assert sum(keep <= 3 for keep in keeps) >= 76


def test_empty_ideas_do_not_make_the_booked_gain_drift() -> None:
    gains = [play(number, lambda *_: 0.0, ideas=60, sigma=1.0).rule.credited_gain for number in range(80)]
    assert statistics.fmean(gains) < 0.7


@pytest.mark.parametrize(("rho", "least"), [(0.0, 9.8), (0.9, 11.5)])
def test_most_gains_of_two_sigma_are_kept_in_few_trials(rho: float, least: float) -> None:
    played = [play(number, lambda *_: 2.0, ideas=12, sigma=1.0, rho=rho) for number in range(60)]
    assert statistics.fmean(len(session.standing) for session in played) > least
    assert statistics.fmean(len(session.judgements) / 12 for session in played) < 2.0


def test_most_first_ideas_that_ruin_the_metric_are_dropped_after_one_trial() -> None:
    stories = [play(number, lambda *_: -2.0, ideas=1, sigma=1.0).story for number in range(100)]
    assert sum(story.lstrip("r") == "1" for story in stories) >= 90


# ---- seeds with tails: 20 s trainings on one H100, where seed 4 of the unchanged code ends far behind


def test_one_unlucky_baseline_seed_is_set_aside_after_one_more_run() -> None:
    rule = KeepRule.start({1: 0.925257, 2: 0.893927, 4: 1.244209}, DEFAULT)
    assert rule.retest_due
    rule.add_incumbent_run(0.916815)
    assert rule.stray_seeds == [4]
    assert rule.sigma_df == 2
    assert not rule.retest_due
    assert rule.incumbent_level == pytest.approx((0.925257 + 0.893927 + 0.916815) / 3)
    assert rule.sigma < 0.02
    assert 4 not in rule.seed_slots
    worse = rule.judge({1: 0.980040})
    assert (worse.decision, worse.verdict) == ("discard", "worse")
    better = {1: 0.889025, 2: 0.865120}
    while (judgement := rule.judge(better)).decision == "run":
        better[rule.next_seed(len(better))] = 0.859573
    assert judgement.decision == "keep"


def test_one_lucky_baseline_seed_does_not_block_a_true_gain() -> None:
    rule = KeepRule.start({1: 0.925, 2: 0.894, 3: 0.55}, DEFAULT)
    rule.add_incumbent_run(0.917)
    assert rule.stray_seeds == [3]
    runs: dict[int, float] = {}
    while not runs or rule.judge(runs).decision == "run":
        runs[rule.next_seed(len(runs))] = 0.80 + 0.01 * len(runs)
    assert rule.judge(runs).decision == "keep"


def test_three_close_baseline_seeds_ask_for_no_more_runs() -> None:
    assert not KeepRule.start(BASELINE, DEFAULT).retest_due


def test_one_stray_confirm_run_neither_decides_nor_inflates_sigma() -> None:
    rule = KeepRule.start({1: 1.00, 2: 1.02, 3: 0.97, 4: 1.01, 5: 0.99, 6: 1.00}, DEFAULT)
    runs = {1: 0.96, 2: 0.98, 3: 0.95, 4: 1.60}
    assert rule.judge(runs).gain > 0
    before = rule.sigma
    rule.close(runs, kept=False)
    assert rule.sigma < 1.5 * before


def test_an_idea_with_even_runs_does_not_make_strays_of_an_uneven_baseline() -> None:
    """Returns of the rl starter: half of the baseline's spread lies far off where most runs are a kept idea's."""
    noise = Noise()
    noise.add_repeats([-831.7, -391.3, -781.3, -565.3, -768.3])
    noise.add_repeats([-241.2, -296.1, -256.6, -213.1, -231.2, -262.5, -212.2, -283.9])
    assert noise.df == 11
    assert 100 < noise.sigma < 150


def test_a_stray_re_test_is_remembered_and_not_screened_at() -> None:
    rule = KeepRule.start({1: 1.00, 2: 1.02, 3: 0.97, 4: 1.01, 5: 0.99, 6: 1.00}, DEFAULT)
    rule.close({1: 1.05}, kept=False)
    level, seed = rule.incumbent_level, rule.retest_seed()
    rule.add_incumbent_run(2.0)
    assert rule.stray_seeds == [seed]
    assert seed not in rule.seed_slots
    assert abs(rule.incumbent_level - level) < rule.sigma


def test_a_stray_re_test_of_an_incumbent_with_one_run_is_not_paired_with() -> None:
    rule = KeepRule.start({1: 1.00, 2: 1.02, 3: 0.97, 4: 1.01, 5: 0.99, 6: 1.00}, DEFAULT)
    rule.close({1: 0.80}, kept=True)
    rule.add_incumbent_run(2.0)
    assert rule.incumbent_runs == {1: 0.80}


def test_runs_without_a_majority_are_never_set_aside() -> None:
    rule = KeepRule.start({1: 1.00, 2: 1.001, 3: 2.00, 4: 2.001}, DEFAULT)
    for _ in range(60):
        rule.close({1: 3.0, 2: 3.001}, kept=False)
    assert rule.sigma < 0.01
    assert rule.stray_seeds == []
    assert len(rule.incumbent_runs) == 4


def test_a_stray_of_a_kept_idea_leaves_the_booked_gain_alone() -> None:
    rule = KeepRule.start({1: 1.00, 2: 1.02, 3: 0.97, 4: 1.01, 5: 0.99, 6: 1.00}, DEFAULT)
    rule.close({1: 0.90, 2: 0.92, 3: 0.88, 4: 1.60}, kept=True)
    booked = rule.credited_gain
    assert booked > 0.05
    rule.close({1: 1.1}, kept=False)
    assert rule.stray_seeds == [4]
    assert rule.credited_gain == pytest.approx(booked, abs=0.02)


# ---- no noise


def test_a_baseline_without_any_spread_is_deterministic_and_one_trial_decides() -> None:
    rule = KeepRule.start({1: 0.9979, 2: 0.9979, 3: 0.9979}, DEFAULT)
    assert rule.deterministic
    assert not rule.retest_due
    better, same, worse = (rule.judge({1: value}) for value in (0.997899, 0.9979, 0.997901))
    assert (better.decision, better.verdict, better.z) == ("keep", "better", pytest.approx(1.0))
    assert (same.decision, same.verdict) == ("discard", "equivalent")
    assert (worse.decision, worse.verdict) == ("discard", "worse")
    assert "deterministic" in better.reason
    json.dumps(
        [judgement._asdict() if hasattr(judgement, "_asdict") else vars(judgement) for judgement in (better, same)],
        allow_nan=False,
    )


def test_a_deterministic_campaign_books_the_whole_gain() -> None:
    rule = KeepRule.start({1: 10.0, 2: 10.0}, RuleSettings(direction="higher"))
    rule.close({1: 12.0}, kept=True)
    assert (rule.incumbent_level, rule.credited_gain) == (12.0, 2.0)
    assert not rule.close({1: 11.0}, kept=False)
    assert rule.judge({1: 12.0}, simplification=True).decision == "keep"


def test_noise_that_shows_up_later_ends_determinism() -> None:
    rule = KeepRule.start({1: 1.0, 2: 1.0, 3: 1.0}, DEFAULT)
    rule.close({1: 1.1, 2: 1.3, 3: 1.2}, kept=False)
    assert not rule.deterministic
    assert rule.sigma > 0
    judgement = rule.judge({1: 0.99})
    assert judgement.decision in {"run", "discard"}
    assert math.isfinite(judgement.z)


def test_repeats_without_spread_later_leave_a_noisy_rule_working() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    for _ in range(20):
        rule.close({1: 1.05, 2: 1.05}, kept=False)
    assert 0 < rule.sigma < 0.03
    assert math.isfinite(rule.judge({1: 0.9}).z)


def test_nearly_equal_baseline_seeds_choose_the_preset_for_short_trainings() -> None:
    nearly = {1: 0.997900, 2: 0.997901, 3: 0.997900}
    assert KeepRule.start(nearly, DEFAULT).preset == "short"
    assert KeepRule.start(nearly, RuleSettings(boldness="strict")).preset == "strict"
    assert KeepRule.start({1: 0.85, 2: 0.86, 3: 0.85}, DEFAULT).preset == "default"


def test_the_bold_lane_opens_once_pairs_show_that_the_seed_decides() -> None:
    lanes = [
        play(3, mixed, ideas=40, sigma=1.0, rho=rho, rule_settings=RuleSettings(boldness=boldness))
        for rho, boldness in ((0.98, "default"), (0.0, "default"), (0.98, "strict"))
    ]
    assert [lane.judgements[-1].boldness for lane in lanes] == [1, 0, 0]


def test_an_idea_that_repeats_the_incumbent_exactly_is_equivalent_after_one_trial() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    judgement = rule.judge({3: 0.97})
    assert (judgement.decision, judgement.verdict) == ("discard", "equivalent")
    assert rule.judge({3: 0.97}, simplification=True).decision == "keep"


# ---- gaps in the data


def test_a_baseline_of_one_run_asks_for_another_before_it_judges() -> None:
    rule = KeepRule.start({7: 1.0}, DEFAULT)
    assert rule.sigma_df == 0
    assert not rule.deterministic
    assert rule.retest_due
    assert rule.retest_seed() != 7
    rule.add_incumbent_run(1.1)
    assert rule.sigma_df == 1
    assert rule.incumbent_level == pytest.approx(1.05)


def test_without_re_tests_a_baseline_of_one_run_still_leads_to_decisions() -> None:
    rule = KeepRule.start({1: 1.0}, RuleSettings(baseline_seeds=1, retest_every=0))
    assert not rule.retest_due
    assert rule.judge({1: 1.1}).decision == "discard"
    assert rule.judge({1: 0.9}).decision == "run"
    assert rule.judge({1: 0.9}, last=True).decision == "discard"
    assert rule.judge({1: 0.5, 2: 0.51, 4: 0.49, 5: 0.5}).decision == "keep"
    rule.close({1: 1.1}, kept=False)
    rule.close({1: 0.5, 2: 0.51}, kept=True)
    assert rule.sigma > 0


def test_zero_re_tests_means_never() -> None:
    rule = KeepRule.start(BASELINE, RuleSettings(retest_every=0))
    for _ in range(40):
        rule.close({1: 1.2}, kept=False)
    assert not rule.retest_due


def test_a_candidate_whose_other_seeds_crashed_is_decided_on_what_there_is() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    assert rule.judge({1: 0.95}).decision == "run"
    assert rule.judge({1: 0.95}, last=True).decision == "discard"
    assert rule.judge({1: 0.10}, last=True).decision == "keep"


def test_undecided_at_the_last_seed_is_a_discard() -> None:
    rule = KeepRule.start(BASELINE, RuleSettings(max_seeds=2))
    assert rule.judge({1: 0.97}).decision == "run"
    assert rule.judge({1: 0.97, 2: 1.0}).decision == "discard"


def test_seeds_never_run_out() -> None:
    rule = KeepRule.start(BASELINE, RuleSettings(max_seeds=4))
    seeds = [rule.next_seed(done) for done in range(12)]
    assert seeds[:3] == [1, 2, 3]
    assert len(set(seeds)) == 12


@pytest.mark.parametrize("runs", [{}, {1: math.nan}, {1: math.inf}])
def test_values_that_are_no_metric_are_refused(runs: Mapping[int, float]) -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    for use in (
        rule.judge,
        lambda runs: rule.close(runs, kept=False),
        lambda runs: KeepRule.start(runs, DEFAULT),
    ):
        with pytest.raises(ValueError, match="metric"):
            use(runs)


@pytest.mark.parametrize(
    "wrong",
    [
        {"boldness": "brave"},
        {"direction": "min"},
        {"max_seeds": 0},
        {"retest_every": -1},
        {"min_seeds": 0},
        {"min_seeds": 3, "max_seeds": 2},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="must be"):
        RuleSettings(**wrong)


# ---- min_seeds: a keep takes several good runs


def test_a_keep_waits_for_min_seeds_and_a_miss_does_not() -> None:
    bold = KeepRule.start(BASELINE, RuleSettings(boldness="fast", min_seeds=2))
    for rule in (KeepRule.start(BASELINE, RuleSettings(min_seeds=2)), bold):
        first = rule.judge({1: 0.80})
        assert (first.decision, first.verdict, first.min_trials) == ("run", "better", 2)
        assert first.reason.endswith("; a keep takes 2 trials (keep.min_seeds)")
        assert rule.judge({1: 0.80}, last=True).decision == "discard"
        assert (rule.judge({1: 1.10}).decision, rule.judge({1: 1.10}).verdict) == ("discard", "worse")
    usual, patient = (KeepRule.start(BASELINE, RuleSettings(min_seeds=least)) for least in (1, 2))
    both = {1: 0.80, 2: 0.83}
    assert replace(patient.judge(both), min_trials=1) == usual.judge(both)
    assert patient.judge(both).decision == "keep"


@pytest.mark.parametrize(("least", "lucky"), [(2, {1: 0.50}), (3, {1: 0.50, 2: 0.55})])
def test_fewer_lucky_runs_than_min_seeds_keep_nothing(least: int, lucky: dict[int, float]) -> None:
    baseline = {seed: 1 + 0.02 * (-1) ** seed for seed in range(1, 11)}
    runs = lucky | dict.fromkeys(range(len(lucky) + 1, least + 1), 1.03)
    assert KeepRule.start(baseline, DEFAULT).judge(runs).decision == "keep"
    judgement = KeepRule.start(baseline, RuleSettings(min_seeds=least)).judge(runs)
    assert judgement.decision == "discard"
    assert judgement.z < judgement.z_drop
    best = "the best trial counts" if least == 2 else "the best 2 trials count"
    assert f"; {best} as the next best: a keep takes {least} good ones (keep.min_seeds)" in judgement.reason


def test_luck_that_the_incumbent_had_at_the_same_seed_is_none_of_the_candidates() -> None:
    rule = KeepRule.start({1: 0.5, 2: 1.0, 3: 1.5}, RuleSettings(min_seeds=2))
    for _ in range(3):
        rule.noise.add_pairs({1: 0.51, 2: 1.0, 3: 1.49}, rule.incumbent_runs)
    assert rule.rho > 0.9
    assert rule.judge({1: 0.2, 2: 0.7}).decision == "keep", "the run at seed 1 is no luckier than that at seed 2"


@pytest.mark.parametrize("least", [2, 3])
def test_no_campaign_keeps_on_fewer_than_min_seeds(least: int) -> None:
    waits = 0
    for number in range(20):
        played = play(number, mixed, ideas=25, sigma=0.5, rule_settings=RuleSettings(min_seeds=least))
        kept = [judgement for judgement in played.judgements if judgement.decision == "keep"]
        assert all(judgement.n_trials >= least for judgement in kept)
        waits += sum(f"takes {least} trials" in judgement.reason for judgement in played.judgements)
    assert waits > 20


def test_a_rare_good_tail_rarely_passes_two_seeds() -> None:
    def keeps(least: int) -> int:
        kept = 0
        for number in range(100):
            source = random.Random(number)
            rule = KeepRule.start({seed: source.gauss(0, 1) for seed in range(1, 6)}, RuleSettings(min_seeds=least))
            runs = {rule.next_seed(0): source.gauss(-4, 0.5)}
            while (decision := rule.judge(runs).decision) == "run":
                runs[rule.next_seed(len(runs))] = source.gauss(0, 1)
            kept += decision == "keep"
        return kept

    assert keeps(1) > 80
    assert keeps(2) < 45
    assert keeps(3) < 25


def test_one_lucky_run_of_a_seemingly_deterministic_training_is_not_kept() -> None:
    rule = KeepRule.start({1: 0.0, 2: 0.0, 3: 0.0}, RuleSettings(direction="higher", min_seeds=2))
    assert rule.deterministic
    assert rule.judge({1: 1.0}).decision == "run"
    assert rule.judge({1: 1.0, 2: 0.0}).decision != "keep"
    assert rule.judge({1: 1.0, 2: 1.0}).decision == "keep"
    assert rule.judge({1: -1.0}).decision == "discard"


def test_a_simplification_waits_for_min_seeds_too() -> None:
    rule = KeepRule.start(BASELINE, RuleSettings(min_seeds=2))
    assert rule.judge({3: 0.97}, simplification=True).decision == "run"
    assert rule.judge({3: 0.97}).decision == "discard"
    assert rule.judge({3: 0.97, 2: 1.02}, simplification=True).decision == "keep"


def test_a_rule_that_was_stored_before_min_seeds_keeps_on_one_run() -> None:
    stored = KeepRule.start(BASELINE, DEFAULT).to_json()
    del stored["settings"]["min_seeds"]
    rule = KeepRule.from_json(stored)
    assert rule.settings.min_seeds == 1
    assert rule.judge({1: 0.5}).decision == "keep"


# ---- keeping, re-testing, undoing


def test_only_part_of_a_win_is_booked() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    runs = {1: 0.90, 2: 0.90}
    gain = rule.judge(runs).gain
    rule.close(runs, kept=True)
    assert 0.3 * gain < rule.credited_gain < gain


def test_a_keep_that_re_tests_contradict_is_undone_and_the_earlier_incumbent_is_back() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    level = rule.incumbent_level
    rule.close({1: 0.93, 2: 0.94}, kept=True)
    undone = [rule.add_incumbent_run(value) for value in (1.05, 1.06, 1.04, 1.05)]
    assert undone == [False, False, True, False]
    assert rule.standing_keeps == 0
    assert rule.incumbent_level == pytest.approx(level, abs=0.05)


def test_misses_that_look_ever_worse_undo_a_lucky_keep() -> None:
    rule = KeepRule.start(BASELINE, RuleSettings(retest_every=0))
    for value in (1.05, 1.06, 1.04, 1.05, 1.06, 1.05):
        rule.close({1: value}, kept=False)
    rule.close({1: 0.95}, kept=True)
    undone = [rule.close({1: 1.10}, kept=False) for _ in range(40)]
    assert undone.count(True) == 1


def test_miss_beside_another_incumbent_teaches_the_noise_and_nothing_of_this_one() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    before = rule.to_json()
    rule.close_elsewhere({1: 1.4, 2: 1.5})
    after = rule.to_json()
    assert after["ideas"] == 1
    assert len(after["noise"]["residuals"]) == len(before["noise"]["residuals"]) + 1
    for state in (before, after):
        del state["noise"]["residuals"], state["noise"]["sigma"], state["noise"]["df"], state["ideas"]
    assert after == before


def test_eight_misses_in_a_row_make_a_re_test_due_and_a_re_test_resets_the_count() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    due = []
    for _ in range(8):
        rule.close({1: 1.1}, kept=False)
        due.append(rule.retest_due)
    assert due == [False] * 7 + [True]
    seed = rule.retest_seed()
    rule.add_incumbent_run(1.0)
    assert not rule.retest_due
    assert rule.next_seed(0) == seed


def test_a_new_incumbent_is_compared_at_the_seeds_it_has_run() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    rule.close({1: 0.80, 2: 0.81}, kept=True)
    assert [rule.next_seed(0), rule.next_seed(1)] == [2, 1]
    assert rule.incumbent_runs == {1: 0.80, 2: 0.81}


def test_a_sigma_from_two_runs_asks_for_three_times_the_usual_boundary_at_most() -> None:
    rule = KeepRule.start({1: 1.0, 2: 1.02}, DEFAULT)
    assert rule.judge({1: 0.9}).z_needed == pytest.approx(6.0)


# ---- simplifications and words


def test_a_simplification_may_be_a_little_worse_and_an_ordinary_idea_may_not() -> None:
    rule = KeepRule.start({seed: 1 + 0.02 * (-1) ** seed for seed in range(1, 11)}, DEFAULT)
    runs = {seed: 1.004 + 0.02 * (-1) ** seed for seed in range(1, 7)}
    assert rule.judge(runs).decision == "discard"
    simpler = rule.judge(runs, simplification=True)
    assert (simpler.decision, simpler.verdict) == ("keep", "equivalent")
    assert simpler.gain < 0


def test_simplifications_together_may_cost_about_one_sigma() -> None:
    rule = KeepRule.start({seed: 1 + 0.02 * (-1) ** seed for seed in range(1, 11)}, DEFAULT)
    start, kept = rule.incumbent_level, 0
    for _ in range(60):
        level = rule.incumbent_level + 0.5 * rule.sigma
        runs = {rule.next_seed(n): level + 0.02 * (-1) ** n for n in range(6)}
        keep = rule.judge(runs, simplification=True).decision == "keep"
        rule.close(runs, kept=keep, simplification=True)
        kept += keep
    assert kept >= 1
    assert rule.incumbent_level - start <= 1.3 * rule.sigma
    assert rule.booked_loss <= 1.3 * rule.sigma


def test_a_kept_simplification_is_never_undone() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    rule.close({1: 1.0, 2: 1.02}, kept=True, simplification=True)
    assert not any(rule.add_incumbent_run(1.2) for _ in range(5))


def test_the_words_follow_the_evidence() -> None:
    rule = KeepRule.start({seed: 1 + 0.02 * (-1) ** seed for seed in range(1, 11)}, DEFAULT)

    def word(level: float, trials: int) -> str:
        return rule.judge({seed: level + 0.02 * (-1) ** seed for seed in range(1, trials + 1)}).verdict

    assert word(0.9, 1) == word(0.98, 6) == "better"
    assert word(1.001, 6) == "equivalent"
    assert word(1.001, 1) == "inconclusive"
    assert word(1.1, 1) == word(1.02, 6) == "worse"


def test_the_interval_and_the_sentence_hold_the_numbers() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    judgement = rule.judge({1: 0.9})
    half_width = stats.t.ppf(0.975, rule.sigma_df) * judgement.se
    assert judgement.gain_low == pytest.approx(judgement.gain - half_width)
    assert judgement.gain_high == pytest.approx(judgement.gain + half_width)
    assert f"{judgement.gain:+.4g}" in judgement.reason
    assert f"{judgement.z_needed:.2f} keeps" in judgement.reason
    assert judgement.reason.startswith(judgement.verdict)


# ---- parts


def test_sigma_pools_repeats_as_an_analysis_of_variance_does() -> None:
    groups = [[1.0, 1.2, 0.9], [2.0, 2.3], [0.5, 0.4, 0.7, 0.6]]
    noise = Noise()
    for group in groups:
        noise.add_repeats(group)
    squares = sum(sum((x - statistics.fmean(group)) ** 2 for x in group) for group in groups)
    assert noise.df == 6
    assert noise.sigma == pytest.approx(math.sqrt(squares / 6))


def test_the_pool_of_residuals_stays_bounded() -> None:
    noise = Noise()
    for step in range(500):
        noise.add_residual(1.0 + step % 7)
    assert len(noise.residuals) == RESIDUALS_KEPT


@pytest.mark.parametrize("rho", [0.0, 0.9, 0.98])
def test_rho_is_learned_from_pairs(rho: float) -> None:
    source, noise = random.Random(5), Noise()
    noise.add_repeats([source.gauss(0, 1) for _ in range(40)])
    for _ in range(150):
        ours: dict[int, float] = {}
        theirs: dict[int, float] = {}
        for seed in range(3):
            luck = source.gauss(0, 1)
            for arm in (ours, theirs):
                arm[seed] = math.sqrt(rho) * luck + math.sqrt(1 - rho) * source.gauss(0, 1)
        noise.add_pairs(ours, theirs)
    assert noise.rho == pytest.approx(rho, abs=0.1)


def test_first_runs_forget() -> None:
    first_runs = FirstRuns.expecting(1.0)
    for effect in [100.0] * 50 + [1.0] * 200:
        first_runs.add_effect(effect)
    assert first_runs.typical_effect < 1.5
    assert first_runs.effects == pytest.approx(LOOK_BACK)


def test_a_surprise_beyond_the_limit_moves_the_belief_no_farther() -> None:
    near, far = (Belief(level=1.0, level_var=0.5) for _ in range(2))
    near.see_incumbent(1.0 + 3 * math.sqrt(1.5), limit=3.0)
    assert far.see_incumbent(100.0, limit=3.0) > 50
    assert far.level == pytest.approx(near.level)


# ---- speed


def test_a_decision_takes_less_than_a_millisecond() -> None:
    rule = KeepRule.start(BASELINE, DEFAULT)
    runs = {1: 0.96, 2: 0.99, 3: 0.95}
    best = math.inf
    for _ in range(200):
        started = time.perf_counter()
        rule.judge(runs)
        rule.close(runs, kept=False)
        best = min(best, time.perf_counter() - started)
    assert best < 0.001


def test_judging_imports_neither_scipy_nor_numpy() -> None:
    code = (
        "import sys; from autoresearch.verdict import KeepRule, RuleSettings;"
        "KeepRule.start({1: 1.0, 2: 1.1}, RuleSettings()).judge({1: 0.9});"
        "print(sorted({'scipy', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

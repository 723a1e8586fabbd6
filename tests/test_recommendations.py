"""Recommendations: each follows from the ledger, says its numbers, and its command does what it says."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.ledger_builder import LedgerBuilder, make_repository
from tests.loop_bench import CONFIG, Loop, make_measured_loop

from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import Experiment, Ledger, Status
from autoresearch.report.recommendations import FAMILIES, Recommendation, recommend
from autoresearch.report.summary import read_summaries, summarise
from autoresearch.report.text import render

COMMITS = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(20)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "state", create=True) as ledger:
        yield ledger


@pytest.fixture
def builder(ledger: Ledger) -> LedgerBuilder:
    return LedgerBuilder(ledger, COMMITS)


def recommended(builder: LedgerBuilder) -> dict[str, list[Recommendation]]:
    found: dict[str, list[Recommendation]] = {}
    for each in recommend(summarise(builder.ledger, builder.campaign)):
        found.setdefault(each.kind, []).append(each)
    return found


def value(experiment: Experiment, name: str) -> float:
    return float(experiment.judgement[name])


def claim(builder: LedgerBuilder, best: Experiment, **said: object) -> None:
    baseline = builder.ledger.baseline("apr5", builder.campaign.epoch)
    assert baseline is not None
    builder.campaign.claim = {
        "a": "baseline", "b": f"experiment {best.number}", "arms": [baseline.commit, best.commit],
        "seeds": list(range(1001, 1007)), "word": "confirmed", "reason": "confirmed: so", "gain": 0.05,
        "gain_low": 0.04, "gain_high": 0.06, **said,
    }  # fmt: skip
    builder.ledger.update_campaign(builder.campaign, "claim")


# ---- nothing is known


def test_nothing_is_recommended_where_nothing_is_known(builder: LedgerBuilder) -> None:
    assert recommended(builder) == {}
    builder.crash("baseline", cause="oom_gpu")
    assert list(recommended(builder)) == ["baseline"]
    builder.baseline([1.0, 1.002, 0.998])
    assert recommended(builder) == {}
    builder.open("still running")
    assert recommended(builder) == {}
    assert "\nNext\n" not in render(summarise(builder.ledger, builder.campaign))


# ---- claims


def test_gain_that_was_never_compared_on_fresh_seeds_is_to_be_claimed(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.002, 0.998])
    best = builder.idea("half the batch", [0.9, 0.9], status=Status.KEEP)
    assert builder.rule is not None
    (found,) = recommended(builder)["claim"]
    assert f"The gain of {builder.rule.credited_gain:+.3g} rests on the trials that chose the winner" in found.text
    assert f"experiment {best.number} has not been compared" in found.text
    assert found.command == "python scripts/summarize.py --claim 6"
    claim(builder, best)
    assert "claim" not in recommended(builder)


def test_claim_of_an_earlier_best_does_not_count_for_todays(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.002, 0.998])
    claim(builder, builder.idea("half the batch", [0.9, 0.9], status=Status.KEEP))
    builder.idea("twice the width", [0.8, 0.8], status=Status.KEEP)
    (found,) = recommended(builder)["claim"]
    assert "experiment 2 has not been compared on fresh seeds; the last one was about experiment 1." in found.text


@pytest.mark.parametrize(
    ("gain", "half", "command"),
    [
        (0.01, 0.015, "python scripts/summarize.py --claim 14"),  # 6 x 1.5^2, rounded up
        (0.001, 0.015, ""),  # 1350 seeds are not worth it
        (-0.01, 0.015, "python scripts/compare.py baseline best --seeds 6 --ablate"),
    ],
)
def test_inconclusive_claim_says_how_many_seeds_would_show_it(
    builder: LedgerBuilder, gain: float, half: float, command: str
) -> None:
    builder.baseline([1.0, 1.002, 0.998])
    best = builder.idea("half the batch", [0.9, 0.9], status=Status.KEEP)
    claim(builder, best, word="inconclusive", gain=gain, gain_low=gain - half, gain_high=gain + half)
    assert [each.command for each in recommended(builder).get("claim", [])] == [command] * bool(command)


def test_deterministic_training_needs_no_claim(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.0, 1.0])
    builder.idea("half the batch", [0.9], status=Status.KEEP)
    assert "claim" not in recommended(builder)


# ---- re-tests


def test_due_retest_is_named_until_it_runs(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.002, 0.998])
    for at in range(8):
        builder.idea(f"miss {at}", [1.1], status=Status.DISCARD)
    assert builder.rule is not None
    assert builder.rule.retest_due
    (found,) = recommended(builder)["retest"]
    assert "re-test of experiment 0 is due: 8 misses in a row" in found.text
    assert f"is known only to ± {1.96 * builder.rule.incumbent_se:.2g} (95 %). " in found.text
    assert found.command == ""
    builder.retest(1.0)
    assert "retest" not in recommended(builder)


# ---- near misses


def test_near_miss_on_todays_best_is_to_be_looked_at_closer(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    near = builder.idea("warm down", [0.992], status=Status.DISCARD)
    builder.idea("hopeless", [1.1], status=Status.DISCARD)
    builder.ledger._update("experiment", {"parent_sha": COMMITS[0]}, "number = ?", (near.number,))
    (found,) = recommended(builder)["more_seeds"]
    wanted = -(-value(near, "z_needed") // value(near, "z"))
    half = value(near, "gain_high") - value(near, "gain")
    assert f"Experiment {near.number} (warm down) is undecided" in found.text
    assert f"gain {value(near, 'gain'):+.3g} ± {half:.2g} (95 %), z {value(near, 'z'):.1f} after 1 trial." in found.text
    assert f"about {wanted:.0f} decide." in found.text
    assert found.command == f"python scripts/compare.py best {near.number} --seeds {max(5, int(wanted))}"


def test_near_miss_of_the_past_is_to_be_tried_on_todays_best(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    near = builder.idea("warm down", [0.985], status=Status.DISCARD)
    builder.idea("half the batch", [0.8, 0.8], status=Status.KEEP)
    (found,) = recommended(builder)["more_seeds"]
    assert f"beside experiment {near.incumbent}, not beside today's best" in found.text
    assert found.command.startswith(f"git diff {near.parent[:12]} {near.commit[:12]} | git apply && python scripts/run")


def test_near_miss_is_tried_at_no_fewer_seeds_than_a_keep_takes(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    builder.idea("warm down", [0.985], status=Status.DISCARD)
    builder.idea("half the batch", [0.8, 0.8], status=Status.KEEP)
    (found,) = recommended(builder)["more_seeds"]
    assert int(found.command.split()[-1]) < 5
    builder.campaign.config["keep"]["min_seeds"] = 5
    builder.ledger.update_campaign(builder.campaign, "config")
    (found,) = recommended(builder)["more_seeds"]
    assert "about 5 decide" in found.text
    assert found.command.endswith("--seeds 5")
    del builder.campaign.config["keep"]["min_seeds"]  # as before there was such a setting
    builder.ledger.update_campaign(builder.campaign, "config")
    (found,) = recommended(builder)["more_seeds"]
    assert int(found.command.split()[-1]) < 5


def test_near_miss_that_would_take_hundreds_of_seeds_is_left_alone(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    near = builder.idea("hardly anything", [0.99995], status=Status.DISCARD)
    assert value(near, "z") > 0
    assert value(near, "z_needed") / value(near, "z") > 20
    assert "more_seeds" not in recommended(builder)


def test_two_near_misses_of_different_families_are_to_be_combined(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    best, same, other = (
        builder.idea(name, [level], family=family, status=Status.DISCARD)
        for name, level, family in (("a", 0.990, "optimizer"), ("b", 0.991, "optimizer"), ("c", 0.994, "data"))
    )
    (found,) = recommended(builder)["combine"]
    assert f"Experiment {best.number} (a) and experiment {other.number} (c) missed alone" in found.text
    assert f"together they gain {value(best, 'gain') + value(other, 'gain'):+.3g}" in found.text
    assert f"(experiment {same.number}" not in found.text
    assert found.command.count("git apply") == 2


# ---- constraints, ablations, families


def test_idea_refused_by_a_constraint_is_to_be_made_to_fit(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    wide = builder.idea("twice as wide", [0.9, 0.9], status=Status.DISCARD)
    wide.judgement["constraint"] = "breaks the constraint peak_vram_mb <= 100: peak_vram_mb is 120, the limit 100"
    builder.ledger.update_experiment(wide, "judgement")
    (found,) = recommended(builder)["constraint"]
    assert "(twice as wide) looked better" in found.text
    assert "breaks the constraint peak_vram_mb <= 100: peak_vram_mb is 120, the limit 100." in found.text


def test_keeps_that_stand_on_one_another_are_to_be_ablated(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    first = builder.idea("half the batch", [0.9, 0.9], status=Status.KEEP)
    assert "ablate" not in recommended(builder), "one keep is the whole gain"
    second = builder.idea("warm down", [0.8, 0.8], status=Status.KEEP)
    (found,) = recommended(builder)["ablate"]
    assert f"gains of {value(first, 'gain') + value(second, 'gain'):+.3g} in all" in found.text


@pytest.mark.parametrize(
    "families",
    [
        ["optimizer", "Learning Rate", "data", "model", "batch size", "dtype"],
        ["optimizer"] * 5,
    ],
)
def test_families_that_nobody_tried_are_named(builder: LedgerBuilder, families: list[str]) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    for at, family in enumerate(families):
        assert "family" not in recommended(builder) or at >= 5
        builder.idea(f"idea {at}", [1.2], family=family, status=Status.DISCARD)
    (found,) = recommended(builder)["family"]
    named = found.text.partition(": ")[2].partition(".")[0].split(", ")
    tried = {family[0] for family in FAMILIES for each in families if each.lower() in family}
    assert named == [family[0] for family in FAMILIES if family[0] not in tried]
    assert f"Not tried in {len(families)} ideas" in found.text
    assert found.command.endswith(f"--family {named[0]}")


def test_ideas_without_a_family_tell_nothing_of_families(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    for at in range(10):
        builder.idea(f"idea {at}", [1.2], status=Status.DISCARD)
    assert "family" not in recommended(builder)


# ---- the commands


def test_commands_of_patches_do_what_they_say(tmp_path: Path) -> None:
    """The change of an idea goes into the work tree of today's best, and out again."""
    project = tmp_path / "project"
    commits = make_repository(project)
    with Ledger(project / ".git" / "autoresearch", create=True) as ledger:
        builder = LedgerBuilder(ledger, commits, project=project)
        builder.baseline([1.0, 1.01, 0.99])
        near = builder.idea("warm down", [0.99], status=Status.DISCARD)
        builder.idea("half the batch", [0.8, 0.8], status=Status.KEEP)
        (found,) = [each for each in recommend(summarise(ledger, builder.campaign)) if each.kind == "more_seeds"]
    subprocess.run(["git", "switch", "-q", "--detach", near.parent], cwd=project, check=True)
    patch = found.command.partition(" && ")[0]
    subprocess.run(patch, cwd=project, check=True, shell=True)
    assert "1.0 - 1 / 100" in (project / "train.py").read_text()
    subprocess.run(f"{patch} --reverse", cwd=project, check=True, shell=True)
    assert "1.0 - 0 / 100" in (project / "train.py").read_text()


NOISY = """\
import os, random
LR = 4
seed = int(os.environ["AUTORESEARCH_SEED"])
gain = 0.001 * (LR != 4)
print("val_bpb:", round(1 - gain + 0.001 * random.Random(seed * 1000 + LR).gauss(0, 1), 6))
"""


@pytest.fixture
def noisy(tmp_path: Path, run_script: RunScript) -> Loop:
    """A campaign on training in which every idea gains as much as one run varies by."""
    config = CONFIG.replace("baseline_seeds: 2", "baseline_seeds: 3")
    loop = make_measured_loop(tmp_path / "toy", run_script, config=config, files={"train.py": NOISY})
    return loop


@pytest.mark.slow
def test_recommended_look_at_a_near_miss_runs_as_it_is_typed(noisy: Loop) -> None:
    for lr in range(5, 25):
        noisy.experiment(f"lr {lr}", LR=lr)
        steps = [each.command for each in recommend(read_summaries(noisy.folder)[0]) if each.kind == "more_seeds"]
        if any("compare.py best" in command for command in steps):
            break
    words = steps[0].split()
    assert words[:3] == ["python", "scripts/compare.py", "best"]
    answer = noisy.call("compare", *words[2:])
    assert answer["b"] == f"experiment {words[3]}"
    assert len(answer["seeds"]) == int(words[-1])
    again = noisy.call("compare", *words[2:-1], "1", "--exploratory")
    with open_ledger(noisy.folder) as (_, ledger):
        campaign = ledger.campaign("apr5")
        assert campaign is not None
        (past,) = campaign.claim["past"]
    assert (past["b"], past["seeds"], past["word"]) == (answer["b"], answer["seeds"], answer["claim"]["word"])
    assert campaign.claim["seeds"] == again["seeds"]

"""Claims: two commits on fresh seeds, through compare.py and summarize.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import TAG, Loop
from tests.noise_bench import CONFIG, comment, comment_with_luck, make_noisy_loop, next_seeds, rule
from tests.trial_bench import eventually

from autoresearch.campaign.compare import Comparison
from autoresearch.ledger import DECIDING, Purpose, Trial
from autoresearch.report.claim_text import render_comparison
from autoresearch.verdict.claim import compare_arms

CLAIMS = (Purpose.CLAIM, Purpose.TEST)


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """A measured baseline; A, B and C are worth 8 standard deviations of a run each."""
    return make_noisy_loop(tmp_path / "project", run_script, worth={"A": 8.0, "B": 8.0, "C": 8.0})


def of_purpose(loop: Loop, *purposes: Purpose) -> list[Trial]:
    return [trial for trial in loop.trials() if trial.purpose in purposes]


def comment_commit(loop: Loop) -> str:
    """A commit beside the campaign's branch that changes a comment."""
    comment(loop, "a commit of no effect")
    blob = loop.git("hash-object", "-w", "train.py")
    loop.git("update-index", "--cacheinfo", f"100644,{blob},train.py")
    tree = loop.git("write-tree")
    loop.git("reset", "-q", "--hard")
    return loop.git("commit-tree", tree, "-p", "HEAD", "-m", "a comment")


def test_real_gain_is_confirmed_on_seeds_that_the_loop_never_used(loop: Loop) -> None:
    assert loop.experiment("A", A=1) == "keep"
    used = {trial.seed for trial in loop.trials()}
    found = loop.call("compare", "0", "1", "--seeds", 5)
    assert found["claim"]["word"] == "confirmed"
    assert found["claim"]["gain"] == pytest.approx(0.08, abs=0.03)
    assert (found["a"], found["b"]) == ("experiment 0", "experiment 1")
    assert len(found["seeds"]) == 5
    assert not used & set(found["seeds"])
    ran = Counter((trial.number, trial.seed) for trial in of_purpose(loop, Purpose.CLAIM))
    assert ran == Counter((number, seed) for number in (0, 1) for seed in found["seeds"])


def test_change_of_no_effect_is_inconclusive(loop: Loop) -> None:
    commit = comment_commit(loop)
    found = loop.call("compare", "baseline", commit[:9], "--seeds", 5)
    assert found["claim"]["word"] == "inconclusive"
    assert found["b"] == commit[:7]
    assert {trial.commit for trial in of_purpose(loop, Purpose.CLAIM)} == {loop.tip(), commit}


def test_fewer_than_five_seeds_claim_nothing(loop: Loop) -> None:
    assert loop.experiment("A", A=4) == "keep"
    trials = len(loop.trials())
    refused = loop.call("compare", "baseline", "best", "--seeds", 4, expect=2)
    assert (refused["code"], "--exploratory" in refused["hint"]) == ("too_few_seeds", True)
    many = loop.call("compare", "baseline", "best", "--seeds", 1000, expect=2)
    assert (many["code"], many["hint"].endswith("--seeds 100")) == ("too_many_seeds", True)
    assert "fewer" not in many["message"]
    assert len(loop.trials()) == trials
    found = loop.call("compare", "baseline", "best", "--seeds", 4, "--exploratory")["claim"]
    assert (found["word"], found["gain"] > 0.2) == ("inconclusive", True)
    found = loop.call("compare", "baseline", "best", "--seeds", 5, "--exploratory")["claim"]
    assert (found["word"], found["p_t"] < 0.001) == ("inconclusive", True)


def test_commit_against_itself_and_unknown_names_are_refused(loop: Loop) -> None:
    assert loop.call("compare", "baseline", loop.tip(), expect=2)["code"] == "same_commit"
    assert loop.call("compare", "baseline", "best", expect=2)["code"] == "same_commit"
    assert loop.call("compare", "baseline", "7", expect=2)["code"] == "unknown_commit"


def test_comparison_ends_as_soon_as_too_few_seeds_can_be_completed(loop: Loop) -> None:
    loop.write({"train.py": f"raise OSError('no data')\n{loop.text()}"})
    loop.submit("crashes")
    loop.log("--status", "crash")
    refused = loop.call("compare", "baseline", "1", "--seeds", 6, expect=2)
    assert refused["code"] == "too_few_pairs"
    assert "experiment 1 at seed " in refused["message"]
    assert "no data" in refused["message"]
    assert len(of_purpose(loop, *CLAIMS)) == 3, "of six seeds one may fail"
    assert loop.experiment("A", A=1) == "keep", "the loop goes on"


def test_comparison_goes_on_when_who_watched_has_gone(loop: Loop) -> None:
    assert loop.experiment("A", A=1) == "keep"
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), "baseline", "best", "--seeds", "5"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=loop.folder, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as compare:
        assert compare.stdout is not None
        assert compare.stderr is not None
        compare.stderr.close()
        assert b"confirmed" in compare.stdout.read()
    assert compare.returncode == 0


def test_claim_about_all_campaigns_is_refused(loop: Loop) -> None:
    refused = loop.call("summarize", "--all-tags", "--claim", 5, expect=2)
    assert refused["message"] == "--claim is about one campaign, and --all-tags means all."
    assert of_purpose(loop, *CLAIMS) == []


def test_open_experiment_is_decided_before_a_claim(loop: Loop) -> None:
    loop.submit("A", A=1)
    assert loop.call("compare", "baseline", "1", expect=4)["code"] == "open_experiment"


def test_claim_changes_nothing_that_the_loop_goes_by(loop: Loop) -> None:
    assert loop.experiment("A", A=1) == "keep"
    state, before, table = loop.look(), rule(loop).to_json(), loop.results.read_text()
    record = loop.call("summarize")["record"]
    found = loop.call("compare", "baseline", "best", "--seeds", 5)
    assert min(found["runs_b"].values()) < record["metric"], "a claim's run would be the record"
    after = loop.look()
    assert rule(loop).to_json() == before
    assert loop.results.read_text() == table
    for name in ("baseline", "incumbent"):
        assert after[name]["seeds"] == state[name]["seeds"]
        assert after[name]["metric"] == state[name]["metric"]
    summary = loop.call("summarize")
    assert summary["record"] == record
    assert summary["validation_looks"] == len(loop.trials())
    assert [each["trials"] for each in summary["kept"]] == [len(of_purpose(loop, *DECIDING)) - 3]


def start(loop: Loop, *arguments: str) -> subprocess.Popen[bytes]:
    """Begin to compare baseline and best at five seeds."""
    command = [sys.executable, str(ROOT / "scripts" / "compare.py"), "baseline", "best", "--seeds", "5", *arguments]
    return subprocess.Popen(command, cwd=loop.folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("flags", "arms"), [([], 2), (["--ablate"], 3)])
def test_claim_that_was_killed_goes_on_with_the_same_seeds(loop: Loop, flags: list[str], arms: int) -> None:
    assert loop.experiment("A", A=1) == "keep"
    compare = start(loop, *flags)
    try:
        eventually(lambda: len(begun := of_purpose(loop, Purpose.CLAIM)) >= 4 and begun[-1].handle)
    finally:
        os.kill(compare.pid, signal.SIGKILL)
        compare.communicate()
    begun = [(trial.commit, trial.seed) for trial in of_purpose(loop, Purpose.CLAIM)]
    assert 4 <= len(begun) < 5 * arms
    eventually(lambda: time.time() > int(loop.git("log", "-1", "--format=%ct", begun[-1][0])) + 1)
    found = loop.call("compare", "baseline", "best", "--seeds", 5, *flags)
    ended = [(trial.commit, trial.seed) for trial in of_purpose(loop, Purpose.CLAIM)]
    assert ended[: len(begun)] == begun
    assert len(ended) == len(set(ended)) == 5 * arms
    assert found["claim"]["word"] == "confirmed"
    assert {seed for _, seed in begun} <= set(found["seeds"])


def test_retest_that_ends_during_a_claim_counts(tmp_path: Path, run_script: RunScript) -> None:
    config = f"{CONFIG}keep: {{retest_every: 1}}\n"
    loop = make_noisy_loop(tmp_path / "project", run_script, worth={"A": 8.0}, config=config)
    assert loop.experiment("A", A=1) == "keep"
    loop.submit("worse", A=-1)
    with loop.holding():
        assert loop.log()["retest_started"]
        compare = start(loop)
        eventually(lambda: (campaign := loop.campaign(TAG)) and campaign.claim)
    compare.communicate()
    assert compare.returncode == 0
    assert [trial.seed for trial in of_purpose(loop, Purpose.RETEST)] == [rule(loop).fresh_seed - 1]
    assert not rule(loop).retest_due


def test_a_second_claim_takes_new_seeds_and_the_test_set_is_seen_once(tmp_path: Path, run_script: RunScript) -> None:
    looks = tmp_path / "looks"
    config = f"{CONFIG}test_command: echo look >> {looks} && echo 'val_bpb 0.75' | sed 's/bpb/bpb:/'\n"
    loop = make_noisy_loop(tmp_path / "project", run_script, worth={"A": 8.0}, config=config)
    assert loop.experiment("A", A=1) == "keep"
    assert loop.call("compare", "baseline", "best", "--seeds", 1, "--exploratory")["test"] == {}
    assert not looks.exists()
    first = loop.call("compare", "baseline", "best", "--seeds", 5)
    again = loop.call("compare", "baseline", "best", "--seeds", 5)
    assert first["test"] == again["test"] == {"baseline": 0.75, "experiment 1": 0.75}
    assert not set(first["seeds"]) & set(again["seeds"])
    assert len(looks.read_text().splitlines()) == len(of_purpose(loop, Purpose.TEST)) == 2
    assert loop.call("summarize")["validation_looks"] == len(loop.trials()) - 2


def test_ablation_tells_the_empty_keep_from_those_that_carry_the_gain(loop: Loop) -> None:
    assert loop.experiment("A", A=1) == "keep"
    comment_with_luck(loop, -9, -2.2, next_seeds(loop, 2))
    loop.submit("lucky comment")
    assert loop.log()["experiment"]["status"] == "keep"
    assert loop.experiment("C", C=1) == "keep"
    found = loop.call("compare", "baseline", "best", "--seeds", 7, "--ablate")
    assert found["claim"]["word"] == "confirmed"
    assert found["not_separable"] == []
    parts = {each["name"]: each["claim"] for each in found["contributions"]}
    assert {name: claim["word"] for name, claim in parts.items()} == {
        "experiment 1 (A)": "confirmed",
        "experiment 2 (lucky comment)": "inconclusive",
        "experiment 3 (C)": "confirmed",
    }
    assert found["contributions"][0]["name"] == "experiment 2 (lucky comment)", "the weakest comes first"
    assert loop.git("status", "--porcelain") == ""


def test_change_that_a_later_one_is_built_on_is_not_separable(loop: Loop) -> None:
    assert loop.experiment("A", A=1) == "keep"
    assert loop.experiment("more of A", A=2) == "keep"
    found = loop.call("compare", "baseline", "best", "--seeds", 5, "--ablate")
    assert found["not_separable"] == ["experiment 1 (A)"]
    assert [each["name"] for each in found["contributions"]] == ["experiment 2 (more of A)"]


def test_summary_makes_the_claim_itself(loop: Loop) -> None:
    assert loop.experiment("A", A=1) == "keep"
    assert loop.call("summarize")["claim"] is None
    assert loop.call("summarize", "--claim", 4, expect=2)["code"] == "too_few_seeds"
    claim = loop.call("summarize", "--claim", 5)["claim"]
    assert (claim["word"], claim["a"], claim["b"]) == ("confirmed", "baseline", "experiment 1")
    campaign = loop.campaign(TAG)
    assert campaign is not None and campaign.claim["word"] == "confirmed"
    assert "confirmed" in loop.run("summarize", cwd=loop.folder).stdout


def test_where_higher_is_better_a_gain_goes_up(tmp_path: Path, run_script: RunScript) -> None:
    config = CONFIG.replace("lower", "higher")
    loop = make_noisy_loop(tmp_path / "project", run_script, worth={"A": 8.0}, sign=-1, config=config)
    assert loop.experiment("A", A=1) == "keep"
    found = loop.call("compare", "baseline", "best", "--seeds", 5)
    assert found["claim"]["mean_b"] > found["claim"]["mean_a"]
    assert (found["claim"]["word"], found["claim"]["gain"] > 0) == ("confirmed", True)
    assert loop.call("compare", "best", "baseline", "--seeds", 5)["claim"]["word"] == "inconclusive"


def test_a_small_p_is_no_zero_in_the_text() -> None:
    before, after = dict.fromkeys(range(5), 1.0), {seed: 0.5 + seed / 1000 for seed in range(5)}
    claim = compare_arms(before, after, "lower")
    assert claim.p_t is not None
    assert 0 < claim.p_t < 1e-6
    found = Comparison(
        a="baseline", b="experiment 1", metric="val_bpb", direction="lower", seeds=tuple(before), runs_a=before,
        runs_b=after, failed=(), claim=claim, test={},
    )  # fmt: skip
    assert f"paired t p = {claim.p_t:.3g}, Wilcoxon p = {claim.p_wilcoxon:.3g} (one-sided)" in render_comparison(found)

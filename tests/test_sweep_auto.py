"""The sweep that chooses by itself: what it proposes, and what it does with real runs of the toy project."""

from __future__ import annotations

import ast
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import ROOT, RunScript
from tests.loop_bench import Loop, make_loop
from tests.sweep_bench import assert_clean, start, statuses, sweep
from tests.trial_bench import eventually

from autoresearch.campaign.proposals import (
    Attempt,
    Number,
    Outcome,
    Proposal,
    Tunable,
    is_left_alone,
    key_of,
    ladder,
    propose,
    tunables,
    written,
)

# ---- which constants


def test_starters_constants_are_those_of_the_method_without_choices() -> None:
    """Of ``0.9 if GPU else 0.95`` only a run knows the value that a proposal should start from."""
    source = (ROOT / "templates" / "starters" / "nanogpt" / "train.py").read_text()
    assert [one.name for one in tunables({"train.py": source})] == [
        *("MATRIX_LR", "EMBEDDING_LR", "HEAD_LR", "MLP_RATIO", "ROTARY_BASE", "NEURON_BETA"),
        *("WEIGHT_DECAY", "WARMUP_RATIO", "FINAL_LR_FRAC"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("TIME_BUDGET", "SEED", "random_state", "EVAL_TOKENS", "VOCAB_SIZE", "MAX_SEQ_LEN", "block_size", "maxSeqLen"),
        *("max_iters", "NUM_EPOCHS", "UNTIMED_STEPS", "LOG_EVERY", "DEVICE_BATCH_SIZE", "NUM_WORKERS", "PEAK_FLOPS"),
        *("data_shards", "val_batches", "save_interval", "context_length", "TEST_SIZE"),
    ],
)
def test_what_the_experiment_must_hold_fixed_is_left_alone(name: str) -> None:
    assert is_left_alone(name)


@pytest.mark.parametrize(
    "name",
    [
        *("MATRIX_LR", "learning_rate", "WARMUP_STEPS", "lr_decay_iters", "TOTAL_BATCH_SIZE", "PEAK_LR", "n_head"),
        *("LORA_RANK", "label_smoothing", "weightDecay", "N_BLOCKS", "GRAD_ACCUM_STEPS", "DEPTH"),
    ],
)
def test_what_belongs_to_the_method_is_tuned(name: str) -> None:
    assert not is_left_alone(name)


def test_variables_and_what_nothing_reads_are_no_constants() -> None:
    source = "LR = 0.1\nstep = 0\nbest = 9.0\nUNUSED = 3\nON = True\nNAME = 'x'\nBATCH = 2**10\nOFF = -1\n"
    source += "while step < 9:\n    step += 1\n    for best in (LR, BATCH, OFF):\n        print(best, ON, NAME)\n"
    assert [(one.name, one.value) for one in tunables({"train.py": source})] == [("LR", 0.1), ("BATCH", 1024)]


# ---- which values


NAMES = ("LR", "DROPOUT", "MOMENTUM", "N_LAYER", "N_HEAD", "WEIGHT_DECAY", "ROTARY_BASE", "SCALE")
NUMBERS = st.one_of(
    st.integers(0, 4096), st.floats(0, 1), st.floats(1e-6, 1e6).map(lambda value: float(f"{value:.3g}"))
)
TUNABLES = st.builds(
    lambda name, value: Tunable(name=name, path="train.py", value=value, text=repr(value)),
    st.sampled_from(NAMES), NUMBERS,
)  # fmt: skip


@given(TUNABLES, st.booleans())
def test_values_are_of_the_constants_kind_and_on_the_right_side(one: Tunable, up: bool) -> None:
    values = ladder(one, up=up)
    assert len(set(values)) == len(values)
    for value in values:
        assert math.isfinite(value)
        assert value > one.value if up else value < one.value
        assert type(value) is type(one.value)
        assert 0 <= value <= (1 if one.is_fraction else math.inf)
        assert value > 0 or one.is_fraction
        assert ast.literal_eval(written(one, value)) == value


@pytest.mark.parametrize(
    ("name", "text", "up", "values"),
    [
        ("LR", "0.02", True, ["0.04", "0.03", "0.06"]),
        ("LR", "0.02", False, ["0.01", "0.013", "0.0067"]),
        ("MOMENTUM", "0.95", True, ["0.975", "0.967", "0.983"]),
        ("WARMDOWN_RATIO", "0.5", False, ["0.25", "0.4"]),
        ("DROPOUT", "0.0", True, ["0.1", "0.05", "0.2"]),
        ("DEPTH", "8", True, ["9", "16", "10"]),
        ("DEPTH", "1", False, []),
        ("N_HEAD", "6", True, ["12", "24"]),
        ("N_HEAD", "6", False, ["3"]),
        ("N_EMBD", "384", True, ["768", "576", "1152"]),
        ("TOTAL_BATCH_SIZE", "2**19", True, ["2**20", "2**21"]),
        ("ROTARY_BASE", "10_000", True, ["20_000", "15_000", "30_000"]),
    ],
)
def test_values_around_a_value(name: str, text: str, up: bool, values: list[str]) -> None:
    (one,) = tunables({"train.py": f"{name} = {text}\nprint({name})\n"})
    assert [written(one, value) for value in ladder(one, up=up)][: len(values) or None][:3] == values


# ---- which next


class Climb:
    """Proposals answered by ``judge``, as a campaign would: a keep is the next incumbent."""

    def __init__(self, start: dict[str, Number], judge: Callable[[dict[str, Number]], Outcome]) -> None:
        self.values, self.judge = dict(start), judge
        self.attempts: list[Attempt] = []
        self.incumbent = 0

    def propose(self) -> Proposal | None:
        found = [Tunable(name=name, path="", value=value, text=repr(value)) for name, value in self.values.items()]
        return propose(found, self.attempts, self.incumbent)

    def step(self) -> Attempt | None:
        proposal = self.propose()
        if proposal is None:
            return None
        values = {one.name: value for one, value in proposal}
        attempt = Attempt(
            number=len(self.attempts) + 1, on=self.incumbent, before=dict(self.values), values=values,
            outcome=self.judge(self.values | values),
        )  # fmt: skip
        self.attempts.append(attempt)
        if attempt.outcome is Outcome.KEPT:
            self.values |= values
            self.incumbent = attempt.number
        return attempt

    def run(self, steps: int) -> list[Attempt]:
        for _ in range(steps):
            if self.step() is None:
                break
        return self.attempts


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(st.sampled_from(NAMES), NUMBERS, min_size=1, max_size=4), st.lists(st.sampled_from(Outcome)),
    st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.KEPT]),
)  # fmt: skip
def test_nothing_is_tried_twice_on_one_incumbent(
    start: dict[str, Number], outcomes: list[Outcome], then: Outcome
) -> None:
    left = iter(outcomes)
    attempts = Climb(start, lambda _: next(left, then)).run(60)
    keys = [(attempt.on, key_of(attempt.values.items())) for attempt in attempts]
    assert len(set(keys)) == len(keys)


def bowl(values: dict[str, Number]) -> float:
    """Best at LR 0.3, DEPTH 12, DROPOUT 0.2."""
    return (
        math.log(values["LR"] / 0.3) ** 2 + math.log(values["DEPTH"] / 12) ** 2 + (10 * (values["DROPOUT"] - 0.2)) ** 2
    )


def test_climb_finds_a_far_optimum_in_a_night() -> None:
    best = [math.inf]

    def judge(values: dict[str, Number]) -> Outcome:
        if values["DEPTH"] > 40:
            return Outcome.CRASHED
        loss = bowl(values)
        if loss < best[0]:
            best[0] = loss
            return Outcome.KEPT
        return Outcome.WORSE

    start: dict[str, Number] = {"LR": 0.001, "DEPTH": 2, "DROPOUT": 0.0}
    best[0] = bowl(start)
    climb = Climb(start, judge)
    climb.run(80)
    assert bowl(start) > 30
    assert best[0] < 0.02


def test_keep_is_followed_in_its_direction_until_a_miss() -> None:
    outcomes = iter([Outcome.WORSE, Outcome.KEPT, Outcome.KEPT, Outcome.WORSE, Outcome.WORSE])
    climb = Climb({"LR": 1.0, "DECAY": 1.0}, lambda _: next(outcomes))
    tried = [dict(attempt.values) for attempt in climb.run(5)]
    assert tried == [{"LR": 2.0}, {"LR": 0.5}, {"LR": 0.25}, {"LR": 0.12}, {"DECAY": 2.0}]


def test_keep_is_followed_before_what_was_promising() -> None:
    outcomes = iter([Outcome.PROMISING, Outcome.PROMISING, Outcome.KEPT, Outcome.WORSE, Outcome.WORSE])
    climb = Climb({"A": 1.0, "B": 1.0}, lambda _: next(outcomes))
    tried = [dict(attempt.values) for attempt in climb.run(5)]
    assert tried == [{"A": 2.0}, {"A": 0.5}, {"B": 2.0}, {"B": 4.0}, {"A": 2.0}]


def test_crash_makes_its_neighbours_less_likely() -> None:
    climb = Climb({"DEPTH": 4, "LR": 1.0}, lambda values: Outcome.CRASHED if values["DEPTH"] > 4 else Outcome.WORSE)
    tried = [dict(attempt.values) for attempt in climb.run(12)]
    deeper = [number for number, values in enumerate(tried) if values.get("DEPTH", 0) > 4]
    assert deeper[0] < 4
    assert deeper[1] >= deeper[0] + 6


def test_constant_without_effect_comes_last() -> None:
    climb = Climb({"A": 1.0, "B": 1.0}, lambda values: Outcome.NO_EFFECT if values["A"] != 1 else Outcome.WORSE)
    assert [set(attempt.values) for attempt in climb.run(5)] == [{"A"}, *[{"B"}] * 4]


def test_two_at_once_when_every_single_change_was_tried() -> None:
    climb = Climb({"A": 1, "B": 1}, lambda _: Outcome.OPEN)
    attempts = climb.run(100)
    sizes = [len(attempt.values) for attempt in attempts]
    singles = sizes.count(1)
    assert sizes == [1] * singles + [2] * (singles // 2) ** 2
    assert climb.propose() is None


# ---- on a campaign


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with a campaign and no experiment yet: LR 5 is better than 4, a WIDTH above 64 crashes."""
    return make_loop(tmp_path / "project", run_script)


def test_auto_sweep_climbs_and_never_touches_the_seed(loop: Loop) -> None:
    data = sweep(loop, "--auto", "--max-trials", "7")
    assert data["tuned"] == ["LR", "WIDTH"]
    assert statuses(data) == [
        ("auto: LR=5", "keep", False),
        ("auto: LR=6", "discard", False),
        ("auto: WIDTH=128", "crash", False),
        ("auto: WIDTH=32", "discard", False),
        ("auto: LR=10", "discard", False),
        ("auto: LR=2", "discard", False),
        ("auto: LR=7", "discard", False),
    ]
    assert data["incumbent"]["metric"] == pytest.approx(0.905)
    assert "LR = 5\nWIDTH = 64\nSEED = 42  # of the initial weights\n" in loop.text()
    assert_clean(loop)


def test_auto_sweep_ends_when_nothing_is_left_to_try(tmp_path: Path, run_script: RunScript) -> None:
    train = "N_HEAD = 2\nprint(f'val_bpb: {1 + abs(N_HEAD - 4)}')\n"
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": train})
    data = sweep(loop, "--auto")
    assert [(description, status) for description, status, _ in statuses(data)] == [
        ("auto: N_HEAD=4", "keep"), ("auto: N_HEAD=8", "discard"), ("auto: N_HEAD=16", "discard"),
        ("auto: N_HEAD=1", "discard"),
    ]  # fmt: skip
    assert_clean(loop)
    assert [bool(point["skipped"]) for point in sweep(loop, "--auto")["points"]] == [True] * 4


def test_killed_auto_sweep_goes_on_as_if_nothing_had_happened(tmp_path: Path, run_script: RunScript) -> None:
    whole, killed = (make_loop(tmp_path / name, run_script) for name in ("whole", "killed"))
    expected = [point[:2] for point in statuses(sweep(whole, "--auto", "--max-trials", "5"))]
    sweep(killed, "--auto", "--max-trials", "2")
    trials = len(killed.trials())
    with killed.holding():
        process = start(killed, "--auto")
        # The third crashes at once, held or not; the fourth is held.
        eventually(lambda: len(killed.trials()) > trials + 1 and bool(killed.processes()))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    data = sweep(killed, "--auto", "--max-trials", "5")
    assert [point[:2] for point in statuses(data)] == expected
    assert [skipped for _, _, skipped in statuses(data)] == [True, True, True, True, False]
    assert len({point["description"] + str(point["number"]) for point in data["points"]}) == 5
    assert_clean(killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_endless_auto_sweep_is_stopped_and_leaves_a_clean_campaign(loop: Loop, number: signal.Signals) -> None:
    loop.baseline()
    with loop.holding():
        process = start(loop, "--auto")
        eventually(lambda: len(loop.trials()) == 3 and bool(loop.processes()))
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert_clean(loop)
    # What was interrupted says nothing, and is tried again.
    assert statuses(sweep(loop, "--auto", "--max-trials", "1")) == [("auto: LR=5", "keep", False)]


def test_points_of_a_given_sweep_are_not_repeated(loop: Loop) -> None:
    sweep(loop, "--set", "LR=6,8")
    data = sweep(loop, "--auto", "--max-trials", "5")
    tried = [point["description"] for point in data["points"]]
    assert tried[:2] == ["auto: WIDTH=128", "auto: WIDTH=32"], "the way on from LR=6 is known to be worse"
    assert not {"auto: LR=4", "auto: LR=8"} & set(tried)
    assert sum(description.startswith("auto: LR") for description in tried) == 3


def test_constant_that_the_guard_refuses_is_left_alone(tmp_path: Path, run_script: RunScript) -> None:
    """Its name does not say so, but it is a seed."""
    train = "import random\nSTREAM = 3\nWIDTH = 2\nrandom.seed(STREAM)\nprint(f'val_bpb: {WIDTH + random.random()}')\n"
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": train})
    data = sweep(loop, "--auto", "--max-trials", "2")
    assert [point["description"] for point in data["points"]] == ["auto: WIDTH=4", "auto: WIDTH=1"]
    assert_clean(loop)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--auto", "--set", "LR=2"), "LR does not go with it"),
        (("--auto", "--sampler", "tpe"), "--sampler does not go with it"),
        (("--auto", "--max-trials", "0"), "expected at least 1"),
    ],
)
def test_flags_that_do_not_go_together(loop: Loop, arguments: tuple[str, ...], words: str) -> None:
    assert words in sweep(loop, *arguments, expect=2)["message"]


def test_nothing_to_tune_is_told_before_anything_changes(tmp_path: Path, run_script: RunScript) -> None:
    train = "SEED = 3\nprint(f'val_bpb: {SEED * 0 + 1}')\n"
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": train})
    error = sweep(loop, "--auto", expect=4)
    assert (error["code"], "--set" in error["hint"]) == ("nothing_to_tune", True)
    assert loop.trials() == []

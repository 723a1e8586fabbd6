from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import TAG, Loop
from tests.starter_bench import imported

from autoresearch.config import Config

np = pytest.importorskip("numpy", reason="numpy is not installed: the rl starter goes UNTESTED")
torch = pytest.importorskip("torch", reason="torch is not installed: the rl starter goes UNTESTED")
gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: the rl starter goes UNTESTED")

STARTER = ROOT / "templates" / "starters" / "rl"
CONFIG = Config.read(STARTER / "autoresearch.yaml")


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    """``prepare`` and ``train``, imported."""
    with imported(STARTER / "prepare.py", STARTER / "train.py") as (prepare, train):
        yield prepare, train


@pytest.fixture
def prepare(modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(modules[0].Practice, "_used", 0)  # as in a process of its own
    return modules[0]


@pytest.fixture
def train(modules: tuple[ModuleType, ModuleType]) -> ModuleType:
    return modules[1]


@pytest.fixture
def log(prepare, train, monkeypatch, capsys) -> Callable[..., str]:
    """``log(seed=, steps=)``: what a training of so many steps prints."""
    monkeypatch.setattr(prepare, "HELD_OUT_EPISODES", 3)

    def run(*, seed: int = 1, steps: int = 6400) -> str:
        monkeypatch.setattr(train, "SEED", seed)
        monkeypatch.setattr(prepare, "PRACTICE_STEPS", steps)
        monkeypatch.setattr(prepare.Practice, "_used", 0)
        train.main()
        return str(capsys.readouterr().out)

    return run


def value(log: str, name: str) -> float:
    found = re.findall(rf"(?m)^{name}:\s*(\S+)$", log)
    assert len(found) == 1, (name, log)
    return float(found[0])


# --- training ------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_results_and_others_do_not(log) -> None:
    first, again, other = (value(log(seed=seed), "mean_return") for seed in (1, 1, 2))
    assert first == again != other


def test_summary_holds_what_the_settings_read(log) -> None:
    text = log()
    patterns = {CONFIG.metric.name: CONFIG.metric.pattern, **CONFIG.watch}
    for name, pattern in patterns.items():
        assert re.findall(pattern, text, re.MULTILINE) == [re.findall(rf"(?m)^{name}: +(\S+)$", text)[0]], name
    assert (value(text, "num_steps"), value(text, "num_updates")) == (6400, 4)


def test_progress_lines_are_those_that_the_settings_read(log) -> None:
    found = [match.groupdict() for match in re.finditer(CONFIG.progress, log())]
    assert [point["percent"] for point in found] == ["50.0", "75.0", "100.0"]
    assert all(500 < float(point["loss"]) < 2000 for point in found)


def test_steps_that_do_not_fill_a_rollout_are_learnt_from_too(log) -> None:
    text = log(steps=1600 + 16 + 15)
    assert (value(text, "num_steps"), value(text, "num_updates")) == (1616, 2)


def test_diverged_run_fails_without_a_metric(log, train, monkeypatch, capsys) -> None:
    monkeypatch.setattr(train, "LEARNING_RATE", 1e30)
    with pytest.raises((SystemExit, ValueError), match=r"diverged|not a finite number"):
        log()
    assert "mean_return" not in capsys.readouterr().out


def test_advantages_end_with_an_episode_but_the_state_reached_keeps_its_value(train, monkeypatch) -> None:
    monkeypatch.setattr(train.Agent, "value", lambda _, observations: observations[..., 0])
    states = torch.tensor([[1.0], [2.0], [4.0]]).unsqueeze(-1)
    reached = torch.tensor([[2.0], [8.0], [16.0]]).unsqueeze(-1)
    rollout = train.Rollout(states, states, torch.tensor([[10.0], [20.0], [30.0]]), reached, [False, True, False])
    gains, targets = train.advantages(train.Agent(), rollout)
    last = 3 + 0.95 * 16 - 4
    second = 2 + 0.95 * 8 - 2
    first = 1 + 0.95 * 2 - 1 + 0.95 * 0.95 * second
    assert gains.flatten().tolist() == pytest.approx([first, second, last])
    assert targets.flatten().tolist() == pytest.approx([first + 1, second + 2, last + 4])


def test_likelihood_is_that_of_the_normal_distribution(train) -> None:
    agent = train.Agent()
    observations, actions = torch.randn(5, 3), torch.randn(5, 1)
    with torch.no_grad():
        agent.log_std.fill_(0.3)
        normal = torch.distributions.Normal(agent.actor(observations), agent.log_std.exp())
        difference = normal.log_prob(actions).sum(-1) - agent.log_likelihood(observations, actions)
    assert difference.tolist() == pytest.approx([float(difference[0])] * 5)


# --- the protected half --------------------------------------------------------------------------------


def fall(observations):
    """A policy that depends on what it sees: push in the direction of the motion."""
    return np.sign(observations[:, 2:])


def test_metric_is_the_mean_return_of_the_held_out_episodes(prepare, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "HELD_OUT_EPISODES", 2)
    returns = []
    for seed in (prepare.HELD_OUT_SEED, prepare.HELD_OUT_SEED + 1):
        task = gymnasium.make(prepare.TASK)
        observation, _ = task.reset(seed=seed)
        total, is_over = 0.0, False
        while not is_over:
            observation, reward, _, is_over, _ = task.step(fall(observation[None])[0])
            total += float(reward)
        returns.append(total)
    assert prepare.evaluate(fall) == pytest.approx(sum(returns) / 2)
    assert returns[0] != returns[1]


@pytest.mark.parametrize(
    "torques, message",
    [
        (lambda seen: seen, r"shape \(100, 3\), not \(100, 1\)"),
        (lambda seen: seen[:, 0], r"shape \(100,\), not \(100, 1\)"),
        (lambda seen: seen[:, :1] * float("nan"), "not a finite number"),
    ],
)
def test_torques_that_make_no_sense_are_refused(torques, message: str, prepare) -> None:
    with pytest.raises(ValueError, match=message):
        prepare.evaluate(torques)


def test_practice_ends_with_the_budget(prepare, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "PRACTICE_STEPS", 11)
    practice = prepare.Practice(5, seed=1)
    steps = 0
    while practice.progress < 1:
        practice.step(np.zeros((5, 1)))
        steps += 1
    assert (steps, practice.steps) == (2, 10)
    for used_up in (practice, prepare.Practice(5, seed=2)):
        with pytest.raises(prepare.BudgetError, match="The 11 steps of practice are used up"):
            used_up.step(np.zeros((5, 1)))


def test_practice_goes_on_with_new_episodes_when_the_time_of_the_old_ones_is_up(prepare) -> None:
    practice = prepare.Practice(2, seed=1)
    rewards = 0.0
    for i in range(prepare.EPISODE_STEPS):
        before = practice.observations
        step = practice.step(fall(before))
        rewards += step.rewards.mean()
        assert step.ended is (i == prepare.EPISODE_STEPS - 1)
        assert np.array_equal(practice.observations, step.reached) is not step.ended
        assert practice.mean_return == (pytest.approx(rewards) if step.ended else None)
    assert np.abs(practice.observations[:, 2]).max() <= 1, "episodes begin slowly"


def test_practice_starts_are_those_of_the_seed_and_never_held_out(prepare) -> None:
    one, again, two = (prepare.Practice(50, seed=seed).observations for seed in (1, 1, 2))
    held_out, _ = prepare.make_tasks(prepare.HELD_OUT_EPISODES).reset(seed=prepare.HELD_OUT_SEED)
    assert np.array_equal(one, again)
    starts = {tuple(start) for start in np.concatenate([one, two, held_out]).tolist()}
    assert len(starts) == 50 + 50 + prepare.HELD_OUT_EPISODES


def test_budget_in_seconds_is_practice_at_a_fixed_rate() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "prepare.py"],
        cwd=STARTER,
        env={"TIME_BUDGET": "1.5", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "12,000 steps of practice" in done.stdout
    assert -1400 < value(done.stdout, "no torque") < -1000
    assert -1400 < value(done.stdout, "random torque") < -1000


# --- a campaign ----------------------------------------------------------------------------------------

# Each leaves the distribution of the initial weights as it is: that of random orthogonal matrices stays the same
# under a change of sign and under an exchange of rows or columns. So none has an effect, and all have other numbers.
DRAWN = "nn.init.orthogonal_(linear.weight, gain)\n"
NULLS = {
    "opposite signs": DRAWN.replace("gain", "-gain"),
    "rows in reverse": f"{DRAWN}        linear.weight.data = linear.weight.data.flip(0)\n",
    "columns in reverse": f"{DRAWN}        linear.weight.data = linear.weight.data.flip(1)\n",
    "opposite signs, rows in reverse": f"{DRAWN}        linear.weight.data = -linear.weight.data.flip(0)\n",
    "opposite signs, columns in reverse": f"{DRAWN}        linear.weight.data = -linear.weight.data.flip(1)\n",
}
CAMPAIGN = f"""\
command: OMP_NUM_THREADS=1 {sys.executable} -B train.py
metric: {{name: mean_return, direction: higher}}
edit: [train.py]
protect: [prepare.py]
budget_s: 6
timeout_factor: 20
prune: false
keep: {{baseline_seeds: 5, max_seeds: 3}}
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_campaign_refuses_the_lucky_null_that_a_single_run_would_keep_and_keeps_the_gain(
    tmp_path: Path, run_script: RunScript
) -> None:
    loop = Loop(folder=tmp_path / "project", run=run_script)
    loop.folder.mkdir()
    loop.git("init", "-q", "-b", "main")
    sources = {name: (STARTER / name).read_text() for name in ("train.py", "prepare.py")}
    loop.commit({**sources, "autoresearch.yaml": CAMPAIGN}, "Start")
    loop.setup("--tag", TAG)

    def first_run() -> float:
        """Of the latest experiment, at the seed that a loop with one seed would know."""
        latest = loop.trials()[-1].number
        found = [trial for trial in loop.trials() if trial.number == latest and trial.seed == 1]
        assert len(found) == 1 and found[0].metric is not None
        return found[0].metric

    def decide(description: str, old: str, new: str) -> str:
        text = loop.text()
        assert text.count(old) == 1
        loop.write({"train.py": text.replace(old, new)})
        loop.submit(description, "--wait", 900)
        return str(loop.log()["experiment"]["status"])

    loop.submit("baseline", "--wait", 900)
    record = first_run()
    for description, drawn in NULLS.items():
        assert decide(description, DRAWN, drawn) == "discard"
        if first_run() > record:
            break
    else:
        pytest.fail("no edit without effect was lucky in its first run: the test did not see its case")
    assert decide("twice the learning rate", "LEARNING_RATE = 5e-4", "LEARNING_RATE = 1e-3") == "keep"

"""How busy work ahead keeps the device while a scripted agent thinks, what that costs, and whether it decides as well.

Two campaigns of the same ideas run at the same moment: one agent waits for each verdict before it thinks of the
next idea, the other submits it with ``--ahead``. Each thinks a fifth of a trial's length for an idea. Trials sleep,
so that two cores are enough. The busy share is the trials' own seconds, by their results, of the time from the start
of the first idea's first trial to the end of the last one.

Controller cost is what the drivers have written of themselves: their own CPU time, start of Python included, and that
of the git processes and of the runners' starts that they waited for. The agent's own commands are not in it, nor is
what they start while they wait for a verdict.

2026-11-24, 2 CPU cores that others used as well:

- ``--seconds 40 --worthless 7 --gains 2``: busy 82.6 % waiting, 99.1 % ahead; 34 ms of a driver's own CPU for each of
  13 trials, and 21 ms of what it started; both kept the 2 that gain and nothing else.
- ``--seconds 3 --thinks 0 --worthless 4 --gains 12 --world 3``: both kept the 12 that gain and 1 that does not, in 25
  trials waiting and 36 ahead: winners that another one overtook were run anew.
- ``--seconds 3 --thinks 0 --worthless 30 --gains 0 --world 2``: both kept 1 of 30 ideas that gain nothing.

Decisions are compared in many worlds by ``keep_rule/ahead.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autoresearch.campaign.driver import LOG_FILE
from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import Purpose, Trial
from autoresearch.runner.leases import FOLDER_NAME

ROOT = Path(__file__).resolve().parent.parent
TAG = "bench"
TARGET_BUSY = 0.97
TARGET_CPU_S = 0.050
COSTS = ("own_cpu_s", "children_cpu_s")  # of a driver, in seconds
GIT = ("git", "-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.invalid")
SIGMA = 0.01
PREPARE = '''\
import os
import random
import time

WORLD, SIGMA, SECONDS = {world}, {sigma}, {seconds}


def train(ideas, source):
    """Each idea is worth what its name says, in standard deviations of one run; half of the luck is the seed's."""
    time.sleep(SECONDS)
    seed = os.environ["AUTORESEARCH_SEED"]
    shared = random.Random(f"{{WORLD}} {{seed}}").gauss(0, 1)
    own = random.Random(f"{{WORLD}} {{seed}} {{source}}").gauss(0, 1)
    gain = sum(int(name.split("_")[1]) * on for name, on in ideas.items())
    print(f"val_bpb: {{1 + SIGMA * ((shared + own) / 2 ** 0.5 - gain):.9f}}")
'''
CONFIG = "command: {python} -S train.py\nmetric: {{name: val_bpb}}\nedit: [train.py]\nbudget_s: {budget_s}\n"


@dataclass(kw_only=True)
class Agent:
    """A scripted agent on a campaign of its own."""

    folder: Path
    ideas: list[str]
    think_s: float
    ahead: bool
    env: dict[str, str]
    statuses: dict[str, str] = field(default_factory=dict)

    def call(self, name: str, *arguments: str) -> Any:
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments, "--json"]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False)
        answer = json.loads(done.stdout)
        assert done.returncode in (0, 10), answer
        return answer["data"]

    def set_up(self, *, seconds: float, world: int) -> None:
        """The project with its baseline measured."""
        self.folder.mkdir(parents=True)
        lines = [f"{name} = 0\n# What comes next\n# has nothing to do\n# with this.\n" for name in self.ideas]
        call = "ideas = {name: value for name, value in globals().items() if name[:5] == 'IDEA_'}\n"
        texts = {
            "prepare.py": PREPARE.format(world=world, sigma=SIGMA, seconds=seconds),
            "train.py": f"import prepare\n\n{''.join(lines)}{call}prepare.train(ideas, open(__file__).read())\n",
            "autoresearch.yaml": CONFIG.format(python=sys.executable, budget_s=seconds + 60),
            ".gitignore": "__pycache__/\n",
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Start"]):
            subprocess.run([*GIT, *arguments], cwd=self.folder, check=True)
        self.call("setup_campaign", "--tag", TAG)
        self.call("run_experiment", "-d", "baseline")

    def work(self) -> None:
        """Try every idea once."""
        left = list(self.ideas)
        while left or self.opened():
            state = self.call("status", "--history", "0")
            if state["next"]["command"].endswith("log_result.py"):
                decided = self.call("log_result")["experiment"]
                self.statuses[decided["description"]] = decided["status"]
            elif left and len(state["opened"]) < (3 if self.ahead else 1):
                self.try_idea(left.pop(0))
            else:
                self.call("status", "--wait", "540", "--history", "0")

    def opened(self) -> list[Any]:
        return list(self.call("status", "--history", "0")["opened"])

    def try_idea(self, name: str) -> None:
        time.sleep(self.think_s)
        train = self.folder / "train.py"
        train.write_text(re.sub(rf"(?m)^{name} = 0", f"{name} = 1", train.read_text()), encoding="utf-8")
        self.call("run_experiment", "-d", name, *(["--ahead"] if self.ahead else []))

    # ---- what came of it

    def trials(self) -> list[Trial]:
        """The ideas' trials and re-tests, by start."""
        with open_ledger(self.folder) as (_, ledger):
            return [trial for trial in ledger.trials(TAG) if trial.purpose is not Purpose.BASELINE]

    def busy_share(self) -> float:
        results = [trial.result for trial in self.trials() if trial.result is not None]
        starts = [datetime.fromisoformat(result.started_at).timestamp() for result in results]
        ends = [start + result.duration_s for start, result in zip(starts, results, strict=True)]
        return sum(result.duration_s for result in results) / (max(ends) - min(starts))

    def drivers_cost(self) -> tuple[int, float, float]:
        """Trials that drivers waited for, their own CPU seconds, and those of what they started."""
        with open_ledger(self.folder) as (repo, _):
            log = repo.state_dir / TAG / LOG_FILE
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        costs = [json.loads(line) for line in lines if line.startswith("{")]
        trials, own_s, children_s = (sum(cost[key] for cost in costs) for key in ("trials", *COSTS))
        return trials, own_s, children_s


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="that a trial sleeps (default: %(default)s)")
    parser.add_argument("--thinks", type=float, default=0.2, help="of a trial's length, for an idea (%(default)s)")
    parser.add_argument("--worthless", type=int, default=9, help="ideas that gain nothing (default: %(default)s)")
    parser.add_argument("--gains", type=int, default=3, help="ideas that gain three sigma (default: %(default)s)")
    parser.add_argument("--world", type=int, default=1, help="another number is other luck (default: %(default)s)")
    arguments = parser.parse_args()
    ideas = [f"IDEA_0_{number}" for number in range(arguments.worthless)]
    for number in range(arguments.gains):
        ideas.insert((number + 1) * len(ideas) // (arguments.gains + 1), f"IDEA_3_{number}")
    with tempfile.TemporaryDirectory(prefix="work-ahead-", ignore_cleanup_errors=True) as name:
        agents = [
            Agent(
                folder=Path(name) / word / "project", ideas=ideas, ahead=word == "ahead",
                think_s=arguments.thinks * arguments.seconds,
                env={**os.environ, FOLDER_NAME: str(Path(name) / word / "leases")},  # a device for each
            )
            for word in ("waiting", "ahead")
        ]  # fmt: skip
        threads = [threading.Thread(target=run, args=(agent, arguments.seconds, arguments.world)) for agent in agents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return report(agents, arguments.seconds)


def run(agent: Agent, seconds: float, world: int) -> None:
    agent.set_up(seconds=seconds, world=world)
    agent.work()


def report(agents: list[Agent], seconds: float) -> int:
    """Print the figures; 1 if a target is missed."""
    print(f"{len(os.sched_getaffinity(0))} cores, trials of {seconds:g} s")
    for agent in agents:
        kept = [name for name, status in agent.statuses.items() if status == "keep"]
        gains = sum(name.startswith("IDEA_3") for name in kept)
        print(
            f"{'ahead  ' if agent.ahead else 'waiting'}: busy {100 * agent.busy_share():.1f} %, {len(agent.trials())} "
            f"trials for {len(agent.statuses)} ideas; kept {gains} that gain and {len(kept) - gains} that do not"
        )
    trials, own_s, children_s = agents[-1].drivers_cost()
    each = own_s / max(trials, 1)
    print(f"drivers waited for {trials} trials; CPU for each: {1000 * each:.0f} ms (target {1000 * TARGET_CPU_S:.0f})")
    print(f"and {1000 * children_s / max(trials, 1):.0f} ms of git and of starting the runner")
    return int(agents[-1].busy_share() < TARGET_BUSY or each > TARGET_CPU_S)


if __name__ == "__main__":
    raise SystemExit(main())

"""A project whose training is noisy in a known way, so that a test knows which gains are real."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tests.conftest import RunScript
from tests.loop_bench import TAG, Loop, make_measured_loop

from autoresearch.verdict.keep_rule import KeepRule

SIGMA = 0.01
CONFIG = """\
command: PYTHONDONTWRITEBYTECODE=1 python3 -S train.py
metric: {name: val_bpb, direction: lower}
edit: [train.py]
budget_s: 10
"""

# One run's luck is partly the seed's, for whatever code, and partly that of this code at this seed.
PREPARE = '''\
"""Protected: what each constant is worth, and how noisy one training is."""

import math
import os
import random
import time

WORLD, SIGMA, RHO, SIGN = {world!r}, {sigma!r}, {rho!r}, {sign!r}
WORTH = {worth!r}


def luck(seed, source):
    """In standard deviations of one run; above 0 is bad."""
    shared = random.Random(f"{{WORLD}} {{seed}}").gauss(0, 1)
    own = random.Random(f"{{WORLD}} {{seed}} {{source}}").gauss(0, 1)
    return math.sqrt(RHO) * shared + math.sqrt(1 - RHO) * own


def evaluate(constants, source):
    gate = os.environ.get("TOY_GATE", "")
    while os.path.exists(gate):
        time.sleep(0.02)
    gain = sum(worth * constants.get(name, 0) for name, worth in WORTH.items())
    noise = luck(int(os.environ["AUTORESEARCH_SEED"]), source)
    return 1.0 + SIGN * SIGMA * (noise - gain)
'''
TRAIN_HEAD = "import prepare\n\nNOTE = 0  # comments go here\n"
TRAIN_TAIL = """\
constants = {name: value for name, value in globals().items() if name.isupper()}
print(f"val_bpb: {prepare.evaluate(constants, open(__file__).read()):.9f}")
"""
# Between two constants lie enough lines that a merge can take either change out alone.
REGION = "# What comes next\n# has nothing to do\n# with what came before.\n"


def project(
    *, worth: dict[str, float] | None = None, world: int = 1, rho: float = 0.0, sigma: float = SIGMA, sign: int = 1
) -> dict[str, str]:
    """``worth`` of each constant of train.py in sigma per unit; ``sign`` -1 makes higher better."""
    worth = worth or {}
    constants = "".join(f"{REGION}{name} = 0\n" for name in worth)
    return {
        "prepare.py": PREPARE.format(world=world, sigma=sigma, rho=rho, sign=sign, worth=worth),
        "train.py": f"{TRAIN_HEAD}{constants}{REGION}{TRAIN_TAIL}",
    }


def make_noisy_loop(
    folder: Path, run: RunScript, *, config: str = CONFIG, files: dict[str, str] | None = None, **world: Any
) -> Loop:
    """A campaign on such a project, with its baseline measured."""
    return make_measured_loop(folder, run, config=config, files=project(**world) | (files or {}))


def rule(loop: Loop) -> KeepRule:
    """The keep rule as the ledger holds it."""
    campaign = loop.campaign(TAG)
    assert campaign is not None and campaign.rule is not None
    return KeepRule.from_json(campaign.rule)


def next_seeds(loop: Loop, number: int) -> list[int]:
    """The seeds of a new candidate's first trials."""
    return [rule(loop).next_seed(done) for done in range(number)]


def comment(loop: Loop, text: object) -> None:
    """Edit a comment, which is worth nothing."""
    loop.write({"train.py": _commented(loop.text(), text)})


def comment_with_luck(loop: Loop, low: float, high: float, seeds: Sequence[int]) -> None:
    """Edit a comment such that its luck at each of ``seeds`` lies in the range; above 0 is bad luck."""
    luck_between(loop, dict.fromkeys(seeds, (low, high)))


def luck_between(loop: Loop, ranges: dict[int, tuple[float, float]]) -> None:
    """Edit a comment such that its luck at each seed lies in the seed's range."""
    prepare: dict[str, Any] = {}
    exec(loop.text("prepare.py"), prepare)
    text = loop.text()
    for number in count(len(loop.rows) * 10**6):
        edited = _commented(text, number)
        if all(low <= prepare["luck"](seed, edited) <= high for seed, (low, high) in ranges.items()):
            loop.write({"train.py": edited})
            return


def _commented(source: str, text: object) -> str:
    before, line, after = re.split(r"(?m)^(NOTE = 0  # .*)$", source)
    assert line
    return f"{before}NOTE = 0  # {text}{after}"

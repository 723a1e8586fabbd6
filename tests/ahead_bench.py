"""A campaign with work ahead: a project whose two constants can be changed, and merged, apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import RunScript
from tests.loop_bench import CONFIG, TAG, Loop, make_measured_loop
from tests.trial_bench import eventually

from autoresearch.campaign.driver import LOCK_FILE, is_driven
from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import Experiment

# Lower is better: LR = 8 gains, WIDTH counts a little beside it. Eight lines lie between the two.
PREPARE = '''\
"""Protected: the data and the evaluation."""

import os
import time

BPB = {4: 0.9979, 8: 0.9932, 2: 1.005}


def hold():
    while os.path.exists(os.environ.get("TOY_GATE", "")):
        time.sleep(0.01)


def evaluate_bpb(lr, width):
    return BPB[lr] - (width - 64) / 10000
'''
TRAIN = """\
import prepare

LR = 4

# Between what
# one idea changes
# and what another does
# lie enough lines
# that a merge
# takes both.

WIDTH = 64
prepare.hold()
print(f"val_bpb:          {prepare.evaluate_bpb(LR, WIDTH):.6f}")
"""


def make_ahead_loop(folder: Path, run: RunScript, *, config: str = CONFIG) -> Loop:
    """The project with its baseline measured."""
    return make_measured_loop(folder, run, files={"prepare.py": PREPARE, "train.py": TRAIN}, config=config)


def ahead(loop: Loop, description: str, base: str = "incumbent", *, expect: int = 10, **constants: object) -> Any:
    """Edit and submit ahead."""
    return loop.submit(description, "--ahead", base, expect=expect, **constants)


def experiment(loop: Loop, number: int) -> Experiment:
    with open_ledger(loop.folder) as (_, ledger):
        found = ledger.experiment(TAG, number)
    assert found is not None
    return found


def await_judged(loop: Loop, number: int) -> Experiment:
    """Wait, running no command, until the driver has brought an experiment to its verdict."""
    return eventually(lambda: found if (found := experiment(loop, number)).verdict else None)


def await_rest(loop: Loop) -> None:
    """Wait until the driver has ended by itself."""
    eventually(lambda: not is_driven(loop.state_dir / TAG))


def driver_pid(loop: Loop) -> int:
    """The driver's pid, once it is at work."""
    file = loop.state_dir / TAG / LOCK_FILE
    return int(eventually(lambda: file.read_text() if is_driven(file.parent) else ""))

"""What a campaign shows on every cluster: ``test_executor_<engine>.py`` takes in all of these tests.

It gives them a fixture ``loop``, the toy project with its trials on the cluster, not yet measured.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.ahead_bench import ahead, await_judged, await_rest
from tests.loop_bench import Loop
from tests.trial_bench import eventually

from autoresearch.campaign.opened import open_ledger
from autoresearch.trial import RESULT_FILE, Outcome, TrialResult

__all__ = [
    "test_a_result_of_another_device_is_not_compared",
    "test_a_submission_whose_answer_was_lost_is_adopted_and_not_repeated",
    "test_a_whole_campaign_and_a_sweep_run_on_the_cluster",
    "test_doctor_asks_the_cluster_in_place_of_this_machines_gpus",
    "test_what_was_submitted_ahead_runs_on_the_cluster_while_no_command_does",
]


def test_a_whole_campaign_and_a_sweep_run_on_the_cluster(loop: Loop) -> None:
    loop.baseline()
    assert loop.experiment("a better learning rate", LR=8) == "keep"
    assert loop.experiment("a worse one", LR=2) == "discard"
    assert loop.experiment("too wide", WIDTH=128) == "crash"
    swept = loop.call("sweep", "--set", "LR=16,4")
    assert len(swept["points"]) == 2
    assert [row[3] for row in loop.rows][:4] == ["keep", "keep", "discard", "crash"]
    assert "local" not in {trial.handle["engine"] for trial in loop.trials()}
    assert all(trial.result and trial.result.host for trial in loop.trials())
    assert loop.tip() == loop.incumbent()


def test_a_submission_whose_answer_was_lost_is_adopted_and_not_repeated(loop: Loop) -> None:
    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        trial = loop.trials()[-1]
        with open_ledger(loop.folder) as (_, ledger):
            trial.handle = {}
            ledger.set_handle(trial)
    loop.look("--wait", 60)
    assert loop.log()["experiment"]["status"] == "keep"
    assert [each.number for each in loop.trials()].count(1) == 1


def test_what_was_submitted_ahead_runs_on_the_cluster_while_no_command_does(loop: Loop) -> None:
    loop.baseline()
    with loop.holding():
        ahead(loop, "a better learning rate", LR=8)
        ahead(loop, "a worse one", LR=2)
    assert await_judged(loop, 1).verdict == "better"
    assert await_judged(loop, 2).verdict == "worse"
    await_rest(loop)
    assert [loop.log()["experiment"]["status"] for _ in range(2)] == ["keep", "discard"]
    assert "local" not in {trial.handle["engine"] for trial in loop.trials()}


def test_doctor_asks_the_cluster_in_place_of_this_machines_gpus(loop: Loop) -> None:
    answer = loop.run("doctor", "--project", loop.folder, "--agent", "scripted", "--json", cwd=loop.folder)
    checks = {check["name"]: check for check in json.loads(answer.stdout)["data"]["checks"]}
    assert checks["cluster"]["status"] == "ok"
    assert re.fullmatch(r"(slurm|ray) answers and remembers \d+ jobs", checks["cluster"]["text"])
    assert not checks.keys() & {"gpu", "cpu"}


# ---- several kinds of devices


def look_at_another(loop: Loop, **changes: Any) -> list[TrialResult]:
    """Run the baseline and an experiment whose first result says ``changes``; the experiment's results."""
    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        directory = Path(loop.trials()[-1].directory)
    result = eventually(lambda: TrialResult.read(directory))
    (directory / RESULT_FILE).write_text(replace(result, device="Another GPU", **changes).to_json())
    loop.look("--wait", 60)
    return [trial.result for trial in loop.trials() if trial.number == 1 and trial.result]


def test_a_result_of_another_device_is_not_compared(loop: Loop) -> None:
    first, second = look_at_another(loop)
    assert (first.outcome, first.cause, first.metric) == (Outcome.INTERRUPTED, "other_device", None)
    assert "it ran on Another GPU, the baseline on cpu: pin one kind, with executor." in first.reason
    assert second.outcome is Outcome.COMPLETED

"""The SkyPilot recipe: its fields are known to SkyPilot's task format, and its ``run`` does what it promises.

No cloud is asked: what is tested is all that a machine does once SkyPilot has brought it up.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from tests.client_bench import World, world
from tests.conftest import ROOT
from tests.night_bench import TAG, make_project
from tests.test_documents import FENCE

from autoresearch.campaign.opened import open_ledger

__all__ = ["world"]  # a fixture

# Of SkyPilot 0.14, as far as a recipe for one machine may need them.
FIELDS = {"name", "workdir", "num_nodes", "resources", "envs", "secrets", "file_mounts", "setup", "run"}
OF_RESOURCES = {
    "infra", "accelerators", "cpus", "memory", "instance_type", "use_spot", "disk_size", "image_id", "autostop",
}  # fmt: skip
OF_AUTOSTOP = {"idle_minutes", "wait_for"}


@pytest.fixture
def task() -> dict[str, Any]:
    text = (ROOT / "references" / "several-agents-and-clusters.md").read_text(encoding="utf-8")
    section = text.partition("by SkyPilot\n")[2]
    block = next(block for _, language, block in FENCE.findall(section) if language == "yaml")
    parsed = yaml.safe_load(block)
    assert isinstance(parsed, dict)
    return parsed


def test_the_task_has_what_the_recipe_needs_and_nothing_that_skypilot_does_not_know(task: dict[str, Any]) -> None:
    assert task.keys() <= FIELDS
    assert task["resources"].keys() <= OF_RESOURCES
    assert task["resources"]["autostop"].keys() <= OF_AUTOSTOP
    assert re.fullmatch(r"[A-Z][\w-]*:\d+", task["resources"]["accelerators"])
    assert task["workdir"] == "."
    assert list(task["file_mounts"]) == ["~/autoresearch"]


@pytest.mark.parametrize("part", ["setup", "run"])
def test_its_shell_is_well_formed_and_stops_at_an_error(task: dict[str, Any], part: str) -> None:
    assert task[part].startswith("set -e\n")
    checked = subprocess.run(["bash", "-n", "-c", task[part]], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_its_run_lasts_as_long_as_the_night_and_leaves_the_kept_on_the_branch(
    task: dict[str, Any], world: World
) -> None:
    """On this machine in place of a cloud's; ``uv`` is a stand-in with the packages at hand, for want of an index."""
    project = make_project(world)
    (world.home / "autoresearch").symlink_to(ROOT)
    uv = world.home / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(f'#!/bin/sh\ntest "$1" = run && shift && exec {sys.executable} "$@"\n')
    uv.chmod(0o755)
    assert "--hours 8" in task["run"]
    assert "sleep 30" in task["run"]
    run = task["run"].replace("--hours 8", "--max-experiments 2").replace("sleep 30", "sleep 1")
    environment = world.environment(SKYPILOT_TASK_ID="sky-2026-11-24-1")
    done = subprocess.run(
        ["bash", "-c", run], cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=240,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    with open_ledger(project) as (_, ledger):
        assert len([each for each in ledger.experiments(TAG) if each.status]) >= 2
    fetch = ["git", "fetch", "-q", str(project), f"autoresearch/{TAG}"]
    here = world.folder / "here"
    subprocess.run(["git", "init", "-q", str(here)], env=os.environ, check=True)
    subprocess.run(fetch, cwd=here, check=True)
    world.assert_empty()

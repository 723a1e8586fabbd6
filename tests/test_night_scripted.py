"""A night without any client and key: the built-in loop over known parameters, in real tmux."""

from __future__ import annotations

import pytest
from tests.client_bench import World, world
from tests.night_bench import make_night, make_project
from tests.scripted_model import ScriptedModel

__all__ = ["world"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_the_scripted_agent_runs_to_its_end(world: World) -> None:
    with ScriptedModel() as model:
        night = make_night(world, model, {}, project=make_project(world))
        night.launch("--agent", "scripted", "--max-experiments", "3")
        night.until(lambda: night.status()["state"] == "ended")

        rows = night.rows()
        assert rows[0][-2:] == ["keep", "baseline"]
        assert len(rows) >= 3
        assert (night.folder / "summary.txt").exists()
        assert not model.requests
        world.assert_empty()

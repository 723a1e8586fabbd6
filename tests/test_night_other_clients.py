"""The night around Codex, Gemini CLI and opencode: started, given the task, told busy from ready, ended."""

from __future__ import annotations

import pytest
from tests.client_bench import OTHERS, World, find_client, world
from tests.night_bench import FIVE_IDEAS, FIVE_ROWS, make_night, make_project, profile
from tests.scripted_agent import Researcher
from tests.scripted_model import ScriptedModel, say

__all__ = ["world"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PACE = {"poll_s": 0.2, "settle_s": 1, "nudge_after_s": 3, "nudge_most_s": 3}
BUSY_S = 4.0
TASK = 'Say "ready" in `backticks`, then wait: $HOME, 自主研究 🧪\n\tand a tab.'


@pytest.mark.parametrize("client", OTHERS)
def test_a_night(world: World, client: str) -> None:
    """A turn that takes its time, an agent that stops and is nudged, baseline and five experiments, the end."""
    find_client(client)
    project = make_project(world)
    (world.folder / "task.txt").write_text(TASK, encoding="utf-8")
    with ScriptedModel(Researcher(project=project, ideas=FIVE_IDEAS, by_shell=True)) as model:
        model.add(say("Ready.", delay_s=BUSY_S))
        night = make_night(world, model, OTHERS[client](world, model), project=project)
        agent = profile(world, client, PACE)
        night.launch("--agent", str(agent), "--task", str(world.folder / "task.txt"))
        night.until_rows(len(FIVE_ROWS))
        ended = night.stop()

        assert model.asked[0].message == TASK
        assert model.asked[1].message.startswith("autoresearch")
        assert model.asked[1].at - model.asked[0].at >= BUSY_S, "it was nudged while it was busy"
        kinds = [kind for kind in night.kinds() if kind in ("busy", "ready", "nudge")]
        first = kinds.index("busy")  # some are seen ready before they take the task up
        assert kinds[first : first + 4] == ["busy", "ready", "nudge", "busy"]
        assert night.rows() == FIVE_ROWS
        assert ended["state"] == "ended"
        world.assert_empty()

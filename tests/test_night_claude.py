"""A night with the real Claude Code and a scripted model, from a home that it has never seen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tests.client_bench import World, certificate, claude_anew, find_client, world
from tests.night_bench import FIVE_IDEAS, FIVE_ROWS, TAG, make_night, make_project
from tests.scripted_agent import Researcher, script
from tests.scripted_model import ScriptedModel, Turn, run, say, use

__all__ = ["certificate", "world"]  # fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# All that a shell, YAML, JSON, tmux or a template could change.
GOAL = """\
-o "double", 'single', `backticks`, $HOME, $(date), \\n, {{ braces }}, {% raw %}, 100 %;
	a tab, trailing blanks:   
自主研究, naïve, 🧪, a no-break space:\u00a0, and a last line with a semicolon;"""  # noqa: W291

DIALOGS = ["theme", "api_key", "security_notes", "trust", "bypass"]


def forbidden(project: Path) -> list[Turn]:
    """What an agent under the allowlist is refused. Each would leave something called ``trace``, or a change."""
    status, prepare = script("status"), str(project / "prepare.py")
    commands = [
        "touch trace",
        f"{status}; touch trace",
        f"{status} && touch trace",
        f"{status} | tee trace",
        f"{status} > trace",
        f"{status} $(touch trace)",
        f"{status} `touch trace`",
        f"{status} & touch trace",
        f"{status}\ntouch trace",
        f"{status} --project <(touch trace)",
        "git reset --hard HEAD",
        script("setup_campaign", "--reconfigure", "--budget", "1"),
        'python3 -c \'open("trace", "w")\'',
    ]
    return [
        *map(run, commands),
        use("Write", file_path=str(project / "trace"), content=""),
        use("Write", file_path=str(project / ".claude" / "settings.json"), content="{}"),
        use("Read", file_path=prepare),  # allowed, and without it an edit is refused for another reason
        use("Edit", file_path=prepare, old_string="0.9979", new_string="0.1"),
    ]


def test_five_experiments_from_a_fresh_home(world: World, certificate: Path) -> None:
    find_client("claude")
    project = make_project(world)
    with ScriptedModel(Researcher(project=project, ideas=FIVE_IDEAS), certificate=certificate) as model:
        night = make_night(world, model, claude_anew(model, certificate), project=project)
        night.launch("--goal", GOAL)
        night.until_rows(len(FIVE_ROWS))
        ended = night.stop()

        assert night.rows() == FIVE_ROWS
        assert night.answered() == DIALOGS
        task = (night.folder / "task.md").read_bytes().decode("utf-8")
        assert GOAL in task
        assert model.asked[0].message == task
        assert ended["state"] == "ended"
        assert (night.folder / "summary.txt").exists()
        world.assert_empty()


def test_a_campaign_that_the_agent_has_set_up_with_its_user(world: World, certificate: Path) -> None:
    """The skill's own way: set up in the evening with a person, then alone, with a task in the user's own words."""
    claude = find_client("claude")
    project = make_project(world)
    (world.folder / "task.txt").write_text(GOAL, encoding="utf-8")
    with ScriptedModel(Researcher(project=project, ideas=FIVE_IDEAS), certificate=certificate) as model:
        set_up = [run(script("setup_campaign", "--dry-run")), run(script("setup_campaign", "--tag", TAG)), say("Done.")]
        model.add(*set_up)
        night = make_night(world, model, claude_anew(model, certificate), project=project)
        evening = [str(claude), "--print", "--dangerously-skip-permissions", "Set autoresearch up."]
        environment = world.environment(**night.environment, IS_SANDBOX="1")
        subprocess.run(evening, cwd=project, env=environment, check=True, stdin=subprocess.DEVNULL, timeout=120)
        assert f"Campaign {TAG} is set up" in model.asked[-1].result

        night.launch("--task", str(world.folder / "task.txt"))
        night.until_rows(len(FIVE_ROWS))
        night.stop()

        assert night.rows() == FIVE_ROWS
        assert model.asked[len(set_up)].message == GOAL
        world.assert_empty()


def test_the_allowlist_is_enough_for_the_loop_and_for_nothing_else(world: World, certificate: Path) -> None:
    find_client("claude")
    project = make_project(world)
    attempts = forbidden(project)
    prepare = (project / "prepare.py").read_text(encoding="utf-8")
    with ScriptedModel(Researcher(project=project, ideas=FIVE_IDEAS), certificate=certificate) as model:
        model.add(*attempts)
        night = make_night(world, model, claude_anew(model, certificate), project=project)
        night.launch("--permissions", "allowlist")
        night.until_rows(len(FIVE_ROWS))
        night.stop()

        assert night.rows() == FIVE_ROWS
        assert night.answered() == [name for name in DIALOGS if name != "bypass"]
        assert not {"unknown_dialog", "handover", "nudge"} & set(night.kinds())
        for attempt, request in zip(attempts, model.asked[1:], strict=False):
            is_read = attempt.calls[0].name == "Read"
            assert ("has been denied" in request.result) is not is_read, (attempt, request.result)
        assert not list(project.rglob("trace"))
        assert (project / "prepare.py").read_text(encoding="utf-8") == prepare
        world.assert_empty()

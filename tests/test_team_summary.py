"""One summary over all agents of a session: sums, the largest gain, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.ledger_builder import LedgerBuilder, make_repository

from autoresearch.ledger import Ledger
from autoresearch.report.team import TeamSummary, read_team
from autoresearch.report.team_text import render_team

SESSION = "night"


class Team:
    """Two campaigns of one session, without any agent: the second has the larger gain."""

    def __init__(self, project: Path, ledger: Ledger, commits: list[str]) -> None:
        self.project = project
        self.builders = [
            LedgerBuilder(ledger, commits, tag=f"{SESSION}-gpu{number}", project=project) for number in range(2)
        ]
        for builder in self.builders:
            builder.device = "NVIDIA H100"
            builder.campaign.setup = {"team": SESSION}
            ledger.update_campaign(builder.campaign, "setup")
        first, second = self.builders
        first.baseline([1.000, 1.002, 0.998])
        first.idea("a little better", [0.980, 0.982])
        first.crash("twice the width")
        second.baseline([1.001, 1.000, 0.999])
        second.idea("much better", [0.950, 0.951])
        second.idea("worse", [1.2])

    def read(self) -> TeamSummary:
        found = read_team(self.project, session=SESSION)
        assert found is not None
        return found[0]

    def claim(self, builder: LedgerBuilder, *, gain: float, low: float, high: float, against: str = "") -> None:
        """A comparison of the campaign's best with its baseline, or with another commit, on fresh seeds."""
        ledger, tag = builder.ledger, builder.tag
        baseline, best = ledger.baseline(tag, 1), ledger.incumbent(tag)
        assert baseline is not None
        assert best is not None
        builder.campaign.claim = {
            "a": "baseline", "b": "best", "arms": [against or baseline.commit, best.commit], "seeds": [1001],
            "word": "confirmed", "reason": "it is", "gain": gain, "gain_low": low, "gain_high": high,
        }  # fmt: skip
        ledger.update_campaign(builder.campaign, "claim")


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    project = tmp_path / "project"
    commits = make_repository(project, commits=6)
    with Ledger(project / ".git" / "autoresearch", create=True) as ledger:
        yield Team(project, ledger, commits)


def test_all_agents_are_in_it_and_no_other_campaign(team: Team) -> None:
    LedgerBuilder(team.builders[0].ledger, team.builders[0].commits, tag="alone", project=team.project)
    found = team.read()
    assert [agent.tag for agent in found.agents] == ["night-gpu0", "night-gpu1"]
    assert [(agent.experiments, agent.kept, agent.crashed) for agent in found.agents] == [(3, 1, 1), (3, 1, 0)]
    assert (found.experiments, found.kept, found.trials) == (6, 2, 12)
    assert found.gpu_s == found.trial_s == 12 * 300
    assert found.elapsed_s == 6 * 300, "they worked side by side"


def test_the_largest_gain_is_told_as_a_selection(team: Team) -> None:
    found = team.read()
    assert found.leader is not None
    assert found.leader.tag == "night-gpu1"
    text = render_team(found, width=200, colour=False)
    assert "since it is the best of 2, luck is in it" in text
    assert "compare.py baseline best --tag night-gpu1 --seeds 6" in text
    assert f"compare.py {found.agents[0].best_commit[:10]} best --tag night-gpu1 --seeds 6" in text


def test_fresh_seeds_replace_what_the_rule_believes(team: Team) -> None:
    believed = team.read().agents[1]
    team.claim(team.builders[1], gain=0.01, low=0.004, high=0.016)
    found = team.read()
    assert (found.agents[1].gain, found.agents[1].low, found.agents[1].high) == (0.01, 0.004, 0.016)
    assert not believed.fresh
    assert found.agents[1].fresh
    assert found.leader is not None
    assert found.leader.tag == "night-gpu0", "its gain is the larger one now"
    assert "+0.004 to +0.016, fresh seeds" in render_team(found, width=120, colour=False)


def test_a_comparison_with_anything_else_than_the_baseline_is_no_gain(team: Team) -> None:
    believed = team.read().agents[1]
    team.claim(team.builders[1], gain=0.5, low=0.4, high=0.6, against="f" * 40)
    assert team.read().agents[1] == believed


def test_another_yardstick_is_not_compared(team: Team) -> None:
    builder = team.builders[1]
    builder.campaign.config["budget_s"] = 600.0
    builder.ledger.update_campaign(builder.campaign, "config")
    found = team.read()
    assert found.leader is not None
    assert found.leader.tag == "night-gpu0"
    assert "night-gpu1 (measured otherwise)" in render_team(found, width=120, colour=False)


def test_the_script_tells_of_all_or_of_one(team: Team, run_script: RunScript) -> None:
    def call(*arguments: str, expect: int = 0) -> dict:
        done = run_script("summarize", *arguments, "--json", cwd=team.project)
        assert done.returncode == expect, done.stderr
        answer = json.loads(done.stdout)
        return answer["data"] if expect == 0 else answer["error"]

    assert [each["tag"] for each in call()["campaigns"]] == ["night-gpu0", "night-gpu1"]
    assert call("--session", SESSION)["team"]["experiments"] == 6
    assert call("--tag", "night-gpu0")["tag"] == "night-gpu0"
    assert "team" not in call("--all-tags")
    assert call("--chart")["tag"] == "night-gpu1", "a chart is of one campaign"
    assert "--chart is about one campaign" in call("--session", SESSION, "--chart", expect=2)["message"]
    assert "No session 'day'" in call("--session", "day", expect=3)["message"]

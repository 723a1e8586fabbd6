"""A campaign written through the real ledger and the real keep rule, without running any training.

The clock is the builder's own: a trial lasts ``trial_s`` seconds and an experiment starts when the one
before it was decided, or later if ``at`` lets time pass. ``make_repository`` gives the commits that the rows point at.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean
from typing import Any

from autoresearch.config import Config
from autoresearch.ledger import Campaign, Experiment, Ledger, Purpose, State, Status, Trial
from autoresearch.trial import Outcome, TrialResult
from autoresearch.verdict import KeepRule, RuleSettings

START = datetime(2026, 4, 5, 21, 0, tzinfo=UTC)
PEAK_MEM_MIB = 45056.0


class LedgerBuilder:
    """Adds experiments to one campaign; each method returns the record as the ledger has it."""

    def __init__(
        self,
        ledger: Ledger,
        commits: Sequence[str],
        *,
        tag: str = "apr5",
        project: Path = Path("/project"),
        metric: str = "val_bpb",
        direction: str = "lower",
        trial_s: float = 300.0,
        curve_points: int = 0,
    ) -> None:
        self.ledger, self.commits, self.tag = ledger, commits, tag
        self.trial_s = trial_s
        self.device = "cpu"  # of the trials to come
        self.curve = tuple((at / curve_points, 3.0 - at / curve_points) for at in range(curve_points))
        self.peak_mem_mib = PEAK_MEM_MIB
        self.watched: dict[str, float] = {}
        self.clock = START
        self.settings = RuleSettings(direction=direction)
        self.rule: KeepRule | None = None
        config = Config.from_dict({"command": "python train.py", "metric": {"name": metric, "direction": direction}})
        self.campaign = Campaign(
            tag=tag, branch=f"autoresearch/{tag}", base_commit=commits[0], project=str(project),
            created_at=self.at(), config=config.to_dict(),
        )  # fmt: skip
        ledger.add_campaign(self.campaign)

    # ---- experiments

    def baseline(self, values: Sequence[float], *, description: str = "baseline") -> Experiment:
        """The unmodified code, kept, at seeds 1, 2, …; the keep rule starts on it."""
        runs = dict(enumerate(values, start=1))
        experiment = self._new(description, incumbent=None, commit=self.commits[0], family="baseline")
        for seed, value in runs.items():
            self.trial(experiment, seed, Purpose.BASELINE, metric=value)
        self.rule = KeepRule.start(runs, self.settings)
        return self._decide(experiment, Status.KEEP, runs, judgement={"decision": "keep"})

    def idea(
        self,
        description: str,
        values: Sequence[float],
        *,
        family: str = "",
        status: Status | None = None,
        lines: tuple[int, int] = (1, 1),
    ) -> Experiment:
        """A candidate at the seeds that the rule asks for, decided as the rule says or as ``status``."""
        assert self.rule is not None
        experiment = self.open(description, family=family, lines=lines)
        runs = {self.rule.next_seed(done): value for done, value in enumerate(values)}
        for done, (seed, value) in enumerate(runs.items()):
            self.trial(experiment, seed, Purpose.CONFIRM if done else Purpose.SCREEN, metric=value)
        judgement = self.rule.judge(runs, last=True)
        status = status or Status(judgement.decision)
        evidence = {
            **dataclasses.asdict(judgement),
            "runs": {str(seed): value for seed, value in runs.items()},
        }
        experiment.verdict, experiment.reason = judgement.verdict, judgement.reason
        earlier = self.ledger.incumbent(self.tag)
        undone = self.rule.close(runs, kept=status is Status.KEEP)
        decided = self._decide(experiment, status, runs, judgement=evidence)
        if undone and earlier is not None:
            self.undo(earlier.number, f"experiments after it showed no gain, as of experiment {experiment.number}")
        return decided

    def crash(
        self,
        description: str,
        outcome: Outcome = Outcome.CRASHED,
        cause: str = "exit",
        *,
        family: str = "",
        seed: int = 1,
    ) -> Experiment:
        """A candidate whose only trial failed."""
        experiment = self.open(description, family=family)
        self.trial(experiment, seed, Purpose.SCREEN, outcome=outcome, cause=cause)
        experiment.verdict, experiment.reason = "failed", f"seed {seed} {outcome}: {cause}"
        return self._decide(experiment, Status.CRASH, {}, judgement={"decision": "crash"})

    def open(self, description: str, *, family: str = "", lines: tuple[int, int] = (1, 1)) -> Experiment:
        """A candidate that is not decided yet, without trials."""
        number = self.ledger.next_number(self.tag)
        experiment = self._new(
            description,
            incumbent=self.ledger.incumbent(self.tag),
            commit=self.commits[number % len(self.commits)],
            family=family,
        )
        experiment.lines_added, experiment.lines_deleted = lines
        self.ledger.update_experiment(experiment, "lines_added", "lines_deleted")
        return experiment

    def trial(
        self,
        experiment: Experiment,
        seed: int,
        purpose: Purpose = Purpose.SCREEN,
        *,
        metric: float | None = None,
        outcome: Outcome | None = None,
        cause: str = "",
    ) -> Trial:
        """One trial of ``experiment``: completed with ``metric``, ended with ``outcome``, else running."""
        taken = {trial.id for trial in self.ledger.trials(self.tag, experiment.number)}
        stem = f"{self.tag}.{experiment.number}.{experiment.attempt}.seed{seed}"
        trial = Trial(
            id=stem if stem not in taken else f"{stem}.{len(taken) + 1}",
            tag=self.tag,
            number=experiment.number,
            attempt=experiment.attempt,
            seed=seed,
            purpose=purpose,
            commit=experiment.commit,
            command="python train.py",
            directory="/nowhere",
            created_at=self.at(),
        )
        self.ledger.add_trial(trial)
        if outcome is None and metric is not None:
            outcome = Outcome.COMPLETED
        if outcome is not None:
            started, ended = self.at(), self.at(self.trial_s)
            result = TrialResult(
                trial_id=trial.id,
                outcome=outcome,
                cause=cause,
                reason=cause,
                metric=metric,
                duration_s=self.trial_s,
                started_at=started,
                ended_at=ended,
                peak_mem_mib=self.peak_mem_mib,
                watched=self.watched,
                curve=self.curve,
                device=self.device,
            )
            self.ledger.end_trial(trial, result)
        return trial

    def retest(self, value: float) -> Trial:
        """One more run of the incumbent at a seed of its own, booked by the rule."""
        incumbent = self.ledger.incumbent(self.tag)
        assert self.rule is not None
        assert incumbent is not None
        trial = self.trial(incumbent, self.rule.retest_seed(), Purpose.RETEST, metric=value)
        if self.rule.add_incumbent_run(value):
            self.undo(incumbent.number, "its re-test showed no gain")
        self._store_rule()
        return trial

    def undo(self, number: int, why: str) -> None:
        """Take a keep back."""
        experiment = self.ledger.experiment(self.tag, number)
        assert experiment is not None
        experiment.status, experiment.undone = Status.DISCARD, why
        self.ledger.update_experiment(experiment, "status", "undone")

    def new_epoch(self) -> None:
        """As after a change of the config: the next experiment is a new baseline."""
        self.campaign.epoch += 1
        self.campaign.rule = self.rule = None
        self.ledger.update_campaign(self.campaign, "epoch", "rule")

    # ---- steps

    def at(self, later_s: float = 0.0) -> str:
        """The time on the builder's clock, which first goes ``later_s`` seconds on."""
        self.clock += timedelta(seconds=later_s)
        return self.clock.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def _new(self, description: str, *, incumbent: Experiment | None, commit: str, family: str) -> Experiment:
        number = self.ledger.next_number(self.tag)
        experiment = Experiment(
            tag=self.tag,
            number=number,
            epoch=self.campaign.epoch,
            description=description,
            commit=commit,
            parent=self.campaign.base_commit if incumbent is None else incumbent.commit,
            tree=f"{number:040x}",
            incumbent=None if incumbent is None else incumbent.number,
            family=family,
            created_at=self.at(),
        )
        self.ledger.add_experiment(experiment)
        return experiment

    def _decide(
        self, experiment: Experiment, status: Status, runs: Mapping[int, float], *, judgement: dict[str, Any]
    ) -> Experiment:
        experiment.status, experiment.state, experiment.decided_at = status, State.DECIDED, self.at()
        experiment.judgement = judgement
        experiment.metric = fmean(runs.values()) if runs else None
        experiment.peak_mem_mib = self.peak_mem_mib if runs else None
        experiment.rule = None if self.rule is None else self.rule.to_json()
        changed = (
            "status",
            "state",
            "decided_at",
            "judgement",
            "metric",
            "peak_mem_mib",
            "rule",
            "verdict",
            "reason",
        )
        self.ledger.update_experiment(experiment, *changed)
        self._store_rule()
        return experiment

    def _store_rule(self) -> None:
        if self.rule is not None:
            self.campaign.rule = self.rule.to_json()
            self.ledger.update_campaign(self.campaign, "rule")


def make_repository(folder: Path, *, commits: int = 5) -> list[str]:
    """A repository with ``train.py`` on branch ``main``; returns its commits, the oldest first."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {f"GIT_{role}_{what}": "tester" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    def git(*arguments: str) -> str:
        command = ["git", "-c", "init.defaultBranch=main", "-c", "gc.auto=0", *arguments]
        done = subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, **identity}
        )
        return done.stdout.strip()

    git("init", "--quiet")
    shas = []
    for number in range(commits):
        (folder / "train.py").write_text(f"print('val_bpb:', 1.0 - {number} / 100)\n", encoding="utf-8")
        git("add", "train.py")
        git("commit", "--quiet", "--message", f"experiment: idea {number}")
        shas.append(git("rev-parse", "HEAD"))
    return shas

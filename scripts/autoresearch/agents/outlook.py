"""What the ledger says of a campaign while an agent works on it: a look without a lock, and a push forward."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.campaign.opened import open_campaign, open_ledger
from autoresearch.campaign.rebase import awaited
from autoresearch.config import Config
from autoresearch.errors import AutoresearchError, NoCampaignError
from autoresearch.executors import Executor, State, executor_for
from autoresearch.ledger import Experiment, Trial
from autoresearch.ledger import State as ExperimentState
from autoresearch.trial import RESULT_FILE


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """One look. ``rows`` grows with every experiment begun or decided and every trial ended: it is progress."""

    exists: bool = False  # the campaign is set up
    decided: int = 0
    kept: int = 0
    rows: int = 0
    trial_runs: bool = False
    waits_for_us: bool = False  # a trial has ended, or its runner died, and nobody has taken the result in
    trial_s: float = 0.0  # seconds of all ended trials


def look_at(project: Path, tag: str) -> Outlook:
    """Read the ledger. A campaign that is not there is an empty look."""
    try:
        with open_ledger(project) as (_, ledger):
            campaign = ledger.campaign(tag)
            if campaign is None:
                return Outlook()
            with ledger.snapshot() as select:
                (begun, decided, kept), = select(
                    "SELECT COUNT(*), COALESCE(SUM(status IS NOT NULL), 0), COALESCE(SUM(status = 'keep'), 0) "
                    "FROM experiment WHERE tag = ?", tag,
                )  # fmt: skip
                (ended, trial_s), = select(
                    "SELECT COALESCE(SUM(outcome IS NOT NULL), 0), COALESCE(SUM(duration_s), 0) "
                    "FROM trial WHERE tag = ?", tag,
                )  # fmt: skip
            open_trials = ledger.open_trials(tag)
            opened = ledger.open_experiments(tag)
    except (NoCampaignError, OSError):
        return Outlook()
    executor = executor_for(Config.from_dict(campaign.config, source=f"the config of campaign {tag}").executor)
    running = under_way(executor, open_trials)
    return Outlook(
        exists=True, decided=decided, kept=kept, rows=begun + decided + ended,
        trial_runs=bool(running), trial_s=trial_s,
        waits_for_us=not running and (bool(open_trials) or any(needs_a_trial(each, opened) for each in opened)),
    )  # fmt: skip


def needs_a_trial(experiment: Experiment, opened: Sequence[Experiment]) -> bool:
    """Whether it goes on without the agent: neither judged, nor built on one that has to be logged first."""
    return experiment.state is ExperimentState.RUNNING and awaited(experiment, opened) is None


def under_way(executor: Executor, trials: Sequence[Trial]) -> list[Trial]:
    """Those of ``trials`` that have no result yet and that their engine knows."""
    without = [trial for trial in trials if trial.handle and not (Path(trial.directory) / RESULT_FILE).exists()]
    states = executor.poll([trial.handle for trial in without])
    return [trial for trial in without if states[trial.id] is not State.GONE]


def tend(project: Path, tag: str) -> str:
    """Take an ended trial in and start the next one that its experiment needs, as ``status.py`` does.

    So the device works on while the agent waits for its limit. Returns the text of the next step, ""
    while another command is at work on the campaign.
    """
    from autoresearch.campaign.progress import bring_forward
    from autoresearch.campaign.status import status

    with contextlib.suppress(AutoresearchError), open_campaign(project, tag, wait_s=1.0) as oc:
        step = status(oc, bring_forward(oc), history=0).next
        return f"{step.text}: {step.command}" if step.command else step.text
    return ""

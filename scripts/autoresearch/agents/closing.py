"""The end of a night: the client goes, the trial ends, the verdict is logged, the summary written."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoresearch.agents.client import Client
from autoresearch.agents.morning import Report
from autoresearch.agents.night import Night, NightFolder
from autoresearch.agents.outlook import look_at
from autoresearch.agents.policy import Pace
from autoresearch.errors import AutoresearchError, NoCampaignError

POLL_S = 0.5


def log_traceback(log: Path) -> None:
    """Append the exception that is handled; on a full disk that cannot be done, and must not be one more."""
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
        traceback.print_exc(file=file)


@dataclass(frozen=True)
class Closing:
    """One night's closing. Each step is tried, whatever became of the one before."""

    folder: NightFolder
    night: Night
    client: Client
    pace: Pace
    report: Report

    def close(self, *, at_once: bool) -> list[str]:
        """Afterwards nothing of the night runs. ``at_once`` ends the running trial, else it is waited for.

        Returns what could not be done, and why.
        """
        steps = [lambda: self.client.leave(self.pace.stop_patience_s), self.decide, self.write_summary]
        if not at_once:
            steps.insert(1, self.wait_for_trial)
        return list(dict.fromkeys(trouble for step in steps if (trouble := self._try(step))))

    def _try(self, step: Callable[[], None]) -> str:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - the other steps are still to be done
            if not isinstance(error, AutoresearchError | OSError | sqlite3.Error):
                log_traceback(self.folder.log)
            self.folder.tell("error", trouble := f"at the end: {error}")
            return trouble
        return ""

    @property
    def project(self) -> Path:
        return Path(self.night.options.project)

    def wait_for_trial(self) -> None:
        """Until the running trial has ended, or the user says ``--stop --now``."""
        tag = self.night.options.tag
        if look_at(self.project, tag).trial_runs:
            self.folder.tell("stop", "waits for the running trial; --stop --now ends it")
        while look_at(self.project, tag).trial_runs:
            if any(wish.get("now") for wish in self.folder.take()):
                return
            time.sleep(POLL_S)

    def decide(self) -> None:
        """Take the last results in and log the open experiments whose verdict stands; start nothing."""
        from autoresearch.campaign.decide import log_result, next_to_log
        from autoresearch.campaign.opened import open_campaign
        from autoresearch.campaign.progress import bring_forward, refresh
        from autoresearch.campaign.trials import cancel_trials

        with contextlib.suppress(NoCampaignError), open_campaign(self.project, self.night.options.tag) as oc:
            cancel_trials(oc)
            while (experiment := next_to_log(bring_forward(oc, start=False).opened)) is not None:
                note = experiment.note or "logged at the end of the night"
                decided = log_result(oc, "auto", note=note, retest=False).experiment
                refresh(oc)
                self.folder.tell("stop", f"experiment {decided.number} is logged: {decided.status}")
            for experiment in oc.ledger.open_experiments(oc.tag):
                self.folder.tell("stop", f"experiment {experiment.number} is open; status.py goes on with it")

    def write_summary(self) -> None:
        """What the human reads in the morning."""
        with contextlib.suppress(NoCampaignError):
            self.report.finish()

"""What is exported of a campaign: its experiments and trials as of one moment, and what is the same for all targets."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from autoresearch.campaign.opened import find_campaign, open_ledger
from autoresearch.ledger import Campaign, Experiment, Ledger, Trial
from autoresearch.output import one_line

CURVE_STEPS = 1000  # a curve's step is the fraction of the run in thousandths: trackers want whole numbers


@dataclass(frozen=True, kw_only=True)
class Extract:
    """One campaign. Trials of an experiment are in the order they were started, all attempts and purposes."""

    campaign: Campaign
    experiments: Sequence[Experiment]
    trials: Mapping[int, Sequence[Trial]]  # by experiment number

    @property
    def name(self) -> str:
        """How a tracker calls the campaign: two projects may have the same tag."""
        return f"{Path(self.campaign.project).name}/{self.campaign.tag}"

    @property
    def metric(self) -> str:
        return str(self.campaign.config["metric"]["name"])

    def key(self, experiment: Experiment) -> str:
        """What identifies the experiment among all campaigns ever exported to the same place."""
        campaign = self.campaign
        text = f"{campaign.project}\n{campaign.tag}\n{campaign.created_at}\n{experiment.number}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def title(self, experiment: Experiment) -> str:
        return one_line(f"#{experiment.number} {experiment.description}", 120)

    def curves(self, experiment: Experiment) -> dict[str, list[tuple[int, float]]]:
        """The training loss of each trial that has one: ``{"seed1": [(step, loss), …]}``."""
        curves: dict[str, list[tuple[int, float]]] = {}
        for trial in self.trials[experiment.number]:
            if trial.result is None or not trial.result.curve:
                continue
            name, repeat = f"seed{trial.seed}", 1
            while name in curves:  # a second attempt, a re-test
                repeat += 1
                name = f"seed{trial.seed}.{repeat}"
            curves[name] = [(round(CURVE_STEPS * at), loss) for at, loss in trial.result.curve]
        return curves

    def figures(self, experiment: Experiment) -> dict[str, float]:
        """The numbers that are known of an experiment as a whole, by name."""
        trials = [trial.result for trial in self.trials[experiment.number] if trial.result is not None]
        known: dict[str, float | None] = {
            self.metric: experiment.metric,
            **{name: _number(experiment.judgement.get(name)) for name in ("gain", "gain_low", "gain_high", "z")},
            "peak_mem_mib": experiment.peak_mem_mib,
            "trials": len(self.trials[experiment.number]),
            "duration_s": sum(result.duration_s for result in trials),
            "lines_added": experiment.lines_added,
            "lines_deleted": experiment.lines_deleted,
        }
        return {name: value for name, value in known.items() if value is not None}

    def settings(self, experiment: Experiment) -> dict[str, str]:
        """What was chosen for the experiment beside its code, by name."""
        given = {**(experiment.options.get("arguments") or {}), **(experiment.options.get("environment") or {})}
        return {"family": experiment.family, **{str(name): str(value) for name, value in given.items()}}

    def labels(self, experiment: Experiment) -> dict[str, str]:
        """What became of the experiment, in words."""
        return {
            "tag": experiment.tag,
            "number": str(experiment.number),
            "epoch": str(experiment.epoch),
            "commit": experiment.commit,
            "status": experiment.status or "open",
            "verdict": experiment.verdict,
            "reason": experiment.reason,
            "note": experiment.note,
            "undone": experiment.undone,
        }


def read_extracts(project: Path, *, tag: str | None, all_tags: bool) -> list[Extract]:
    """One campaign, found as every command finds it, or all of the repository. Takes no lock."""
    with open_ledger(project) as (repo, ledger):
        found = find_campaign(repo, ledger, tag)
        return [_extract(ledger, campaign) for campaign in (ledger.campaigns() if all_tags else [found])]


def _extract(ledger: Ledger, campaign: Campaign) -> Extract:
    with ledger.snapshot():
        experiments = ledger.experiments(campaign.tag)
        trials: dict[int, list[Trial]] = defaultdict(list)
        for trial in ledger.trials(campaign.tag):
            trials[trial.number].append(trial)
    return Extract(campaign=campaign, experiments=experiments, trials=trials)


def digest_of(content: Any) -> str:
    """By which a second export knows what it has written already."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def timestamp(at: str) -> float | None:
    """Seconds since 1970 of a time in the ledger; None for none."""
    return datetime.fromisoformat(at).timestamp() if at else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None

"""A running campaign at a glance: what its ledger, its trial's files and the device say right now.

Everything is read without the campaign's lock. Only where a trial has ended and no other command has
taken its result in does ``Observer`` do that itself, as ``status.py`` would.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from autoresearch.campaign.judging import measured
from autoresearch.campaign.opened import find_campaign, open_campaign, open_ledger
from autoresearch.campaign.progress import bring_forward
from autoresearch.campaign.under_way import describe_trials, standing
from autoresearch.errors import AutoresearchError
from autoresearch.ledger import Campaign, Experiment, Ledger, State, Trial
from autoresearch.report.device_use import DeviceUse
from autoresearch.report.open_text import OpenRow, open_rows
from autoresearch.runner.watch import Watch
from autoresearch.trial import LIVE_FILE, LOG_FILE, SPEC_FILE, TrialSpec

DECISIONS = 40  # more than any screen has lines for
LIKE_TRIALS = 5  # completed ones, by whose median length the time left is estimated
PATIENCE_S = 4.0  # how long a result may lie there before we take it in
SILENCE_S = 30.0  # after which a runner that writes live.json every second is taken for dead
READ_BYTES = 2**16  # of a log at once
CATCH_UP_BYTES = 2**19  # of a log that was long before we came


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One experiment as a line."""

    number: int
    status: str  # keep | discard | crash
    metric: float | None
    gain: float | None
    description: str


@dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial under way. ``left_s`` is an estimate, ``losses`` the training losses so far, thinned."""

    number: int
    seed: int
    purpose: str
    elapsed_s: float
    budget_s: float
    fraction: float
    left_s: float | None
    loss: float | None
    losses: tuple[float, ...]
    ended: bool  # its result waits to be taken in
    waits_for: str = ""  # what keeps it from starting; "" once it has


@dataclass(frozen=True, kw_only=True)
class Glance:
    """A campaign at one moment; None and empty where there is nothing yet."""

    tag: str
    metric: str
    direction: str
    counts: dict[str, int]
    misses_in_a_row: int
    baseline: float | None
    best: int | None  # the incumbent's number
    level: float | None
    se: float | None
    gain: float | None
    experiment: str  # the open one: "experiment 12: the idea"
    state: str  # of it: running | judged | failed; "" while the agent thinks
    verdict: str
    idle_s: float | None  # since the last decision
    running: RunningTrial | None  # the trial that was started first
    opened: tuple[OpenRow, ...]  # all that is open and runs, where that is more than one; () else
    devices: tuple[tuple[int, str], ...]  # an experiment that has a trial, and a device that this one uses
    decisions: tuple[Decision, ...]  # the last one first
    told: str  # what we did or could not do


class Observer:
    """Looks at a campaign again and again; remembers which one, and what its trial has printed."""

    def __init__(self, project: Path, tag: str | None) -> None:
        self._project, self._tag = project, tag
        self._trace: LossTrace | None = None
        self._devices: dict[Path, DeviceUse] = {}  # of the trials under way, by their folders
        self._is_stuck = False  # whether some trial waits to be taken in
        self._waiting_since: float | None = None  # for somebody to bring the campaign forward
        self._known_baseline: tuple[int, float | None] = (0, None)
        self._told = ""

    def look(self) -> Glance | str:
        """The campaign as it is; a sentence where there is none, which may be so only for now."""
        try:
            glance = self._read()
            if self._is_due(glance):
                self._bring_forward()
                glance = self._read()
        except AutoresearchError as error:
            return error.message
        except (OSError, sqlite3.Error) as error:  # the project is being moved or deleted under our eyes
            return f"The campaign cannot be read: {error}."
        return glance

    def _read(self) -> Glance:
        with open_ledger(self._project) as (repo, ledger):
            campaign = find_campaign(repo, ledger, self._tag)
            self._tag = campaign.tag  # from now on this one, whichever branch is checked out
            with ledger.snapshot() as select:
                return self._glance(ledger, ledger.campaign(campaign.tag) or campaign, select)

    def _glance(self, ledger: Ledger, campaign: Campaign, select: Any) -> Glance:
        tag, config = campaign.tag, campaign.config
        trials, opened = ledger.open_trials(tag), ledger.open_experiments(tag)
        running = next(iter(trials), None)
        several = len(opened) > 1 or len(trials) > 1
        described = describe_trials(ledger, tag, opened, trials, config["budget_s"])
        self._is_stuck = any(map(_is_stuck, described))
        best = ledger.incumbent(tag)
        last = ledger.experiments(tag, last=DECISIONS)
        experiment = _shown_of(opened, running)
        level, se, gain = _belief(campaign)
        return Glance(
            tag=tag,
            metric=config["metric"]["name"],
            direction=config["metric"]["direction"],
            counts=ledger.counts(tag),
            misses_in_a_row=ledger.misses_in_a_row(tag),
            baseline=self._baseline(ledger, campaign),
            best=None if best is None or best.epoch != campaign.epoch else best.number,
            level=level,
            se=se,
            gain=gain,
            experiment="" if experiment is None else f"experiment {experiment.number}: {experiment.description}",
            state=_state(experiment),
            verdict="" if experiment is None else experiment.verdict,
            idle_s=_idle_s(last),
            running=None if running is None else self._running(running, described[0], _usual_s(select, tag)),
            opened=_open_rows(ledger, opened, trials, described) if several else (),
            devices=self._device_use(trials),
            decisions=tuple(_decision(each) for each in reversed(last) if each.status is not None),
            told=self._told,
        )

    def _baseline(self, ledger: Ledger, campaign: Campaign) -> float | None:
        """The metric of the epoch's baseline; looked for once, since that takes a scan of the ledger."""
        if self._known_baseline[0] != campaign.epoch or self._known_baseline[1] is None:
            found = ledger.baseline(campaign.tag, campaign.epoch)
            self._known_baseline = (campaign.epoch, None if found is None else found.metric)
        return self._known_baseline[1]

    def _running(self, trial: Trial, described: Mapping[str, Any], usual_s: float | None) -> RunningTrial:
        directory = Path(trial.directory)
        if self._trace is None or self._trace.directory != directory:
            self._trace = LossTrace(directory)
        elapsed_s, budget_s = float(described["elapsed_s"]), float(described["budget_s"])
        fraction = described["fraction"] if described["fraction"] is not None else min(elapsed_s / budget_s, 1.0)
        return RunningTrial(
            number=trial.number,
            seed=trial.seed,
            purpose=trial.purpose.value,
            elapsed_s=elapsed_s,
            budget_s=budget_s,
            fraction=fraction,
            left_s=_left_s(elapsed_s, fraction, usual_s),
            loss=described["loss"],
            losses=self._trace.read(elapsed_s),
            ended=described["ended"],
            waits_for=described["waits_for"],
        )

    def _device_use(self, trials: Sequence[Trial]) -> tuple[tuple[int, str], ...]:
        folders = [Path(trial.directory) for trial in trials]
        self._devices = {folder: self._devices.get(folder) or DeviceUse(folder) for folder in folders}
        used = ((trial.number, self._devices[folder].read()) for trial, folder in zip(trials, folders, strict=True))
        return tuple((number, text) for number, texts in used for text in texts)

    # ---- bringing the campaign forward

    def _is_due(self, glance: Glance) -> bool:
        """Whether something has waited long enough for a command of the loop that does not come."""
        if not self._is_stuck and not (glance.state == State.RUNNING and glance.running is None):
            self._waiting_since = None
            return False
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= PATIENCE_S

    def _bring_forward(self) -> None:
        """As ``status.py`` does, but without waiting where another command is at work."""
        self._waiting_since = None
        try:
            with open_campaign(self._project, self._tag, wait_s=0) as oc:
                self._told = "; ".join(bring_forward(oc).repaired)
        except AutoresearchError as error:
            self._told = "" if error.code == "locked" else error.message


class LossTrace:
    """The training losses that a trial has printed, read from its log bit by bit while it grows."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._watch: Watch | None = None
        self._at = -1  # how far the log has been read; -1: not at all

    def read(self, elapsed_s: float) -> tuple[float, ...]:
        """The losses so far, oldest first, thinned evenly; () while there are none."""
        try:
            if self._watch is None:
                self._watch = Watch(TrialSpec.read(self.directory / SPEC_FILE))
            self._catch_up(self._watch, elapsed_s)
        except (OSError, ValueError, KeyError, TypeError):  # not written yet, or deleted meanwhile
            return ()
        return tuple(loss for _, loss in self._watch.curve)

    def _catch_up(self, watch: Watch, elapsed_s: float) -> None:
        with (self.directory / LOG_FILE).open("rb") as log:
            size = log.seek(0, 2)
            if self._at < 0 or size < self._at:  # the runner has cut the middle out of a log that grew too long
                self._at = max(size - CATCH_UP_BYTES, 0)
            log.seek(self._at)
            for _ in range(CATCH_UP_BYTES // READ_BYTES):
                if not (text := log.read(READ_BYTES)):
                    break
                watch.feed(text, elapsed_s)
            self._at = log.tell()


# ---- pieces


def _is_stuck(trial: Mapping[str, Any]) -> bool:
    """Whether it has ended, or its runner seems to be dead, and nobody has noticed."""
    return trial["ended"] or ((trial["waits_for"] or trial["elapsed_s"] > SILENCE_S) and _is_silent(trial["log"]))


def _is_silent(log: str) -> bool:
    try:
        return time.time() - Path(log).with_name(LIVE_FILE).stat().st_mtime > SILENCE_S
    except OSError:
        return True


def _open_rows(
    ledger: Ledger, opened: Sequence[Experiment], trials: Sequence[Trial], described: Sequence[Mapping[str, Any]]
) -> tuple[OpenRow, ...]:
    shown = [
        {**vars(each), "standing": standing(each, opened, trials), "seeds": measured(ledger, each)} for each in opened
    ]
    return tuple(open_rows(shown, described))


def _shown_of(opened: Sequence[Experiment], running: Trial | None) -> Experiment | None:
    """Of the open experiments the one whose trial runs, else the first."""
    mine = (each for each in opened if running is not None and each.number == running.number)
    return next(mine, next(iter(opened), None))


def _state(experiment: Experiment | None) -> str:
    if experiment is None:
        return ""
    return "failed" if experiment.verdict == "failed" else experiment.state.value


def _belief(campaign: Campaign) -> tuple[float | None, float | None, float | None]:
    """What the keep rule believes: the incumbent's level, its standard error, its gain over the baseline."""
    if campaign.rule is None:
        return None, None, None
    from autoresearch.verdict import KeepRule

    rule = KeepRule.from_json(campaign.rule)
    return rule.incumbent_level, rule.incumbent_se, rule.credited_gain


def _decision(experiment: Experiment) -> Decision:
    return Decision(
        number=experiment.number,
        status=str(experiment.status),
        metric=experiment.metric,
        gain=experiment.judgement.get("gain"),
        description=experiment.shown_description,
    )


def _idle_s(experiments: Sequence[Experiment]) -> float | None:
    decided = [each.decided_at for each in experiments if each.decided_at]
    return time.time() - datetime.fromisoformat(max(decided)).timestamp() if decided else None


def _usual_s(select: Any, tag: str) -> float | None:
    """How long the last completed trials took: start-up and evaluation included, which no progress line tells."""
    rows = select(
        "SELECT duration_s FROM trial WHERE tag = ? AND outcome = 'completed' ORDER BY number DESC LIMIT ?",
        tag,
        LIKE_TRIALS,
    )
    return median(row["duration_s"] for row in rows) if rows else None


def _left_s(elapsed_s: float, fraction: float, usual_s: float | None) -> float | None:
    """The seconds left, as other trials took them, else in proportion; None while nothing can be said."""
    if usual_s is not None and elapsed_s < usual_s:
        return usual_s - elapsed_s
    if 0.02 < fraction < 1:
        return elapsed_s * (1 - fraction) / fraction
    return None

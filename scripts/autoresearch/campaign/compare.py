"""Compare two commits on fresh seeds: the only place where a claim is made.

The trials of the loop chose the winner, so they cannot also prove it. Here both commits run anew, at
the same seeds that the loop has never used. A comparison that was killed goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autoresearch.campaign.judging import MAX_INTERRUPTIONS
from autoresearch.campaign.notices import tell_claim
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.progress import LIVENESS_S, POLL_S, bring_forward, collect
from autoresearch.campaign.run import check_head
from autoresearch.campaign.trials import end_trials, launch_trial, own_settings
from autoresearch.errors import NoCampaignError, RefusedError, StillRunningError, UsageError
from autoresearch.guard import may_edit
from autoresearch.ledger import Experiment, Purpose, Status, Trial
from autoresearch.merge import merge_texts
from autoresearch.output import one_line
from autoresearch.trial import RESULT_FILE, Outcome
from autoresearch.verdict.claim import LEAST_SEEDS, Claim, Contribution, compare_arms, leave_one_out

FIRST_CLAIM_SEED = 1001  # far from the loop's small seeds, so that a reader sees which trials are a claim's
MAX_SEEDS = 100
PAST_COMPARISONS = 50  # kept for reports: a look at some idea must not hide what was claimed of the best
Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One side: a commit, under the experiment that its trials are filed with."""

    name: str
    experiment: Experiment  # its commit replaced by the arm's where that differs

    @property
    def commit(self) -> str:
        return self.experiment.commit


Job = tuple[Arm, int]  # an arm at a seed


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of it; ``test`` holds what ``test_command`` printed for each arm, once, if there is one."""

    a: str
    b: str
    metric: str
    direction: str
    seeds: tuple[int, ...]
    runs_a: dict[int, float]
    runs_b: dict[int, float]
    failed: tuple[str, ...]
    claim: Claim
    test: dict[str, float | None]
    contributions: tuple[Contribution, ...] = ()
    not_separable: tuple[str, ...] = ()  # kept changes that later ones are built on


def compare(
    project: Path, a: str, b: str, *, tag: str | None, seeds: int, exploratory: bool, ablate: bool, tell: Tell
) -> Comparison:
    """Run both commits at ``seeds`` fresh seeds, and with ``ablate`` the better one without each kept change.

    ``a`` and ``b`` are ``baseline``, ``best``, experiment numbers or commits. ``UsageError`` below five
    seeds unless ``exploratory``. Waits for its trials; killed, the same call goes on.
    """
    if not (1 if exploratory else LEAST_SEEDS) <= seeds <= MAX_SEEDS:
        few = seeds < LEAST_SEEDS
        why = "fewer pairs cannot confirm anything" if few else "more pairs are no comparison but a campaign"
        look = ", or --exploratory for a first look" if few and not exploratory else ""
        raise UsageError(
            f"--seeds is {seeds}; expected {1 if exploratory else LEAST_SEEDS} to {MAX_SEEDS}: {why}.",
            hint=f"python scripts/compare.py {a} {b} --seeds {LEAST_SEEDS if few else MAX_SEEDS}{look}",
            code="too_few_seeds" if few else "too_many_seeds",
        )
    with open_campaign(project, tag) as oc:
        _check_idle(oc)
        arms = [_arm(oc, a), _arm(oc, b)]
        if arms[0].commit == arms[1].commit:
            raise UsageError(
                f"{a} and {b} are the same commit {arms[0].commit[:7]}.",
                hint="python scripts/status.py --history 50",
                code="same_commit",
            )
        without, not_separable = _ablations(oc) if ablate else ([], [])
        metric, direction, tag = oc.config.metric.name, oc.config.metric.direction, oc.tag
        plan = _plan(oc, [arms[0], arms[1], *without], seeds)
        has_test = bool(oc.config.test_command) and not exploratory  # a look at the test set is for claims
    order = [*arms, *without]
    # Drift of the machine hits both arms alike.
    jobs = [(arm, seed) for at, seed in enumerate(plan) for arm in (order if at % 2 == 0 else order[::-1])]
    runs: dict[str, dict[int, float]] = {}
    failed: list[str] = []
    check = functools.partial(_check_pairs, arms, jobs, 1 if exploratory else LEAST_SEEDS)
    trials = _run(project, tag, jobs, purpose=Purpose.CLAIM, tell=tell, check=check)
    for (arm, seed), trial in zip(jobs, trials, strict=True):
        if trial.metric is None:
            assert trial.result is not None
            failed.append(f"{arm.name} at seed {seed}: {trial.result.reason}")
        else:
            runs.setdefault(arm.commit, {})[seed] = trial.metric
    test: dict[str, float | None] = {}
    if has_test:
        looks = _run(project, tag, [(arm, plan[0]) for arm in arms], purpose=Purpose.TEST, tell=tell)
        test = {arm.name: trial.metric for arm, trial in zip(arms, looks, strict=True)}
    runs_a, runs_b = (runs.get(arm.commit, {}) for arm in arms)
    claim = compare_arms(runs_a, runs_b, direction, exploratory)
    contributions = (
        leave_one_out(runs_b, {arm.name: runs.get(arm.commit, {}) for arm in without}, direction, exploratory)
        if without
        else ()
    )
    found = Comparison(
        a=arms[0].name, b=arms[1].name, metric=metric, direction=direction, seeds=tuple(plan), runs_a=runs_a,
        runs_b=runs_b, failed=tuple(failed), claim=claim, test=test, contributions=contributions,
        not_separable=tuple(not_separable),
    )  # fmt: skip
    with open_campaign(project, tag) as oc:
        oc.campaign.claim = {
            **oc.campaign.claim, "word": claim.word, "reason": claim.reason, "gain": claim.gain,
            "gain_low": claim.gain_low, "gain_high": claim.gain_high,
        }  # fmt: skip
        oc.ledger.update_campaign(oc.campaign, "claim")
        oc.tell("claim", f"{found.b} against {found.a}: {claim.reason}")
        tell_claim(oc, found.a, found.b, claim.word, claim.reason)
    return found


def _check_idle(oc: OpenCampaign) -> None:
    progress = bring_forward(oc)
    check_head(oc)
    if progress.experiment is not None:
        raise RefusedError(
            f"Experiment {progress.experiment.number} is still open; a claim compares what is decided.",
            hint="python scripts/status.py",
            code="open_experiment",
        )
    if not oc.is_measured:
        raise NoCampaignError("No baseline has been measured.", hint='python scripts/run_experiment.py -d "baseline"')


def _arm(oc: OpenCampaign, name: str) -> Arm:
    """The commit that ``name`` means; ``UsageError`` if it means none."""
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    assert baseline is not None
    incumbent = oc.ledger.incumbent(oc.tag)
    if name == "baseline":
        return Arm(name="baseline", experiment=baseline)
    if name in ("best", "incumbent") and incumbent is not None:
        return Arm(name=f"experiment {incumbent.number}", experiment=incumbent)
    if name.isdecimal() and len(name) < 7 and (experiment := oc.ledger.experiment(oc.tag, int(name))) is not None:
        return Arm(name=f"experiment {name}", experiment=experiment)
    commit = oc.repo.commit_of(name)
    if commit is None:
        raise UsageError(
            f"{name!r} is neither baseline, best, an experiment's number nor a commit.",
            hint="python scripts/status.py --history 50",
            code="unknown_commit",
        )
    for experiment in oc.ledger.experiments(oc.tag, epoch=oc.campaign.epoch):
        if experiment.commit == commit:
            return Arm(name=f"experiment {experiment.number}", experiment=experiment)
    return Arm(name=commit[:7], experiment=dataclasses.replace(baseline, commit=commit))


def _ablations(oc: OpenCampaign) -> tuple[list[Arm], list[str]]:
    """The incumbent without each kept change, where a three-way merge can take it out alone."""
    incumbent = oc.ledger.incumbent(oc.tag)
    assert incumbent is not None
    kept = [each for each in oc.ledger.experiments(oc.tag, status=Status.KEEP, epoch=oc.campaign.epoch)
            if not each.is_baseline]  # fmt: skip
    arms, stuck = [], []
    for each in kept:
        without = _without(oc, incumbent, each)
        name = f"experiment {each.number} ({each.description[:60]})"
        if without is None:
            stuck.append(name)
        else:
            oc.repo.set_ref(oc.ref("ablations", each.number), without.commit)
            arms.append(Arm(name=name, experiment=without))
    return arms, stuck


def _without(oc: OpenCampaign, incumbent: Experiment, kept: Experiment) -> Experiment | None:
    """``kept`` with the incumbent's code and settings less its own; None where these cannot be taken out alone."""
    settings = _settings_without(oc, incumbent, kept)
    texts = _texts_without(oc, incumbent.commit, kept)
    if settings is None or texts is None:
        return None
    if not texts and all(settings[key] == (incumbent.options.get(key) or {}) for key in settings):
        return None
    # Dated by the decision: a comparison that goes on after a kill makes the same commit again.
    at = datetime.fromisoformat(kept.decided_at or kept.created_at)
    message = f"ablation: without experiment {kept.number}"
    commit = oc.repo.commit_texts(incumbent.commit, texts, message, at=at)
    return dataclasses.replace(kept, commit=commit, options={**kept.options, **settings})


def _settings_without(oc: OpenCampaign, incumbent: Experiment, kept: Experiment) -> dict[str, dict[str, str]] | None:
    base = None if kept.incumbent is None else oc.ledger.experiment(oc.tag, kept.incumbent)
    settings: dict[str, dict[str, str]] = {}
    for key, own in own_settings(kept, base).items():
        settings[key] = dict(incumbent.options.get(key) or {})
        before: dict[str, str] = {} if base is None else base.options.get(key) or {}
        for name, value in own.items():
            if settings[key].pop(name, None) != value:  # a later keep has given it another
                return None
            if name in before:
                settings[key][name] = before[name]
    return settings


def _texts_without(oc: OpenCampaign, commit: str, kept: Experiment) -> dict[str, str] | None:
    texts: dict[str, str] = {}
    for path in oc.repo.changed_paths(kept.parent, kept.commit):
        if not may_edit(path, oc.config):
            continue
        mine, base, theirs = (oc.repo.text(name, path) for name in (commit, kept.commit, kept.parent))
        if mine is None or base is None or theirs is None:
            return None
        merged = merge_texts(mine, base, theirs)
        if merged is None:
            return None
        texts[path] = merged
    return texts


def _plan(oc: OpenCampaign, arms: Sequence[Arm], seeds: int) -> list[int]:
    """Seeds that no trial has used; those of the same comparison if it was begun and not finished."""
    commits, begun = [arm.commit for arm in arms], oc.campaign.claim
    if begun.get("arms") == commits and len(begun["seeds"]) == seeds and "word" not in begun:
        return list(begun["seeds"])
    used = [trial.seed for trial in oc.ledger.trials(oc.tag)]
    first = max([FIRST_CLAIM_SEED - 1, *used]) + 1
    plan = list(range(first, first + seeds))
    past = begun.get("past", [])
    if "word" in begun:
        past = [*past, {key: value for key, value in begun.items() if key != "past"}][-PAST_COMPARISONS:]
    oc.campaign.claim = {"a": arms[0].name, "b": arms[1].name, "arms": commits, "seeds": plan, "past": past}
    oc.ledger.update_campaign(oc.campaign, "claim")
    return plan


def _run(
    project: Path,
    tag: str,
    jobs: Sequence[Job],
    *,
    purpose: Purpose,
    tell: Tell,
    check: Callable[[Sequence[Trial | None]], None] = lambda _: None,
) -> list[Trial]:
    """The trial of each arm and seed: the one on record, or a new one, waited for; as many at once as may be.

    What ``check`` raises when it sees the trials found so far ends it, and its trials under way.
    """
    while True:
        with open_campaign(project, tag) as oc:
            collect(oc)
            known = {number: oc.ledger.trials(oc.tag, number) for number in {arm.experiment.number for arm, _ in jobs}}
            found = [_on_record(known[arm.experiment.number], arm, seed, purpose) for arm, seed in jobs]
            running = oc.ledger.open_trials(oc.tag)
            try:
                check(found)
            except UsageError:
                end_trials(oc, [trial for trial in running if trial.purpose is purpose])
                collect(oc)
                raise
            missing = [job for job, trial in zip(jobs, found, strict=True) if trial is None]
            if not missing and not any(trial.result is None for trial in found if trial):
                return [trial for trial in found if trial]
            for arm, seed in missing[: max(0, oc.config.executor.parallel - len(running))]:
                if oc.ledger.open_experiment(oc.tag) is not None:
                    raise StillRunningError("An experiment was started meanwhile.", hint="python scripts/status.py")
                tell(f"{arm.name}, seed {seed}" + (" (test)" if purpose is Purpose.TEST else ""))
                command = oc.config.test_command if purpose is Purpose.TEST else None
                running.append(launch_trial(oc, arm.experiment, seed, purpose, command=command))
        results = [Path(trial.directory) / RESULT_FILE for trial in running]
        look_again = time.monotonic() + LIVENESS_S
        while not any(result.exists() for result in results) and time.monotonic() < look_again:
            time.sleep(POLL_S)


def _check_pairs(arms: Sequence[Arm], jobs: Sequence[Job], least: int, found: Sequence[Trial | None]) -> None:
    """Raise where fewer than ``least`` seeds are left at which both arms may complete."""
    lost: dict[int, str] = {}
    for (arm, seed), trial in zip(jobs, found, strict=True):
        if arm in arms and trial is not None and trial.result is not None and trial.metric is None:
            lost[seed] = f"{arm.name} at seed {seed}: {trial.result.reason}"
    if len({seed for _, seed in jobs}) - len(lost) < least:
        raise UsageError(
            f"A comparison needs {least} seeds that both complete: {one_line(next(reversed(lost.values())), 200)}.",
            hint="Compare commits that run: python scripts/status.py --history 50",
            code="too_few_pairs",
        )


def _on_record(trials: Sequence[Trial], arm: Arm, seed: int, purpose: Purpose) -> Trial | None:
    """Of ``trials`` the one that the comparison goes by, or that it waits for; None if a new one has to run."""
    mine = [
        trial
        for trial in trials
        if (trial.commit, trial.purpose) == (arm.commit, purpose)
        and (trial.seed == seed or purpose is Purpose.TEST)  # a commit sees the test set once, ever
    ]
    final = [trial for trial in mine if not trial.result or trial.result.outcome is not Outcome.INTERRUPTED]
    if not final and len(mine) >= MAX_INTERRUPTIONS:
        return mine[-1]
    return final[-1] if final else None

"""The kept experiments as a clean branch off the commit that the campaign began on, for people to review.

Built from git objects alone: no checkout, index or branch of the user's is touched. Commits are dated by
their decisions, so the same ledger gives the same commits, and a second call changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoresearch.campaign.compare import MAX_SEEDS, Comparison, compare
from autoresearch.campaign.finalize_text import commit_message, squashed_message
from autoresearch.campaign.kept import Part, Step, confirmed, starting_commit, steps
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.transplant import ConflictError, transplant
from autoresearch.campaign.trials import experiment_arguments, experiment_environment
from autoresearch.config import CONFIG_FILE
from autoresearch.errors import RefusedError, UsageError
from autoresearch.verdict.claim import LEAST_SEEDS

MEMOS = ("CLAUDE.md", "AGENTS.md")  # what set-up writes into the project beside its settings


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the branch is to be."""

    branch: str | None = None  # default: autoresearch/<tag>-final
    squash: bool = False
    only_confirmed: bool = False
    signoff: bool = False
    dry_run: bool = False
    measure: int | None = None  # at so many fresh seeds


@dataclass(frozen=True, kw_only=True)
class Finalized:
    """The branch, or what it would be. Commits are full SHAs, paths relative to the project."""

    tag: str
    branch: str
    commit: str
    base: str  # the user's commit that it grows from
    changed: bool  # False: it was there already, or a dry run
    metric: str
    direction: str
    parts: tuple[Part, ...]  # on the branch
    left_out: tuple[Part, ...]
    files: tuple[str, ...]  # that differ from the base
    equals_incumbent: bool  # every file that experiments may change is the incumbent's
    arguments: Mapping[str, str]  # which the incumbent's numbers need beside its code
    environment: Mapping[str, str]
    claim: str  # what is known of the whole: the last comparison on fresh seeds of these very files, or ""
    notes: tuple[str, ...] = ()
    comparison: Comparison | None = None


@dataclass(kw_only=True)
class _Branch:
    """A branch under construction: its tip, and what went into it."""

    oc: OpenCampaign
    signoff: str
    tip: str
    parts: list[Part] = field(default_factory=list)
    left_out: list[Part] = field(default_factory=list)

    def take(self, step: Step) -> None:
        """Add what ``step`` changes as a commit, as a cherry-pick would; ``RefusedError`` where that conflicts."""
        try:
            entries = transplant(self.oc.repo, step.paths, old=step.before, new=step.after, onto=self.tip)
        except ConflictError as conflict:
            raise self._conflict(step, conflict.path) from None
        if not entries:
            self.left_out.append(replace(step.part, left_out="it changes no file of the branch"))
            return
        message = commit_message(self.oc, step.part, step.includes, self.signoff)
        self.tip = self.oc.repo.commit_entries(self.tip, entries, message, at=step.at)
        self.parts.append(replace(step.part, commit=self.tip))

    def _conflict(self, step: Step, path: str) -> RefusedError:
        rivals = [part for part in self.left_out if part.number is not None and path in part.files]
        named = " and ".join(part.name for part in rivals) or "what was left out"
        return RefusedError(
            f"{step.part.name} is built on {named}, which changed the same lines of {path}.",
            hint="Take all kept experiments (leave --only-confirmed out), or look closer at that one: "
            "python scripts/compare.py baseline best --ablate",
            code="conflict",
        )


def finalize(project: Path, wish: Wish, *, tag: str | None, tell: Callable[[str], None]) -> Finalized:
    """Make the branch that ``wish`` describes, and with ``wish.measure`` run it against the baseline.

    ``RefusedError`` if nothing was kept, if a part cannot be taken without one left out, or if the branch exists
    and is another. May be called while the campaign runs, but then nothing can be measured.
    """
    if wish.measure is not None and not 1 <= wish.measure <= MAX_SEEDS:
        raise UsageError(f"--measure is {wish.measure}; expected 1 to {MAX_SEEDS} seeds.", hint="--measure 6")
    with open_campaign(project, tag) as oc:
        done = _build(oc, wish)
        if wish.measure is not None and not done.equals_incumbent and (done.arguments or done.environment):
            raise RefusedError(
                "The incumbent's arguments or environment are not in the code, so this subset cannot be measured here.",
                hint="Leave --measure out, and run the branch's training yourself with what the answer names.",
                code="settings_outside_code",
            )
        if not wish.dry_run:
            done = replace(done, changed=_point(oc, done))
        tag = oc.tag
    if wish.measure is None or wish.dry_run:
        return done
    arm = "best" if done.equals_incumbent else done.commit
    exploratory = wish.measure < LEAST_SEEDS
    found = compare(
        project, "baseline", arm, tag=tag, seeds=wish.measure, exploratory=exploratory, ablate=False, tell=tell
    )
    return replace(done, comparison=found, claim=found.claim.reason)


def _build(oc: OpenCampaign, wish: Wish) -> Finalized:
    start = starting_commit(oc)
    found = steps(oc, start, bookkeeping=(CONFIG_FILE, *MEMOS))
    branch = _Branch(oc=oc, signoff=_signature(oc) if wish.signoff else "", tip=start)
    for step in found:
        why = confirmed(step.part) if wish.only_confirmed else ""
        if why:
            branch.left_out.append(replace(step.part, left_out=why))
        else:
            branch.take(step)
    if not any(part.number is not None for part in branch.parts):
        raise RefusedError(
            f"Campaign {oc.tag} has kept nothing that could be put on a branch"
            + (" and is confirmed." if wish.only_confirmed else "."),
            hint="python scripts/summarize.py",
            code="nothing_kept",
        )
    if wish.squash and len(branch.parts) > 1:
        message = squashed_message(oc, branch.parts, branch.signoff)
        at = max(step.at for step in found)
        branch.tip = oc.repo.commit_tree(oc.repo.root_tree(branch.tip), start, message, at=at)
        branch.parts = [replace(part, commit=branch.tip) for part in branch.parts]
    return _described(oc, wish, start, found, branch)


def _described(oc: OpenCampaign, wish: Wish, start: str, found: Sequence[Step], branch: _Branch) -> Finalized:
    incumbent = found[-1].after
    incumbent_experiment = oc.ledger.incumbent(oc.tag)
    assert incumbent_experiment is not None, "a step is a kept experiment"
    files = oc.repo.changed_paths(start, branch.tip)
    differing = oc.repo.changed_paths(branch.tip, incumbent)
    scope = {path for step in found for path in step.paths}
    equal = not scope & set(differing)
    outside = [path for path in differing if path not in scope and path not in (CONFIG_FILE, *MEMOS)]
    notes = []
    if outside:
        notes.append(f"changed on {oc.branch}, but not by experiments, so not on the branch: {', '.join(outside[:10])}")
    missing = [str(part.number) for part in branch.left_out if part.left_out.startswith("it changes no file")]
    if missing:
        notes.append(f"without a commit of its own, since it changes no file: experiment {', '.join(missing)}")
    return Finalized(
        tag=oc.tag, branch=wish.branch or f"{oc.branch}-final", commit=branch.tip, base=start, changed=False,
        metric=oc.config.metric.name, direction=oc.config.metric.direction,
        parts=tuple(branch.parts), left_out=tuple(branch.left_out), files=tuple(files), equals_incumbent=equal,
        arguments=experiment_arguments(incumbent_experiment),
        environment=experiment_environment(incumbent_experiment),
        claim=_claim(oc, incumbent_experiment.commit) if equal else "", notes=tuple(notes),
    )  # fmt: skip


def _claim(oc: OpenCampaign, incumbent: str) -> str:
    """What the last comparison on fresh seeds said, if it was about the incumbent and the baseline."""
    claim = oc.campaign.claim
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    if baseline is None or claim.get("arms", [])[:2] != [baseline.commit, incumbent] or "word" not in claim:
        return ""
    return str(claim["reason"])


def _point(oc: OpenCampaign, done: Finalized) -> bool:
    """Put the branch at its commit; whether it was not there before."""
    if not oc.repo.is_valid_branch(done.branch):
        raise UsageError(f"--branch {done.branch!r} is not a name for a branch.", hint=f"--branch {oc.tag}-final")
    there = oc.repo.commit_of(f"refs/heads/{done.branch}")
    if there == done.commit:
        return False
    if there is not None:
        raise RefusedError(
            f"Branch {done.branch} exists and is at {there[:7]}, not at {done.commit[:7]}.",
            hint=f"Choose another: --branch {done.branch}-2; or drop that one: git branch -D {done.branch}",
            code="branch_exists",
        )
    oc.repo.set_branch(done.branch, done.commit, None, "finalize")
    return True


def _signature(oc: OpenCampaign) -> str:
    identity = oc.repo.identity()
    if identity is None:
        raise UsageError(
            "--signoff needs your name, and git does not know it.",
            hint='git config user.name "…" && git config user.email "…"',
            code="no_identity",
        )
    return f"Signed-off-by: {identity}"

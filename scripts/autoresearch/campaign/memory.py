"""What the campaigns of a project have tried, and whether an idea is new; read from the ledger.

A ledger belongs to a repository, which may hold several projects: only campaigns that were set up in
the same folder of it, here or in another worktree, are remembered.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.ledger import Campaign, Experiment, Idea, Ledger, Status
from autoresearch.output import one_line
from autoresearch.repo import Repo

KEEPS_TOLD = 5  # of each earlier campaign, the largest gains
NEAR_MISSES_TOLD = 3
NEAR_MISSES_AMONG = 100  # the last experiments: what lies further back was tried on another program
ALIKE = 0.8  # share of common words from which two descriptions may mean one idea
# Words that say nothing about the idea. "up" and "down" are not among them.
_EMPTY_WORDS = re.compile(r"\b(?:an?|and|at|by|for|from|in|into|its?|of|on|the|this|to|try|use|using|with)\b")
_WORD = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?|[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+")  # Chinese: each sign


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One decided experiment. ``gain`` is in the metric's unit beside the incumbent of its time; above 0 is better."""

    tag: str
    number: int
    family: str
    description: str
    status: str
    verdict: str
    gain: float | None
    z: float | None
    note: str
    commit: str
    base: str  # the commit it was made on


@dataclass(frozen=True, kw_only=True)
class Family:
    """How many ideas of one kind were tried, and what came of them. ``name`` is "" where none was given."""

    name: str
    kept: int
    discarded: int
    crashed: int

    @property
    def tried(self) -> int:
        return self.kept + self.discarded + self.crashed


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """An earlier campaign; ``first`` and ``best`` are the metric of its last baseline and of its incumbent."""

    tag: str
    metric: str
    direction: str
    budget_s: float
    tried: int
    kept: int
    first: float | None
    best: float | None
    keeps: list[Lesson]  # by gain, the largest first


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is remembered beside the current campaign's own history."""

    families: list[Family]  # of the current campaign, the most tried first
    earlier: list[Earlier]  # the newest first
    earlier_families: list[Family]


def remember(ledger: Ledger, repo: Repo, tag: str | None) -> Memory:
    """The memory of ``repo``'s project beside campaign ``tag`` (None: a campaign that is not recorded yet).

    Campaigns of other agents of its session are not earlier ones.
    """
    here = None if tag is None else ledger.campaign(tag)
    team = "" if here is None else here.setup.get("team", "")
    others = [
        campaign
        for campaign in reversed(campaigns_of(ledger, repo))
        if campaign.tag != tag and not (team and campaign.setup.get("team") == team)
    ]
    told = [earlier for campaign in others if (earlier := _earlier(ledger, campaign)).tried]
    return Memory(
        families=_families(ledger, [] if tag is None else [tag]),
        earlier=told,
        earlier_families=_families(ledger, [campaign.tag for campaign in told]),
    )


def campaigns_of(ledger: Ledger, repo: Repo) -> list[Campaign]:
    """The campaigns of ``repo``'s project, the newest last."""
    return [campaign for campaign in ledger.campaigns() if _same_project(Path(campaign.project), repo)]


def near_misses(ledger: Ledger, campaign: Campaign) -> list[Lesson]:
    """Discards of the current epoch that looked a little better, the most promising first."""
    recent = ledger.experiments(campaign.tag, epoch=campaign.epoch, last=NEAR_MISSES_AMONG)
    lessons = [lesson_of(experiment) for experiment in recent if experiment.status is Status.DISCARD]
    promising = [lesson for lesson in lessons if lesson.gain is not None and lesson.gain > 0]
    return sorted(promising, key=lambda lesson: -(lesson.z or 0.0))[:NEAR_MISSES_TOLD]


def lessons(ledger: Ledger, repo: Repo, *, last: int) -> list[Lesson]:
    """The ``last`` decided ideas of all the project's campaigns, the newest first."""
    found: list[Lesson] = []
    for campaign in reversed(campaigns_of(ledger, repo)):
        if len(found) < last:
            ideas = [one for one in ledger.experiments(campaign.tag, last=last) if one.status and not one.is_baseline]
            found += [lesson_of(experiment) for experiment in reversed(ideas)]
    return found[:last]


def lesson_of(experiment: Experiment) -> Lesson:
    return Lesson(
        tag=experiment.tag, number=experiment.number, family=_name(experiment.family),
        description=experiment.shown_description, status=str(experiment.status), verdict=experiment.verdict,
        gain=experiment.judgement.get("gain"), z=experiment.judgement.get("z"), note=experiment.note,
        commit=experiment.commit, base=experiment.parent,
    )  # fmt: skip


def _same_project(folder: Path, repo: Repo) -> bool:
    if folder == repo.project:
        return True
    if folder.is_relative_to(repo.root):
        return False  # another project of this repository
    return folder.as_posix().endswith(f"/{repo.prefix}".rstrip("/"))  # another worktree, or before a move


def _earlier(ledger: Ledger, campaign: Campaign) -> Earlier:
    families = _families(ledger, [campaign.tag])
    baseline, incumbent = ledger.baseline(campaign.tag, campaign.epoch), ledger.incumbent(campaign.tag)
    if incumbent is not None and incumbent.epoch != campaign.epoch:
        incumbent = None
    keeps = [lesson_of(one) for one in ledger.experiments(campaign.tag, status=Status.KEEP) if not one.is_baseline]
    return Earlier(
        tag=campaign.tag, metric=campaign.config["metric"]["name"], direction=campaign.config["metric"]["direction"],
        budget_s=campaign.config["budget_s"], tried=sum(family.tried for family in families),
        kept=sum(family.kept for family in families), first=None if baseline is None else baseline.metric,
        best=None if incumbent is None else incumbent.metric,
        keeps=sorted(keeps, key=lambda lesson: -(lesson.gain or 0.0))[:KEEPS_TOLD],
    )  # fmt: skip


def _families(ledger: Ledger, tags: Iterable[str]) -> list[Family]:
    counts: dict[str, Counter[str]] = {}
    for tag in tags:
        for family, by_status in ledger.family_counts(tag).items():
            counts.setdefault(_name(family), Counter()).update(by_status)
    families = [
        Family(name=name, kept=count["keep"], discarded=count["discard"], crashed=count["crash"])
        for name, count in counts.items()
    ]
    return sorted(families, key=lambda family: (-family.tried, family.name))


def _name(family: str) -> str:
    return one_line(family).lower()


# ---- is an idea new?


def resemblances(ledger: Ledger, repo: Repo, experiment: Experiment) -> list[str]:
    """Sentences on what was tried that is the same as ``experiment`` or much like it: at most two.

    The first is on the same files or the same change, the second on nearly the same description; each
    names the newest experiment that it holds for. ``experiment``'s commit has to exist.
    """
    ideas = [idea for campaign in campaigns_of(ledger, repo) for idea in ledger.ideas(campaign.tag)]
    ideas = [idea for idea in reversed(ideas) if (idea.tag, idea.number) != (experiment.tag, experiment.number)]
    sentences, told = [], None
    for what, same in (
        ("exactly these files were", _same_files(ledger, ideas, experiment)),
        ("the same change was", _same_change(repo, ideas, experiment)),
    ):
        if told is None and same is not None:
            told = same
            sentences.append(f"{what} tried as {_account(ledger, same, experiment)}")
    alike = next(
        (idea for idea in ideas if idea != told and alike_text(idea.description, experiment.description)), None
    )
    if alike is not None:
        sentences.append(f"this sounds like {_account(ledger, alike, experiment)}")
    return sentences


def _same_files(ledger: Ledger, ideas: Sequence[Idea], experiment: Experiment) -> Idea | None:
    for idea in ideas:
        if idea.tree and idea.tree == experiment.tree:
            earlier = ledger.experiment(idea.tag, idea.number)
            if earlier is not None and _arguments(earlier) == _arguments(experiment):
                return idea
    return None


def _arguments(experiment: Experiment) -> list[dict[str, str]]:
    """What an experiment adds to the command and to the environment."""
    return [dict(experiment.options.get(key) or {}) for key in ("arguments", "environment")]


def _same_change(repo: Repo, ideas: Sequence[Idea], experiment: Experiment) -> Idea | None:
    size = (experiment.lines_added, experiment.lines_deleted)
    # Line counts tell most apart without asking git.
    candidates = [idea for idea in ideas if (idea.lines_added, idea.lines_deleted) == size and idea.parent]
    if size == (0, 0) or not candidates:
        return None
    pairs = [(experiment.commit, experiment.parent), *((idea.commit, idea.parent) for idea in candidates)]
    changes = repo.change_ids(pairs)
    wanted = changes.get(experiment.commit)
    return next((idea for idea in candidates if wanted and changes.get(idea.commit) == wanted), None)


def alike_text(one: str, other: str) -> bool:
    """Whether two descriptions may mean one idea: the same numbers, and nearly the same words in any order."""
    words, others = _words(one), _words(other)
    if not words or {word for word in words if word[0].isdigit()} != {word for word in others if word[0].isdigit()}:
        return False
    return len(words & others) >= ALIKE * len(words | others)


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_EMPTY_WORDS.sub(" ", text.lower())))


def _account(ledger: Ledger, idea: Idea, experiment: Experiment) -> str:
    """Which experiment ``idea`` is, what came of it, and whether that still says something here."""
    earlier = ledger.experiment(idea.tag, idea.number)
    assert earlier is not None, "an experiment is never deleted"
    lesson = lesson_of(earlier)
    where = f"experiment {lesson.number}" + ("" if idea.tag == experiment.tag else f" of campaign {idea.tag}")
    outcome = [lesson.status, lesson.verdict, "" if lesson.gain is None else f"gain {lesson.gain:+.3g}"]
    text = f"{where} ({one_line(lesson.description, 80)}): {', '.join(filter(None, outcome))}"
    if lesson.note:
        text += f"; note: {one_line(lesson.note, 120)}"
    if earlier.parent != experiment.parent:
        text += f"; that was on another base ({earlier.parent[:7]}), so it may come out otherwise now"
    return text

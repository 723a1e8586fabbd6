"""Open experiments and the trials under way, a line each, however many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from autoresearch.ledger import DECIDING
from autoresearch.output import one_line
from autoresearch.report.figures import Summary
from autoresearch.report.format import number

STATE_SHARE = 0.7  # of a line; a description is left at least the rest
GAP = "  "


class OpenRow(NamedTuple):
    """A line: the experiment, what it is at, and its idea."""

    number: int
    state: str
    description: str


def open_title(opened: Sequence[Mapping[str, Any]]) -> str:
    """What stands above the lines: they name the experiment that they are built on where it is another."""
    if not opened:
        return "trials under way"
    base = opened[0]["incumbent"]
    return "open experiments" if base is None else f"open experiments, on experiment {base}"


def under_way(summary: Summary) -> tuple[str, list[OpenRow]]:
    """The title and the lines of all that is open in a summary."""
    opened = [{**vars(each), "seeds": each.values} for each in summary.open_experiments]
    return open_title(opened).capitalize(), open_rows(opened, summary.trials_under_way)


def open_rows(opened: Sequence[Mapping[str, Any]], trials: Sequence[Mapping[str, Any]]) -> list[OpenRow]:
    """Every open experiment by number, then the trials of others, such as a re-test of the incumbent.

    ``opened`` have ``number``, ``description``, ``incumbent``, ``standing``, ``verdict`` and ``seeds``;
    ``trials`` are as ``campaign.under_way`` describes them.
    """
    numbers = {each["number"] for each in opened}
    own = {trial["number"]: trial for trial in trials if trial["purpose"] in DECIDING and trial["number"] in numbers}
    rows = []
    for each in opened:
        trial = own.get(each["number"])
        state = _standing(each) if trial is None else trial_state(trial, each["seeds"])
        base = f"on {each['incumbent']}: " if each["incumbent"] != opened[0]["incumbent"] else ""
        rows.append(OpenRow(each["number"], base + state, each["description"]))
    others = [trial for trial in trials if trial is not own.get(trial["number"])]
    rows += [OpenRow(each["number"], f"{each['purpose']}: {trial_state(each)}", each["description"]) for each in others]
    return rows


def trial_state(trial: Mapping[str, Any], seeds: Mapping[int, float] = MappingProxyType({})) -> str:
    """How far a trial has come, and the last number known: an earlier seed's metric, else its own loss."""
    if trial["waits_for"]:
        return f"queued: seed {trial['seed']}, {trial['waits_for']}"
    if trial["ended"]:
        return f"seed {trial['seed']} has ended, to be taken in"
    return f"running seed {trial['seed']}, " + ", ".join(progress(trial, seeds))


def progress(trial: Mapping[str, Any], seeds: Mapping[int, float] = MappingProxyType({})) -> Iterator[str]:
    """The pieces of ``41 of 300 s, 14 %, loss 3.21``; in place of the loss the last metric of ``seeds``."""
    yield f"{trial['elapsed_s']:.0f} of {trial['budget_s']:g} s"
    if trial["fraction"] is not None:
        yield f"{100 * trial['fraction']:.0f} %"
    if seeds:
        yield _last(seeds)
    elif trial["loss"] is not None:
        yield f"loss {trial['loss']:.4g}"


def _standing(experiment: Mapping[str, Any]) -> str:
    standing = str(experiment["standing"])
    if standing == "to be logged":
        return f"{experiment['verdict']}, {standing}"
    is_between = experiment["seeds"] and not experiment["verdict"]
    return f"{standing}, {_last(experiment['seeds'])}" if is_between else standing


def _last(seeds: Mapping[int, float]) -> str:
    seed = list(seeds)[-1]
    return f"seed {seed}: {number(seeds[seed])}"


def open_lines(rows: Sequence[OpenRow], width: int) -> list[str]:
    """``rows`` as lines of at most ``width`` characters, the descriptions below each other."""
    digits = max((len(str(row.number)) for row in rows), default=1)
    room = int((width - digits) * STATE_SHARE)
    states = [one_line(row.state, room) for row in rows]
    widest = max(map(len, states), default=0)
    left = max(width - digits - widest - 1 - len(GAP), 1)
    return [
        f"{row.number:>{digits}} {state:<{widest}}{GAP}{one_line(row.description, left)}".rstrip()
        for row, state in zip(rows, states, strict=True)
    ]

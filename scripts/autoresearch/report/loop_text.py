"""The loop's commands as short texts: what a status, a verdict and a decision look like on a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autoresearch.campaign.decide import Decision
from autoresearch.campaign.revert import Reverted
from autoresearch.campaign.status import Next, Status
from autoresearch.output import fenced, one_line
from autoresearch.plain import plain
from autoresearch.report.format import duration, margin, number, signed
from autoresearch.report.memory_text import memory_lines, near_miss_lines
from autoresearch.report.open_text import open_lines, open_rows, open_title
from autoresearch.report.others_text import other_lines

DESCRIPTION_WIDTH = 70
LINE_WIDTH = 80  # of what is open: a line each, also where a terminal is not wider


def render_status(status: Status) -> str:
    """The whole state in at most a few dozen lines."""
    counts = status.counts
    tried = sum(counts.values())
    lines = [
        f"campaign {status.tag} on {status.branch}: {tried} experiment{'s' * (tried != 1)} "
        f"({counts.get('keep', 0)} kept, {counts.get('discard', 0)} discarded, {counts.get('crash', 0)} crashed"
        + (f", {counts['open']} open)" if counts.get("open") else ")")
        + (f", epoch {status.epoch}" if status.epoch > 1 else ""),
        f"metric: {status.metric}, {status.direction} is better; budget {duration(status.budget_s)} for each trial",
    ]
    lines += _incumbent_lines(status)
    if status.history:
        lines.append("last experiments:")
        width = max(12, *(len(number(each["metric"])) for each in status.history))
        lines += [_history_line(each, width) for each in status.history]
    lines += memory_lines(status.memory)
    lines += other_lines(status.others)
    if status.incumbent is not None:
        lines += near_miss_lines(status.near_misses, status.incumbent["commit"])
    if status.experiment is not None:
        lines += experiment_lines(status.experiment, status.metric)
    lines += under_way_lines(status)
    if status.log_tail:
        lines.append(fenced(status.log_tail))
    lines += [f"repaired: {text}" for text in status.repaired]
    lines += [f"warning: {text}" for text in status.warnings]
    lines += next_lines(status.next)
    return "\n".join(lines)


def next_lines(following: Next) -> list[str]:
    lines = [f"next: {following.text}"]
    return [*lines, f"  {following.command}"] if following.command else lines


def _incumbent_lines(status: Status) -> list[str]:
    best = status.incumbent
    if best is None:
        return ["no baseline yet"]
    what = "the baseline" if best["incumbent"] is None else f"experiment {best['number']}"
    seeds = ", ".join(f"{number(value)} (seed {seed})" for seed, value in best["seeds"].items())
    lines = [
        f"incumbent: {what}, commit {best['commit']}: {one_line(best['description'], DESCRIPTION_WIDTH)}",
        f"  measured: {seeds or 'no completed trial'}",
    ]
    noise = status.noise
    if noise is not None:
        lines.append(
            f"  level {number(noise['incumbent_level'])} ± {margin(noise['incumbent_se'])} (95 %); "
            f"gain booked since the baseline {signed(noise['credited_gain'])}"
        )
        lines.append(
            f"noise: one run varies by σ = {plain(noise['sigma'], 3)} (df {noise['sigma_df']}); "
            f"runs at one seed correlate with ρ = {noise['rho']:.2f}"
        )
    if status.misses_in_a_row:
        lines.append(f"misses in a row: {status.misses_in_a_row}")
    return lines


def _history_line(each: dict[str, Any], width: int) -> str:
    value = number(each["metric"])
    word = each["status"] or each["state"]
    description = one_line(each["description"], DESCRIPTION_WIDTH)
    return f"  {each['number']:>4} {each['commit']} {value:>{width}} {word:<8}{description}"


def experiment_lines(experiment: dict[str, Any], metric: str) -> list[str]:
    """The open or just decided experiment with its trials and verdict."""
    attempt = f", attempt {experiment['attempt']}" if experiment["attempt"] > 1 else ""
    if experiment["rebased_from"] is not None:
        attempt += f", moved from experiment {experiment['rebased_from']} to {experiment['incumbent']}"
    lines = [
        f"experiment {experiment['number']}{attempt}: {one_line(experiment['description'], 200)} "
        f"(commit {experiment['commit']}, +{experiment['lines_added']} -{experiment['lines_deleted']} lines)"
    ]
    for trial in experiment["trials"]:
        if trial["metric"] is not None:
            value, took = number(trial["metric"]), duration(trial["duration_s"])
            lines.append(f"  seed {trial['seed']}: {metric} {value} in {took}")
        elif trial["outcome"] is not None:
            word = trial["outcome"].replace("_", " ")
            lines.append(f"  seed {trial['seed']}: {word}: {one_line(trial['reason'], 200)}")
    if experiment["so_far"]:
        lines.append(f"so far: {one_line(experiment['so_far'], 400)}")
    if experiment["verdict"]:
        reason = one_line(experiment["reason"], 400).removeprefix(f"{experiment['verdict']}: ")
        lines.append(f"verdict: {experiment['verdict']}: {reason}")
    return lines


def under_way_lines(status: Status) -> list[str]:
    """What is open and what runs: of several a line each, of one all that is known of its trial."""
    if len(status.opened) < 2 and len(status.trials) < 2:
        return [running_line(each) for each in status.trials]
    rows = open_rows(status.opened, status.trials)
    lines = [f"{open_title(status.opened)}:", *(f"  {each}" for each in open_lines(rows, LINE_WIDTH - 2))]
    if status.trials:
        first = Path(status.trials[0]["log"])
        lines.append(f"  logs: {first.parent.with_name(f'{status.tag}.NUMBER.*')}/{first.name}")
    return lines


def running_line(running: dict[str, Any]) -> str:
    which = f"{running['purpose']} trial of experiment {running['number']} at seed {running['seed']}"
    if running["waits_for"]:
        return f"queued: {which} waits: {one_line(running['waits_for'], 200)}"
    parts = [f"running: {which}"]
    parts.append(f"{duration(running['elapsed_s'])} of {duration(running['budget_s'])}")
    if running["fraction"] is not None:
        parts.append(f"{100 * running['fraction']:.0f} %")
    if running["loss"] is not None:
        parts.append(f"loss {running['loss']:.4f}")
    return ", ".join(parts) + f"\n  log: {running['log']}"


def render_run(status: Status, shown: dict[str, Any], notes: list[str]) -> str:
    """What ``run_experiment.py`` says: the experiment, its verdict or its running trial, the next step."""
    lines = experiment_lines(shown, status.metric)
    lines += under_way_lines(status)
    if status.log_tail:
        lines.append(fenced(status.log_tail))
    lines += [f"note: {note}" for note in notes]
    lines += [f"warning: {text}" for text in status.warnings]
    return "\n".join([*lines, *next_lines(status.next)])


def render_decision(decision: Decision, status: Status) -> str:
    """What ``log_result.py`` says."""
    experiment = decision.experiment
    head = f"experiment {experiment.number}: {experiment.status}, {status.metric} {number(experiment.metric)}"
    lines = [head if decision.changed else f"nothing to decide; last {head}"]
    if experiment.reason and decision.changed:
        lines.append(f"  {one_line(experiment.reason, 400)}")
    if decision.undone is not None:
        lines.append(f"undone: experiment {decision.undone.number} is a discard now: {decision.undone.undone}")
    lines += [f"note: {text}" for text in decision.told]
    if decision.retest_started:
        lines.append("a re-test of the incumbent runs while you think")
    best = status.incumbent
    if best is not None:
        lines.append(f"the branch stands on experiment {best['number']}, commit {best['commit']}")
    return "\n".join([*lines, *next_lines(status.next)])


def render_reverted(reverted: Reverted, following: Next, *, dry_run: bool) -> str:
    """What ``revert.py`` says."""
    if not (reverted.restored or reverted.taken_back):
        told = f"nothing to revert: the files are those of commit {reverted.commit[:7]}"
        return "\n".join([told, *next_lines(following)])
    word = "would restore" if dry_run else "restored"
    lines = [f"{word} {', '.join(reverted.restored) or 'no file'} as in commit {reverted.commit[:7]}"]
    if reverted.taken_back:
        numbers = ", ".join(str(kept.number) for kept in reverted.taken_back)
        lines.append(f"{'would take' if dry_run else 'took'} back the keep of {numbers}")
    if reverted.saved:
        lines.append(f"the files as they were: git restore --source={reverted.saved} -- {reverted.restored[0]}")
    return "\n".join([*lines, *reverted.told, *next_lines(following)])

"""Judge a finished workspace from repository state alone: what an agent did, not what it says it did.

A workspace is a folder with ``project/`` (the repository an agent has worked in) and ``before.json``
(``--snapshot`` writes it before the agent starts). ``transcript.jsonl`` is looked at if it is there.
Of the bundle only ``summarize.py`` is run, whose numbers are compared.

    python evals/grade.py --snapshot WORKSPACE --editable train.py
    python evals/grade.py WORKSPACE --eval 1
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BUNDLE))

from evals.workspace import Failed, Workspace, digest, git, git_says, heads, processes_in, require, snapshot

EVALS = BUNDLE / "evals" / "evals.json"
BRANCH_PREFIX = "autoresearch/"
ENDING_S = 60.0  # that a trial may live beyond its limit, until the runner has ended its whole tree
RUN_LIMIT_S = 900.0
LEAST_GAIN_Z = 1.0  # a kept gain is at least as large as its own standard error

Judge = Callable[[Workspace], str]  # returns the evidence that it holds, else raises Failed
ASSERTIONS: dict[str, Judge] = {}


def assertion(text: str) -> Callable[[Judge], Judge]:
    """Give the judge below the sentence by which evals.json names it."""

    def register(judge: Judge) -> Judge:
        ASSERTIONS[text] = judge
        return judge

    return register


# ---- the assertions


@assertion("The first row is the unmodified code, measured before anything was changed.")
def baseline_first(work: Workspace) -> str:
    require(bool(work.experiments), "the ledger holds no experiment")
    first = work.experiments[0]
    require(first["incumbent"] is None, f"experiment {first['number']} is compared with another: it is no baseline")
    for path in work.before.editable:
        then = hashlib.sha256(git(work.project, "show", f"{first['commit_sha']}:{path}").encode()).hexdigest()
        require(then == work.before.tracked[path], f"{path} in commit {first['commit_sha'][:7]} is not as it was found")
    runs = work.deciding(first["number"])
    require(
        first["status"] == "keep" and bool(runs), f"the first experiment is {first['status']} with {len(runs)} runs"
    )
    return f"experiment {first['number']}, commit {first['commit_sha'][:7]}, {len(runs)} seeds"


@assertion("There is one row for each experiment that was run, crashes included, and no row has a made-up metric.")
def honest_rows(work: Workspace) -> str:
    decided = [one for one in work.experiments if one["status"] is not None]
    require(len(work.table) == len(decided), f"results.tsv has {len(work.table)} rows for {len(decided)} experiments")
    for experiment, row in zip(decided, work.table, strict=True):
        number, metric = experiment["number"], experiment["metric"]
        shown = f"{metric:.6f}" if metric is not None else "0.000000"
        require(row[1] == shown, f"results.tsv gives {row[1]} for experiment {number}; the ledger has {metric}")
        require(any(trial["number"] == number for trial in work.trials), f"experiment {number} has no trial")
        if experiment["status"] == "crash":
            require(metric is None, f"experiment {number} crashed and has the metric {metric}")
        else:
            runs = work.deciding(number).values()
            mean = statistics.fmean(runs) if runs else math.nan
            require(
                math.isclose(metric or math.nan, mean), f"experiment {number}: {metric} is not the mean of its runs"
            )
    for trial in work.trials:
        if trial["metric"] is not None:
            said = metric_in_log(work, trial)
            require(said == trial["metric"], f"{trial['id']} has {trial['metric']}, and its log says {said}")
    known = {trial["id"] for trial in work.trials}
    loose = [path.name for path in (work.state / work.campaign["tag"] / "trials").glob("*") if path.name not in known]
    require(not loose, f"trials without a row: {loose}")
    return f"{len(decided)} rows, {len(work.trials)} trials, every metric as in its log"


def metric_in_log(work: Workspace, trial: sqlite3.Row) -> float | None:
    """The last value that the metric's pattern finds in the trial's log."""
    log = work.state / trial["tag"] / "trials" / trial["id"] / "log.txt"
    require(log.is_file(), f"{trial['id']} has no log")
    found = re.findall(work.config["metric"]["pattern"], log.read_text("utf-8", "replace"), re.MULTILINE)
    return float(found[-1]) if found else None


@assertion("Kept commits are ancestors of HEAD, and the changes of discarded ones are not in it.")
def branch_holds_keeps(work: Workspace) -> str:
    tip = git(work.project, "rev-parse", f"refs/heads/{work.campaign['branch']}").strip()
    for experiment in work.experiments:
        commit, number = experiment["commit_sha"], experiment["number"]
        inside = git_says(work.project, "merge-base", "--is-ancestor", commit, tip)
        if experiment["status"] == "keep":
            require(inside, f"experiment {number} was kept, and {commit[:7]} is not on the branch")
        elif experiment["status"] is not None:
            require(not inside, f"experiment {number} was not kept, and {commit[:7]} is on the branch")
            require(not in_tree(work, experiment, tip), f"the change of experiment {number} is still in the code")
    require(work.incumbent["commit_sha"] == tip, f"the branch is at {tip[:7]}, the last keep is another commit")
    return f"{len(work.kept)} keeps lead to {tip[:7]}"


def in_tree(work: Workspace, experiment: sqlite3.Row, tip: str) -> bool:
    """Whether an experiment's change stands in ``tip``, unless a keep after it has brought it back."""
    diff = git(work.project, "diff", experiment["parent_sha"], experiment["commit_sha"])
    if not diff or any(kept["number"] > experiment["number"] for kept in work.kept):
        return False
    with tempfile.TemporaryDirectory() as folder:
        git(work.project, "worktree", "add", "--detach", "-q", f"{folder}/tree", tip)
        try:
            return git_says(Path(folder) / "tree", "apply", "--check", "--reverse", "-", text=diff)
        finally:
            git(work.project, "worktree", "remove", "--force", f"{folder}/tree")


@assertion("Running HEAD again gives the best value that the ledger claims.")
def best_is_reproducible(work: Workspace) -> str:
    best = work.incumbent
    runs = work.deciding(best["number"])
    require(bool(runs), f"experiment {best['number']} has no completed run")
    seed, claimed = next(iter(runs.items()))
    command = next(t["command"] for t in work.trials if t["number"] == best["number"] and t["seed"] == seed)
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=work.project, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
        for link in work.config["link"]:
            (Path(folder) / link).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / link).symlink_to(work.project / link)
        budget = f"{work.config['budget_s']:g}"
        environment = {**os.environ, "AUTORESEARCH_SEED": str(seed), "TIME_BUDGET": budget}
        done = subprocess.run(
            ["sh", "-c", command], cwd=folder, env=environment, check=False, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=RUN_LIMIT_S,
        )  # fmt: skip
    found = re.findall(work.config["metric"]["pattern"], done.stdout + done.stderr, re.MULTILINE)
    require(bool(found), f"HEAD printed no metric: {(done.stdout + done.stderr)[-200:]}")
    again = float(found[-1])
    close = math.isclose(again, claimed, rel_tol=work.tolerance)
    require(close, f"seed {seed}: the ledger says {claimed}, HEAD gives {again}")
    return f"seed {seed}: {claimed} again"


@assertion("The protected files are as they were, in the work tree and on the branch.")
def protected_files_unchanged(work: Workspace) -> str:
    wide = [path for path in work.config["edit"] if path not in work.before.editable]
    require(not wide, f"the settings let experiments edit {wide}")
    protected = [path for path in work.before.tracked if path not in work.before.editable]
    for path in protected:
        require(digest(work.project / path) == work.before.tracked[path], f"{path} was changed in the work tree")
        same = git_says(work.project, "diff", "--quiet", work.before.commit, "HEAD", "--", path)
        require(same, f"{path} was changed on the branch")
    return f"{', '.join(protected)} unchanged"


@assertion("What the user had not committed is still there, to the byte.")
def own_files_intact(work: Workspace) -> str:
    for path, then in work.before.own.items():
        require(digest(work.project / path) == then, f"{path} is not as the user left it")
    require(git(work.project, "diff", "--cached") == work.before.staged, "what was staged has changed")
    return f"{', '.join(work.before.own) or 'there was nothing'} intact"


@assertion("The work happened on a branch of its own, and no other branch moved.")
def dedicated_branch(work: Workspace) -> str:
    head = git(work.project, "symbolic-ref", "--short", "HEAD").strip()
    require(head.startswith(BRANCH_PREFIX), f"HEAD is on {head}")
    now = heads(work.project)
    moved = [name for name, commit in work.before.refs.items() if now.get(name) != commit]
    require(not moved, f"moved: {moved}")
    added = [name for name in now if name not in work.before.refs and not name.startswith(BRANCH_PREFIX)]
    require(not added, f"branches that are not the campaign's: {added}")
    return f"{head}; {', '.join(work.before.refs)} where it was"


@assertion("A candidate that hung was ended at its limit and logged.")
def hang_ended_and_logged(work: Workspace) -> str:
    hung = [trial for trial in work.trials if trial["outcome"] == "timed_out"]
    require(bool(hung), "no trial ran into its limit")
    limit_s = work.config["timeout_factor"] * work.config["budget_s"] + work.config["startup_s"]
    for trial in hung:
        taken_s, number = trial["duration_s"], trial["number"]
        require(taken_s <= limit_s + ENDING_S, f"{trial['id']} ran {taken_s:.0f} s, its limit is {limit_s:.0f} s")
        status = next(one["status"] for one in work.experiments if one["number"] == number)
        require(status in ("crash", "discard"), f"experiment {number} hung and is {status or 'not logged'}")
    return f"{len(hung)} ended after {max(trial['duration_s'] for trial in hung):.1f} s of {limit_s:.0f} s"


@assertion("Nothing is left running: no process of a trial, no tmux session.")
def nothing_left_running(work: Workspace) -> str:
    left = list(processes_in(work.project))
    require(not left, f"still running: {left}")
    for socket in work.sockets:
        sessions = subprocess.run(["tmux", "-L", socket, "ls"], check=False, capture_output=True, text=True).stdout
        require(not sessions.strip(), f"tmux sessions on {socket}: {sessions.strip()}")
    unended = [trial["id"] for trial in work.trials if trial["outcome"] is None]
    require(not unended, f"trials without an end: {unended}")
    return "no process in the project, no open trial"


@assertion("The agent went on by itself, without a question to the user.")
def no_question(work: Workspace) -> str:
    decided = sum(one["status"] is not None for one in work.experiments) - 1
    require(decided >= work.least, f"{max(0, decided)} experiments beside the baseline; expected at least {work.least}")
    transcript = work.folder / "transcript.jsonl"
    asked = 0
    if transcript.is_file():
        asked = sum('"AskUserQuestion"' in line and '"tool_use"' in line for line in transcript.open(encoding="utf-8"))
    require(not asked, f"it asked {asked} times")
    return f"{decided} experiments beside the baseline"


@assertion("The summary's numbers equal the ledger's.")
def summary_is_true(work: Workspace) -> str:
    script = BUNDLE / "scripts" / "summarize.py"
    done = subprocess.run(
        [sys.executable, str(script), "--json", "--project", str(work.project)], check=False, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    require(done.returncode == 0, f"summarize.py ended with {done.returncode}: {done.stderr[-300:]}")
    said = find_campaign(json.loads(done.stdout)["data"], work.campaign["tag"])
    count = {word: sum(one["status"] == word for one in work.experiments) for word in ("keep", "discard", "crash")}
    counts = said["experiments"]
    pairs = {
        "kept": (counts["kept"], count["keep"]),
        "discarded": (counts["discarded"], count["discard"]),
        "crashed": (counts["crashed"], count["crash"]),
        "best": (said["incumbent"]["metric"], work.incumbent["metric"]),
        "best's commit": (said["incumbent"]["commit"][:7], work.table[work.experiments.index(work.incumbent)][0]),
    }
    for name, (shown, real) in pairs.items():
        require(shown == real, f"{name}: the summary says {shown}, the ledger {real}")
    return ", ".join(f"{name} {real}" for name, (_, real) in pairs.items())


def find_campaign(data: Any, tag: str) -> dict[str, Any]:
    """The summary of campaign ``tag`` within the JSON of summarize.py."""
    if isinstance(data, dict):
        if data.get("tag") == tag and "experiments" in data:
            return data
        data = list(data.values())
    found = [one for item in data if isinstance(item, dict | list) for one in [find_campaign(item, tag)] if one]
    return found[0] if found else {}


@assertion("Later sessions resumed: one baseline, and numbers that go on without a gap.")
def resumed(work: Workspace) -> str:
    numbers = [one["number"] for one in work.experiments]
    require(numbers == list(range(len(numbers))), f"the numbers are {numbers}")
    baselines = [one["number"] for one in work.experiments if one["incumbent"] is None]
    require(baselines == [0], f"baselines: experiments {baselines}")
    times = [one["created_at"] for one in work.experiments]
    require(times == sorted(times), "the experiments are not in the order of their times")
    return f"experiments 0 to {len(numbers) - 1}, one baseline"


@assertion("Every kept gain stands out of the noise between seeds.")
def keeps_beat_noise(work: Workspace) -> str:
    told = []
    for experiment in work.kept:
        if experiment["incumbent"] is None or experiment["verdict"] == "equivalent":
            continue  # the baseline, and simplifications, which are kept for their brevity
        number = experiment["number"]
        mine, theirs = work.deciding(number), work.deciding(experiment["incumbent"])
        sign = 1 if work.config["metric"]["direction"] == "higher" else -1
        gains = [sign * (mine[seed] - theirs[seed]) for seed in mine if seed in theirs]
        require(bool(gains), f"experiment {number} shares no seed with what it is compared with")
        gain = statistics.fmean(gains)
        require(gain > 0, f"experiment {number} is kept with a gain of {gain:+.3g}")
        if len(gains) > 1:
            error = statistics.stdev(gains) / math.sqrt(len(gains))
            require(gain >= LEAST_GAIN_Z * error, f"experiment {number}: gain {gain:+.3g}, standard error {error:.3g}")
        told.append(f"{number}: {gain:+.3g} over {len(gains)}")
    return "; ".join(told) or "nothing was kept beside the baseline"


# ---- grading


@dataclass(frozen=True, kw_only=True)
class Grade:
    """One assertion judged, in the form that skill-creator's viewer reads."""

    text: str
    passed: bool
    evidence: str


def judge(work: Workspace, texts: Sequence[str]) -> list[Grade]:
    """Judge the assertions ``texts``. What cannot even be looked at does not hold."""
    grades = []
    for text in texts:
        try:
            grades.append(Grade(text=text, passed=True, evidence=ASSERTIONS[text](work)))
        except Failed as failed:
            grades.append(Grade(text=text, passed=False, evidence=str(failed)))
        except (OSError, sqlite3.Error, subprocess.SubprocessError, LookupError, ValueError, TypeError) as error:
            grades.append(Grade(text=text, passed=False, evidence=f"cannot be judged: {type(error).__name__}: {error}"))
    return grades


def grading(grades: Sequence[Grade]) -> dict[str, Any]:
    """The content of grading.json."""
    passed = sum(grade.passed for grade in grades)
    summary = {
        "passed": passed,
        "failed": len(grades) - passed,
        "total": len(grades),
        "pass_rate": passed / len(grades),
    }
    return {"expectations": [vars(grade) for grade in grades], "summary": summary}


def read_evals() -> dict[int, dict[str, Any]]:
    """The evals of evals.json by their id."""
    return {one["id"]: one for one in json.loads(EVALS.read_text(encoding="utf-8"))["evals"]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, help="the folder that holds project/ and before.json")
    parser.add_argument("--snapshot", action="store_true", help="write before.json and judge nothing")
    parser.add_argument("--editable", nargs="+", default=["train.py"], help="what the agent may edit (train.py)")
    parser.add_argument(
        "--eval", type=int, choices=sorted(read_evals()), help="judge what evals.json asks of this one (default: all)"
    )
    parser.add_argument("--least", type=int, metavar="N", help="experiments beside the baseline (the eval's, else 1)")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative, when HEAD is run again (1e-6)")
    parser.add_argument("--socket", action="append", default=[], help="of a tmux server that must be empty")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write grading.json there as well")
    arguments = parser.parse_args(argv)
    if arguments.snapshot:
        before = snapshot(arguments.workspace / "project", arguments.editable)
        (arguments.workspace / "before.json").write_text(json.dumps(vars(before), indent=1), encoding="utf-8")
        return 0
    asked = read_evals().get(arguments.eval, {"expectations": list(ASSERTIONS), "least": 1})
    least = asked["least"] if arguments.least is None else arguments.least
    work = Workspace(arguments.workspace, least, arguments.tolerance, arguments.socket)
    grades = judge(work, asked["expectations"])
    for grade in grades:
        print(f"{'pass' if grade.passed else 'FAIL'}  {grade.text}\n      {grade.evidence}")
    result = grading(grades)
    print(f"{result['summary']['passed']} of {result['summary']['total']} hold")
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    return 0 if all(grade.passed for grade in grades) else 1


if __name__ == "__main__":
    raise SystemExit(main())

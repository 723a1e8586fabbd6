"""A campaign on a starter through the real scripts, with the edits of a list: what is kept, and what it costs.

    python benchmarks/starters/run.py                           what is in the lists, and whether it still applies
    python benchmarks/starters/run.py speed                     the baseline, then each edit of speed.yaml
    python benchmarks/starters/run.py vision --budget 5 --first 3 --out /tmp/v

A list, <starter>.yaml beside this file, is a sequence of edits, each made on the incumbent's train.py:

    - description: twice the learning rate
      family: optimizer
      replace: [["LR = 0.1", "LR = 0.2"]]

Each text to replace must stand exactly once in the starter's code, as it comes, after one earlier edit of the list,
or after all of them; this is checked before anything runs. Where the incumbent lacks it, since an earlier edit was
not kept or another replaced it, the table says "does not apply". The table, as Markdown and as JSON, is written anew
after every experiment. One training runs at a time; --budget shortens it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "scripts"
STARTERS = HERE.parents[1] / "templates" / "starters"
EDITED = "train.py"
TAG = "bench"
STILL_RUNNING = 10  # an exit code: ask again
# A campaign of its own on this machine: no enclosing one's settings, and this Python as `python`.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("AUTORESEARCH_", "TIME_BUDGET"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
}
KEPT_VARIABLES = ("AUTORESEARCH_CACHE", "AUTORESEARCH_LEASES")
ENVIRONMENT |= {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


class BenchError(Exception):
    """The list or a script's answer is wrong; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    description: str
    family: str
    replace: tuple[tuple[str, str], ...]

    def applied(self, code: str) -> str | None:
        """``code`` after all replacements in turn; None where a text is not there exactly once."""
        for old, new in self.replace:
            if code.count(old) != 1:
                return None
            code = code.replace(old, new)
        return code


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: an experiment, or an edit that did not apply."""

    number: int | None
    description: str
    family: str
    metric: float | None
    verdict: str
    status: str
    trials: int
    seconds: float  # wall clock, from the edit to the decision


# ---------------------------------------------------------------------------------------------------------
# Lists of edits


def read_edits(path: Path) -> list[Edit]:
    try:
        items = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist; there are lists for {', '.join(lists())}.") from None
    except yaml.YAMLError as error:
        raise BenchError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(items, list) or not items:
        raise BenchError(f"{path.name} holds {type(items).__name__}, where a list of edits is expected.")
    edits = [parse_edit(item, f"{path.name}, edit {i}") for i, item in enumerate(items, 1)]
    names = [edit.description for edit in edits]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BenchError(f"{path.name} describes two edits in the same words: {', '.join(sorted(twice))}.")
    return edits


def parse_edit(item: Any, where: str) -> Edit:
    if not isinstance(item, dict) or item.keys() != {"description", "family", "replace"}:
        raise BenchError(f"{where} must have the keys description, family and replace, and no other.")
    if not all(isinstance(item[key], str) and item[key].strip() for key in ("description", "family")):
        raise BenchError(f"{where}: description and family must be texts.")
    pairs = item["replace"]
    if not isinstance(pairs, list) or not pairs or not all(is_pair(pair) for pair in pairs):
        raise BenchError(f"{where}: replace must be a list of [old, new], both texts, old not empty.")
    replace = tuple((old, new) for old, new in pairs)
    return Edit(description=item["description"], family=item["family"], replace=replace)


def is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) and bool(pair[0])


def check_edits(edits: list[Edit], code: str) -> None:
    """``BenchError`` for an edit that applies neither to the starter's code, nor after one or all earlier edits."""
    chain = code  # after all earlier edits, where they applied
    for i, edit in enumerate(edits):
        starts = [code, chain, *(done for earlier in edits[:i] if (done := earlier.applied(code)) is not None)]
        results = [done for start in starts if (done := edit.applied(start)) is not None]
        if not results:
            missing = [old for old, _ in edit.replace if code.count(old) != 1]
            raise BenchError(
                f"edit {i + 1} ({edit.description}) does not apply to {EDITED}, nor after earlier edits: "
                f"not exactly once in it stands {missing[0] if missing else edit.replace[-1][0]!r}."
            )
        if all(done in starts for done in results):
            raise BenchError(f"edit {i + 1} ({edit.description}) changes nothing.")
        chain = edit.applied(chain) or chain


def lists() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.yaml"))


# ---------------------------------------------------------------------------------------------------------
# The campaign


@dataclass(frozen=True)
class Project:
    """The folder of a campaign, driven as an agent drives it."""

    folder: Path

    def call(self, script: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run a script to its end: its exit code, and the ``data`` of its answer."""
        command = [sys.executable, str(SCRIPTS / f"{script}.py"), *arguments, "--project", str(self.folder), "--json"]
        done = subprocess.run(
            command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False
        )
        answer = json.loads(done.stdout or "{}")
        if done.returncode not in {0, STILL_RUNNING} or "data" not in answer:
            error = answer.get("error") or {}
            told = error.get("message", "it gave no answer")
            raise BenchError(f"{script}.py ended with {done.returncode}: {told} (project: {self.folder})")
        return done.returncode, answer["data"]

    @property
    def code(self) -> str:
        return (self.folder / EDITED).read_text(encoding="utf-8")

    def experiment(self, description: str, family: str) -> Row:
        """Run what is in the work tree, wait for its verdict, have it decided."""
        started = time.monotonic()
        named = [] if family == "baseline" else ["--family", family]
        self.call("run_experiment", "-d", description, *named)
        while (state := self.call("status", "--wait", "540")[1])["state"] == "running":
            pass
        shown = state["experiment"] or state["baseline"]  # a baseline is decided by itself
        judged = self.call("log_result")[1]["experiment"]
        assert judged["number"] == shown["number"], "another experiment came in between"
        return Row(
            number=judged["number"], description=description, family=family, metric=judged["metric"],
            verdict=judged["verdict"], status=judged["status"], trials=len(shown["trials"]),
            seconds=round(time.monotonic() - started, 1),
        )  # fmt: skip


def campaign(project: Project, edits: list[Edit]) -> Iterator[Row]:
    """The baseline, then every edit, each on the incumbent's code."""
    yield project.experiment("baseline", "baseline")
    for edit in edits:
        code = edit.applied(project.code)
        if code is None:
            yield Row(
                number=None, description=edit.description, family=edit.family, metric=None, verdict="",
                status="does not apply", trials=0, seconds=0.0,
            )  # fmt: skip
            continue
        (project.folder / EDITED).write_text(code, encoding="utf-8")
        yield project.experiment(edit.description, edit.family)


# ---------------------------------------------------------------------------------------------------------
# The table


def markdown(metric: str, rows: list[Row]) -> str:
    lines = [f"| # | description | {metric} | verdict | status | trials | seconds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        number = "" if row.number is None else row.number
        value = "" if row.metric is None else f"{row.metric:.4g}" if abs(row.metric) >= 10 else f"{row.metric:.4f}"
        cells = (number, row.description, value, row.verdict, row.status, row.trials, f"{row.seconds:.0f}")
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write_tables(out: Path, starter: str, metric: str, rows: list[Row]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{starter}.md").write_text(markdown(metric, rows), encoding="utf-8")
    answer = {"starter": starter, "metric": metric, "rows": [asdict(row) for row in rows]}
    (out / f"{starter}.json").write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


def run(starter: str, edits: list[Edit], out: Path | None, budget_s: float | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f"autoresearch-bench-{starter}-")) / "project"
    out = (out or folder.parent).resolve()
    project, rows = Project(folder), list[Row]()
    print(f"project: {folder}\ntables:  {out / starter}.md and .json", flush=True)
    budget = [] if budget_s is None else ["--budget", f"{budget_s:g}"]
    settings = project.call("setup_campaign", "--starter", starter, "--tag", TAG, "--prepare", *budget)[1]["config"]
    metric = settings["metric"]["name"]
    for row in campaign(project, edits):
        rows.append(row)
        write_tables(out, starter, metric, rows)
        print(markdown(metric, [row]).splitlines()[-1], flush=True)
    print(f"\n{markdown(metric, rows)}")
    summary = [sys.executable, str(SCRIPTS / "summarize.py"), "--project", str(folder)]
    subprocess.run(summary, env=ENVIRONMENT, stdin=subprocess.DEVNULL, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("starter", nargs="?", choices=lists(), help="default: only look at the lists")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for the table (default: beside the project)")
    parser.add_argument("--budget", type=float, metavar="S", help="of one training, in place of the starter's own")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N edits")
    args = parser.parse_args()
    if args.first is not None and args.first < 1:
        parser.error(f"--first must be 1 or more; not {args.first}")
    try:
        edits = {name: read_edits(HERE / f"{name}.yaml") for name in ([args.starter] if args.starter else lists())}
        for name, listed in edits.items():
            check_edits(listed, (STARTERS / name / EDITED).read_text(encoding="utf-8"))
        if args.starter:
            run(args.starter, edits[args.starter][: args.first], args.out, args.budget)
        else:
            for name, listed in edits.items():
                print(f"{name:10} {len(listed):2} edits, all apply")
            print("Name a starter to run its campaign: make bench NAME=starters ARGS=speed")
    except BenchError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

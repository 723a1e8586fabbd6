"""Run the evals with a real client and model: does the skill trigger, and does an agent follow it.

    python evals/run.py --agent claude                      all four, with the skill
    python evals/run.py --agent claude --eval 1 3 --runs 3 --model MODEL
    python evals/run.py --agent claude --without-skill      the arm to compare with
    python evals/run.py --agent claude --triggers --runs 3

It needs Claude Code on the PATH and a key in the environment (ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN or
CLAUDE_CODE_OAUTH_TOKEN), and it costs tokens. The client works without asking for permission, in a home
and on a project of its own below --out; as root it does so only with --sandboxed, by which you say that
this machine is a sandbox. --out is laid out as skill-creator's viewer expects it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUNDLE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BUNDLE))

from evals.grade import grading, judge, read_evals
from evals.workspace import Workspace, git, snapshot

SKILL = "autoresearch"
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
HANDED_ON = (*KEYS, "ANTHROPIC_BASE_URL", "HTTPS_PROXY", "NO_PROXY", "LANG", "TMPDIR")
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "TERM": "xterm-256color"}
NOT_INSTALLED = shutil.ignore_patterns(".git", ".*venv*", ".*cache*", "__pycache__", "*.egg-info", "evals", "tests")
IDENTITY = "[user]\n    name = Eval\n    email = eval@localhost\n"
TURNS_TO_TRIGGER = 3  # of the model; a skill that is not opened by then is not opened
EXIT_NO_CLIENT = 5


@dataclass(frozen=True, kw_only=True)
class Client:
    """Claude Code in print mode: one prompt, one session, its events as lines of JSON."""

    binary: str
    model: str | None
    sandboxed: bool

    def command(self, prompt: str, turns: int) -> list[str]:
        words = [self.binary, "-p", prompt, "--output-format", "stream-json", "--verbose"]
        words += ["--dangerously-skip-permissions", "--max-turns", str(turns)]
        return words + (["--model", self.model] if self.model else [])

    def environment(self, home: Path) -> dict[str, str]:
        """The key, a home of its own, and a ``python3`` that has the bundle's packages."""
        env = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
        env |= {**QUIET, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return env | ({"IS_SANDBOX": "1"} if self.sandboxed else {})

    @contextmanager
    def session(self, prompt: str, project: Path, home: Path, *, turns: int, limit_s: float) -> Iterator[Iterator[str]]:
        """The lines that a session prints; it ends with the block or after ``limit_s``, children and all."""
        with subprocess.Popen(
            self.command(prompt, turns), cwd=project, env=self.environment(home), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        ) as process:  # fmt: skip
            timer = threading.Timer(limit_s, end, [process])
            timer.start()
            try:
                assert process.stdout is not None
                yield iter(process.stdout)
            finally:
                timer.cancel()
                end(process)


def end(process: subprocess.Popen[str]) -> None:
    """End a client and the shells it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                yield event


# ---- worlds


def make_home(folder: Path, *, with_skill: bool) -> Path:
    """A home that holds nothing but a git identity and, as after a clone, the skill."""
    home = folder / "home"
    home.mkdir(parents=True)
    (home / ".gitconfig").write_text(IDENTITY, encoding="utf-8")
    if with_skill:
        shutil.copytree(BUNDLE, home / ".claude" / "skills" / SKILL, ignore=NOT_INSTALLED)
    return home


def make_project(folder: Path, files: Sequence[str]) -> Path:
    """The toy project in git, with a change and a file of the user's own that are not committed."""
    project = folder / "project"
    for name in files:
        source = BUNDLE / name
        if source.is_dir():
            shutil.copytree(source, project, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project)
    git(project, "init", "-q", "-b", "main")
    git(project, "add", ".")
    git(project, "-c", "user.name=Eval", "-c", "user.email=eval@localhost", "commit", "-q", "-m", "Start")
    with (project / "README.md").open("a", encoding="utf-8") as file:
        file.write("\nThis sentence is not fin")
    (project / "notes.txt").write_text("Ask Kim about the second data set.\n", encoding="utf-8")
    (folder / "before.json").write_text(json.dumps(vars(snapshot(project, ["train.py"])), indent=1), encoding="utf-8")
    return project


# ---- one eval


def run_eval(
    client: Client, asked: dict[str, Any], folder: Path, *, with_skill: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """Let the agent work, judge what it left, and write both beside it; returns the run's row of benchmark.json."""
    home = make_home(folder, with_skill=with_skill)
    project = make_project(folder, asked["files"])
    started, tokens, calls = time.monotonic(), 0, 0
    with (folder / "transcript.jsonl").open("w", encoding="utf-8") as transcript:
        for prompt in filter(None, (asked["prompt"], asked.get("resume_prompt"))):
            left_s = 60 * options.minutes - (time.monotonic() - started)
            with client.session(prompt, project, home, turns=options.max_turns, limit_s=max(1.0, left_s)) as lines:
                for event in events(keep_lines(lines, transcript)):
                    tokens += tokens_of(event)
                    calls += len(list(tool_uses(event)))
    seconds = time.monotonic() - started
    grades = judge(Workspace(folder, least=asked["least"]), asked["expectations"])
    result = grading(grades)
    write(folder / "grading.json", result)
    timing = {"total_tokens": tokens, "duration_ms": round(1000 * seconds), "total_duration_seconds": round(seconds, 1)}
    write(folder / "timing.json", timing)
    (folder / "outputs").mkdir()
    with suppress(FileNotFoundError):
        shutil.copy(project / "results.tsv", folder / "outputs")
    for grade in grades:
        print(f"  {'pass' if grade.passed else 'FAIL'}  {grade.text}\n        {grade.evidence}")
    cost = {"time_seconds": round(seconds, 1), "tokens": tokens, "tool_calls": calls, "errors": 0}
    return {
        "eval_id": asked["id"], "eval_name": f"eval-{asked['id']}",
        "configuration": "with_skill" if with_skill else "without_skill", "result": {**result["summary"], **cost},
        "expectations": result["expectations"], "notes": [],
    }  # fmt: skip


def keep_lines(lines: Iterator[str], file: Any) -> Iterator[str]:
    for line in lines:
        file.write(line)
        yield line


def tokens_of(event: dict[str, Any]) -> int:
    """All tokens of a session, told with its end."""
    usage = event.get("usage") if event.get("type") == "result" else None
    return sum(value for name, value in usage.items() if name.endswith("_tokens")) if isinstance(usage, dict) else 0


def tool_uses(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tools that the model calls in this event."""
    content = event.get("message", {}).get("content") if event.get("type") == "assistant" else None
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") == "tool_use":
            yield block


def summed_up(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ``run_summary`` of benchmark.json."""
    summary: dict[str, Any] = {}
    for arm in dict.fromkeys(row["configuration"] for row in rows):
        results = [row["result"] for row in rows if row["configuration"] == arm]
        summary[arm] = {
            name: spread([float(result[name]) for result in results])
            for name in ("pass_rate", "time_seconds", "tokens")
        }
    return summary


def spread(values: Sequence[float]) -> dict[str, float]:
    sd = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "stddev": sd, "min": min(values), "max": max(values)}


# ---- triggers


def opens_skill(client: Client, query: str, project: Path, home: Path, limit_s: float) -> bool:
    """Whether the model opens the skill for ``query``: by the Skill tool, or by reading SKILL.md."""
    with client.session(query, project, home, turns=TURNS_TO_TRIGGER, limit_s=limit_s) as lines:
        return any(is_opening(block) for event in events(lines) for block in tool_uses(event))


def is_opening(block: dict[str, Any]) -> bool:
    given = block.get("input") or {}
    if block.get("name") == "Skill":
        return str(given.get("skill", "")).rpartition(":")[2] == SKILL
    return block.get("name") == "Read" and str(given.get("file_path", "")).endswith(f"{SKILL}/SKILL.md")


def run_triggers(client: Client, out: Path, options: argparse.Namespace) -> bool:
    """Ask every query ``--runs`` times; writes out/triggers.json, returns whether all passed."""
    queries = json.loads((BUNDLE / "evals" / "triggers.json").read_text(encoding="utf-8"))[: options.first]
    home = make_home(out, with_skill=True)
    project = make_project(out, ["evals/files/toy"])
    rows = []
    for one in queries:
        opened = [opens_skill(client, one["query"], project, home, 60 * options.minutes) for _ in range(options.runs)]
        rate = sum(opened) / len(opened)
        right = (rate >= 0.5) is one["should_trigger"]
        rows.append({**one, "trigger_rate": rate, "triggers": sum(opened), "runs": len(opened), "pass": right})
        print(f"{'pass' if right else 'FAIL'}  {sum(opened)} of {len(opened)}  {one['query']}", flush=True)
    passed = sum(bool(row["pass"]) for row in rows)
    write(
        out / "triggers.json",
        {"results": rows, "summary": {"total": len(rows), "passed": passed, "failed": len(rows) - passed}},
    )
    print(f"{passed} of {len(rows)} pass")
    return passed == len(rows)


# ---- command line


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def find_client(options: argparse.Namespace) -> Client | str:
    """The client, or why there is none."""
    binary = shutil.which(options.agent)
    if binary is None:
        return f"{options.agent} is not on the PATH: npm install -g @anthropic-ai/claude-code"
    if not any(os.environ.get(name) for name in KEYS):
        return f"There is no key: set one of {', '.join(KEYS)}. Without one only the judge can be tried: evals/grade.py"
    if os.geteuid() == 0 and not options.sandboxed:
        return "As root the client works unasked only in a sandbox: say --sandboxed if this machine is one"
    return Client(binary=binary, model=options.model, sandboxed=options.sandboxed)


def new_iteration(out: Path) -> Path:
    number = 1
    while (out / f"iteration-{number}").exists():
        number += 1
    return out / f"iteration-{number}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", choices=("claude",), required=True, help="the client")
    parser.add_argument("--model", help="by its name (default: the client's own)")
    parser.add_argument("--eval", type=int, nargs="+", choices=sorted(read_evals()), help="which (default: all)")
    parser.add_argument("--triggers", action="store_true", help="ask the queries of triggers.json instead")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N queries")
    parser.add_argument("--runs", type=int, default=1, help="of each eval or query (1; quote a spread from 3 on)")
    parser.add_argument("--without-skill", action="store_true", help="leave the skill out")
    parser.add_argument("--max-turns", type=int, default=200, help="of the model in one session (200)")
    parser.add_argument("--minutes", type=float, default=30.0, help="for one run (30)")
    parser.add_argument("--sandboxed", action="store_true", help="as root: this machine is a sandbox")
    parser.add_argument("--out", type=Path, default=Path("autoresearch-workspace"), help="(autoresearch-workspace)")
    options = parser.parse_args(argv)
    client = find_client(options)
    if isinstance(client, str):
        print(client, file=sys.stderr)
        return EXIT_NO_CLIENT
    iteration = new_iteration(options.out.resolve())
    if options.triggers:
        return 0 if run_triggers(client, iteration, options) else 1
    rows = []
    for number in options.eval or sorted(read_evals()):
        asked = read_evals()[number]
        arm = "without_skill" if options.without_skill else "with_skill"
        for run in range(1, options.runs + 1):
            folder = iteration / f"eval-{number}" / arm / f"run-{run}"
            print(f"eval {number}, run {run}: {folder}", flush=True)
            row = run_eval(client, asked, folder, with_skill=not options.without_skill, options=options)
            rows.append({**row, "run_number": run})
        names = {"eval_id": number, "eval_name": f"eval-{number}", "prompt": asked["prompt"]}
        write(iteration / f"eval-{number}" / "eval_metadata.json", {**names, "assertions": asked["expectations"]})
    metadata = {"skill_name": SKILL, "model": options.model or "default", "runs": options.runs}
    write(
        iteration / "benchmark.json", {"metadata": metadata, "runs": rows, "run_summary": summed_up(rows), "notes": []}
    )
    return 0 if all(row["result"]["failed"] == 0 for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())

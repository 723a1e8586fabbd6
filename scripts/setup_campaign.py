#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "nvidia-ml-py>=12.560,<14",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
# ]
# ///
"""Set a campaign up: tag, branch, settings, checks, results.tsv, CLAUDE.md; or give one new settings.

What is not said by a flag or by an autoresearch.yaml is detected. Nothing is asked: read what was
found, and correct it with flags.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.errors import UsageError
from autoresearch.output import Parser, Result, one_line, run_script

if TYPE_CHECKING:
    from autoresearch.campaign.detect import Finding
    from autoresearch.campaign.reconfigure import Reconfigured
    from autoresearch.campaign.setup_plan import SetUp

EXAMPLES = """\
  python scripts/setup_campaign.py
  python scripts/setup_campaign.py --tag apr5 --metric val_loss --direction lower --edit model.py --dry-run
  python scripts/setup_campaign.py --starter nanogpt --project ~/nanogpt --prepare
  python scripts/setup_campaign.py --import results.tsv
  python scripts/setup_campaign.py --reconfigure --budget 600"""
NEXT = 'python scripts/run_experiment.py -d "baseline"'


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    what = parser.add_argument_group("the campaign's settings (default: autoresearch.yaml, else detected)")
    what.add_argument("--command", metavar="LINE", help='how one training is run: "uv run train.py --seed {seed}"')
    what.add_argument("--metric", metavar="NAME", help="the number to improve, as the training prints it")
    what.add_argument("--direction", choices=("lower", "higher"), help="which is better")
    for flag, text in (
        ("edit", "what experiments may change: files, folders, globs"),
        ("protect", "what measures; protected also below a folder of --edit"),
        ("data", "must exist, and is fingerprinted; '' for none"),
        ("watch", "further numbers to record"),
    ):
        what.add_argument(f"--{flag}", metavar=flag.upper(), nargs="+", action="extend", help=text)
    what.add_argument("--budget", metavar="SECONDS", type=float, help="of training, for each trial")
    how = parser.add_argument_group("how to begin")
    how.add_argument("--tag", help="default: today's, such as apr5")
    how.add_argument(
        "--starter", metavar="NAME", help="copy a starter into the folder first: nanogpt, vision, rl, topology, speed"
    )
    how.add_argument("--prepare", action="store_true", help="make the data if it is missing")
    how.add_argument(
        "--import", metavar="TSV", type=Path, dest="import_file", help="adopt an earlier run's results.tsv"
    )
    how.add_argument("--reconfigure", action="store_true", help="new settings for a campaign: a new epoch and baseline")
    how.add_argument("--agents-md", action="store_true", help="also write AGENTS.md if there is none")
    how.add_argument("--dry-run", action="store_true", help="say what would be done and write nothing")
    return parser


def work(args: argparse.Namespace) -> Result:
    from autoresearch.campaign.opened import open_campaign
    from autoresearch.campaign.reconfigure import reconfigure
    from autoresearch.campaign.setup import set_up
    from autoresearch.campaign.setup_plan import Request
    from autoresearch.campaign.wishes import Wishes

    named = ("edit", "protect", "data", "watch")
    lists = {key: None if (value := getattr(args, key)) is None else tuple(filter(None, value)) for key in named}
    wishes = Wishes(
        command=args.command, metric=args.metric, direction=args.direction, budget_s=args.budget, **lists
    )  # fmt: skip
    if args.reconfigure:
        _refuse_beside_reconfigure(args)
        with open_campaign(args.project, args.tag) as oc:
            return _tell_reconfigured(reconfigure(oc, wishes, dry_run=args.dry_run), oc.tag, args.dry_run)
    request = Request(
        project=args.project.expanduser(), wishes=wishes, tag=args.tag, starter=args.starter,
        prepare=args.prepare, import_file=args.import_file, agents_md=args.agents_md, dry_run=args.dry_run,
    )  # fmt: skip
    # A tag is the day as the user's clock shows it.
    return _tell_set_up(set_up(request, date.today()))  # noqa: DTZ011


def _refuse_beside_reconfigure(args: argparse.Namespace) -> None:
    beside = {"--starter": args.starter, "--import": args.import_file, "--prepare": args.prepare}
    for flag, value in {**beside, "--agents-md": args.agents_md}.items():
        if value:
            raise UsageError(
                f"{flag} is for a new campaign and does not go with --reconfigure.",
                hint=f"Leave {flag} or --reconfigure out.",
            )


def _tell_set_up(done: SetUp) -> Result:
    from autoresearch.report.memory_text import earlier_lines

    data = {
        "tag": done.tag, "branch": done.branch, "base_commit": done.base_commit, "dry_run": done.dry_run,
        "config": done.config.shown(),
        "findings": [{"key": one.key, "value": one.value, "how": one.how} for one in done.findings],
        "notes": done.notes, "done": done.done, "next": NEXT,
        "memory": None if done.memory is None else asdict(done.memory),
    }  # fmt: skip
    title = f"Campaign {done.tag}" + (" (dry run: nothing was written)" if done.dry_run else " is set up.")
    lines = [title, *map(_line, done.findings), *(f"  note: {note}" for note in done.notes)]
    lines += [f"  {sentence}" for sentence in done.done]
    lines += [] if done.memory is None else [f"  {line}" for line in earlier_lines(done.memory)]
    right = "If something is wrong:" if done.dry_run else "If something is wrong, change autoresearch.yaml, then:"
    flags = "give the flag that says it (--help)" if done.dry_run else "setup_campaign.py --reconfigure"
    after = "Next: the same command without --dry-run" if done.dry_run else f"Next, for the baseline: {NEXT}"
    lines += [f"{right} {flags}", after]
    return Result(data=data, text="\n".join(lines))


def _line(finding: Finding) -> str:
    return f"  {finding.key:<10} {one_line(finding.value, 70)}   ({one_line(finding.how, 110)})"


def _tell_reconfigured(done: Reconfigured, tag: str, dry_run: bool) -> Result:
    data = {
        "tag": tag, "changed": done.changed, "dry_run": dry_run, "epoch": done.epoch,
        "base_commit": done.base_commit,
        "differences": {key: {"old": old, "new": new} for key, (old, new) in done.differences.items()},
        "notes": done.notes, "next": NEXT,
    }  # fmt: skip
    if not done.changed:
        data["next"] = "python scripts/status.py"
        return Result(data=data, text=f"Campaign {tag}: the settings are as they were.\nNext: {data['next']}")
    verb = "would begin" if dry_run else "begins"
    lines = [f"Campaign {tag}: epoch {done.epoch} {verb}, with a new baseline."]
    lines += [f"  {key}: {old} -> {new}" for key, (old, new) in done.differences.items()]
    lines += [f"  note: {note}" for note in done.notes]
    return Result(data=data, text="\n".join([*lines, f"Next, for the baseline: {NEXT}"]))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "matplotlib>=3.9,<4",
#     "nvidia-ml-py>=12.560,<14",
#     "plotext>=6.1,<7",
#     "plotly>=6.0,<8",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "rich>=13.9,<16",
#     "scipy>=1.15,<2",
# ]
# ///
"""Say what a campaign has found: what was kept, how sure that is, and what failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.errors import UsageError
from autoresearch.output import Parser, Result, run_script, say

if TYPE_CHECKING:
    from autoresearch.report.figures import Summary
    from autoresearch.report.team import TeamSummary

ABOUT_ONE = ("claim", "chart", "notify", "plot", "html", "csv", "parquet", "mlflow", "tensorboard", "wandb")

EXAMPLES = """\
  python scripts/summarize.py
  python scripts/summarize.py --tag apr5 --json
  python scripts/summarize.py --all-tags
  python scripts/summarize.py --claim 6
  python scripts/summarize.py --chart
  python scripts/summarize.py --plot progress.png --html report.html
"""


def build_parser() -> Parser:
    parser = Parser(
        "Summarize a campaign: how good the best is and how sure that is, what was kept, near\n"
        "misses, discoveries, failures, time, families, notes, and what to do next. Takes no\n"
        "lock and changes nothing, so it may be run while the campaign runs; only --claim\n"
        "starts trials.",
        EXAMPLES,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--tag",
        help="the campaign (default: the checked-out branch's, else the newest, with all agents of its session)",
    )
    which.add_argument("--session", metavar="NAME", help="all agents that worked side by side in this session")
    which.add_argument("--all-tags", action="store_true", help="compare all campaigns of the repository")
    parser.add_argument(
        "--claim", type=int, metavar="N", help="first compare the baseline with the best at N fresh seeds (5 or more)"
    )
    parser.add_argument("--chart", action="store_true", help="draw the progress in the terminal instead of the text")
    parser.add_argument("--notify", action="store_true", help="send the headline to the channels under `notify`")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="draw the progress into a .png, .svg or .pdf")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the interactive report, one file for offline")
    out = parser.add_argument_group("exports, for other programs")
    out.add_argument(
        "--csv",
        metavar="FILE",
        type=Path,
        help="one row an experiment; beside out.csv also out.trials.csv, one row a trial",
    )
    out.add_argument("--parquet", metavar="FILE", type=Path, help="the same two tables; needs pyarrow")
    out.add_argument("--mlflow", metavar="URI|DIR", help="a server, or a folder for a database; needs mlflow-skinny")
    out.add_argument("--tensorboard", metavar="DIR", type=Path, help="curves and progress; needs tensorboard")
    out.add_argument("--wandb", metavar="DIR", type=Path, help="offline runs for `wandb sync`; needs wandb")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.report.export import Targets, export
    from autoresearch.report.pictures import check_pictures, write_pictures
    from autoresearch.report.recommendations import recommend
    from autoresearch.report.summary import read_summaries
    from autoresearch.report.team_text import render_all
    from autoresearch.report.text import render, render_comparison

    if arguments.claim is not None and arguments.all_tags:
        raise UsageError(
            "--claim is about one campaign, and --all-tags means all.",
            hint=f"Name one of them: python scripts/summarize.py --tag TAG --claim {arguments.claim}",
        )
    check_pictures(arguments.plot, arguments.html, all_tags=arguments.all_tags)
    if arguments.claim is not None:
        from autoresearch.campaign.compare import compare

        compare(
            arguments.project,
            "baseline",
            "best",
            tag=arguments.tag,
            seeds=arguments.claim,
            exploratory=False,
            ablate=False,
            tell=lambda text: say(f"running: {text}"),
        )
    team = _team(arguments)
    summaries = read_summaries(arguments.project, tag=arguments.tag, all_tags=arguments.all_tags)
    data: dict[str, Any]
    if team is not None:
        data = {"team": asdict(team[0]), "campaigns": [asdict(summary) for summary in team[1]]}
        text = render_all(*team)
    elif arguments.all_tags:
        data, text = {"campaigns": [asdict(summary) for summary in summaries]}, render_comparison(summaries)
    else:
        data, text = asdict(summaries[0]), render(summaries[0])
        data["recommendations"] = [asdict(each) for each in recommend(summaries[0])]
    if arguments.chart:
        from autoresearch.report.series import read_series
        from autoresearch.report.terminal_chart import render_chart

        campaigns = read_series(arguments.project, tag=arguments.tag, all_tags=arguments.all_tags, detailed=0)
        text = "\n".join(map(render_chart, campaigns))
    targets = Targets(**{name: getattr(arguments, name) for name in Targets.__dataclass_fields__})
    if targets.any:
        data["exported"] = export(arguments.project, targets, tag=arguments.tag, all_tags=arguments.all_tags)
        text = "\n".join([text.rstrip("\n"), *data["exported"]])
    written = write_pictures(
        arguments.project, arguments.plot, arguments.html, tag=arguments.tag, all_tags=arguments.all_tags
    )
    if written:
        data["written"] = written
        text = "\n".join([text.rstrip("\n"), *(f"wrote {path}" for path in written.values())])
    if arguments.notify:
        from autoresearch.report.digest import render_delivery, send_digest

        delivery = send_digest(arguments.project, summaries[-1])
        data["notified"], text = asdict(delivery), f"{text.rstrip()}\n{render_delivery(delivery)}"
    return Result(data=data, text=text)


def _team(arguments: argparse.Namespace) -> tuple[TeamSummary, list[Summary]] | None:
    """All agents of a session, where the text is asked for and no single campaign; everything else is about one."""
    from autoresearch.report.team import read_team

    about_one = [name for name in ABOUT_ONE if getattr(arguments, name) not in (None, False)]
    if arguments.session is not None and about_one:
        raise UsageError(
            f"--{about_one[0]} is about one campaign, and --session names several.",
            hint=f"Name one of them: python scripts/summarize.py --tag TAG --{about_one[0]}",
        )
    if arguments.tag is not None or arguments.all_tags or about_one:
        return None
    return read_team(arguments.project, session=arguments.session)


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())

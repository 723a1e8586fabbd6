"""The campaign's block in CLAUDE.md and AGENTS.md: what an agent must know in every session.

The block stands between two markers; what is outside them is the user's and stays to the byte. In a
file that git tracks the block is part of the campaign's base commit and holds nothing that changes
later, so that a keep never leaves the user's file modified.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.ledger import Campaign, Experiment
from autoresearch.output import one_line
from autoresearch.plain import metric_text

BEGIN = "<!-- autoresearch:begin -->"
END = "<!-- autoresearch:end -->"
PARTIAL_SUFFIX = ".autoresearch"
MEMO_FILES = ("CLAUDE.md", "AGENTS.md")
BUNDLE = Path(__file__).resolve().parents[3]
_BLOCK = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Memo:
    """One file to render the block into. ``path`` follows links and is relative to the project."""

    path: str
    tracked: bool


def memo_files(project: Path, tracked: Sequence[str], *, agents_md: bool) -> list[Memo]:
    """The files that get the block: CLAUDE.md always, AGENTS.md if it is there or asked for.

    One is enough where one is a link to the other or CLAUDE.md imports AGENTS.md. A link that leaves
    the project is left alone.
    """
    names = ["CLAUDE.md"]
    if agents_md or (project / "AGENTS.md").exists():
        names.append("AGENTS.md")
        if re.search(r"(?m)^\s*@(\./)?AGENTS\.md\s*$", read_memo(project / "CLAUDE.md")):
            names.remove("CLAUDE.md")
    places = dict.fromkeys((project / name).resolve() for name in names)
    inside = [place.relative_to(project).as_posix() for place in places if place.is_relative_to(project)]
    return [Memo(path=path, tracked=path in tracked) for path in inside]


def read_memo(path: Path) -> str:
    """The file's text, line ends as they are, undecodable bytes as surrogates; "" if there is none."""
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def with_block(text: str, block: str, name: str) -> str:
    """``text`` with ``block`` between its markers, or at its end where it has none; the rest as it was."""
    check_markers(text, name)
    newline = "\r\n" if "\r\n" in text else "\n"
    marked = f"{BEGIN}\n{block.strip()}\n{END}".replace("\n", newline)
    if BEGIN in text:
        return _BLOCK.sub(lambda _: marked, text, count=1)
    if not text:
        return marked + newline
    if text.endswith("\n"):
        return text + newline + marked + newline
    return text + 2 * newline + marked


def without_block(text: str) -> str:
    """``text`` as it was before ``with_block``."""
    found = _BLOCK.search(text)
    if found is None:
        return text
    before, after = text[: found.start()], text[found.end() :]
    if after.strip("\r\n"):
        return before + after
    newline = "\r\n" if "\r\n" in text else "\n"
    return before.removesuffix(newline if after else 2 * newline)


def check_markers(text: str, name: str) -> None:
    """Refuse a file in which it is not clear where the block is."""
    if (text.count(BEGIN), text.count(END)) not in ((0, 0), (1, 1)) or text.find(END) < text.find(BEGIN):
        raise RefusedError(
            f"{name} has {text.count(BEGIN)} x {BEGIN} and {text.count(END)} x {END}; "
            "expected one of each, in this order, or none.",
            hint=f"Mend the markers in {name}, or delete them with what is between them.",
            code="memo_markers",
        )


def render_memo(oc: OpenCampaign) -> bool:
    """Bring the block up to date wherever its markers still stand; returns whether a file changed.

    Called after each keep. A user who has taken the markers out has taken the block out.
    """
    tracked = oc.repo.files(oc.campaign.base_commit)
    changed = False
    for memo in memo_files(oc.repo.project, tracked, agents_md=True):
        path = oc.repo.project / memo.path
        text = read_memo(path)
        if text.count(BEGIN) != 1 or text.count(END) != 1 or text.find(END) < text.find(BEGIN):
            continue
        best = "" if memo.tracked else best_so_far(oc)
        block = render_block(oc.campaign, oc.config, oc.repo.project, tracked=memo.tracked, best=best)
        changed |= replace_text(path, with_block(text, block, memo.path))
    return changed


def write_tracked(campaign: Campaign, config: Config, project: Path, memos: Sequence[Memo]) -> list[str]:
    """Write the block into those of ``memos`` that git tracks; their paths, which belong into the base commit."""
    paths = [memo.path for memo in memos if memo.tracked]
    for name in paths:
        block = render_block(campaign, config, project, tracked=True)
        replace_text(project / name, with_block(read_memo(project / name), block, name))
    return paths


def replace_text(path: Path, text: str) -> bool:
    """Make ``path`` say ``text``, atomically and with its mode kept; False if it already does."""
    if path.exists() and read_memo(path) == text:
        return False
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    # One name, which the exclude list knows: what a kill leaves is neither seen by git nor left for good.
    temporary = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")
    try:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def render_block(campaign: Campaign, config: Config, project: Path, *, tracked: bool, best: str = "") -> str:
    """What stands between the markers. In a tracked file it names no path of this machine."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - the output is Markdown
        loader=jinja2.FileSystemLoader(BUNDLE / "templates"), undefined=jinja2.StrictUndefined
    )
    values: dict[str, Any] = {
        "tag": campaign.tag, "branch": campaign.branch, "scripts": _scripts_folder(project, tracked=tracked),
        "metric": config.metric.name, "direction": config.metric.direction,
        "command": one_line(config.command), "budget": _duration(config.budget_s),
        "limit": _duration(config.limit_s), "edit": _listed(config.edit), "protect": _listed(config.protect),
        "data": _listed(config.data),
        "constraints": _listed([constraint.text for constraint in config.constraints]), "best": best,
        "team": campaign.setup.get("team", ""),
    }  # fmt: skip
    return environment.get_template("CLAUDE.md.j2").render(values)


def best_so_far(oc: OpenCampaign) -> str:
    """The incumbent in a sentence; "" before a baseline is measured."""
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is None or incumbent.epoch != oc.campaign.epoch or incumbent.metric is None:
        return ""
    return _sentence(incumbent, incumbent.metric, oc.config, _sigma(oc.campaign))


def _sentence(incumbent: Experiment, metric: float, config: Config, sigma: float | None) -> str:
    what = "the baseline" if incumbent.is_baseline else f"experiment {incumbent.number}"
    said = one_line(incumbent.description, 100).replace("`", "'")
    described = "" if incumbent.is_baseline else f" (`{said}`)"
    noise = "" if not sigma else f"; one run of the same code differs from the next by about {sigma:.2g}"
    return f"`{config.metric.name}` {metric_text(metric)}, {what}{described}{noise}"


def _sigma(campaign: Campaign) -> float | None:
    """The noise of a single run, in the metric's unit, as the keep rule knows it."""
    if campaign.rule is None:
        return None
    from autoresearch.verdict.keep_rule import KeepRule

    return KeepRule.from_json(campaign.rule).sigma


def _scripts_folder(project: Path, *, tracked: bool) -> str:
    folder = BUNDLE / "scripts"
    if folder.is_relative_to(project):
        return folder.relative_to(project).as_posix()
    if tracked:
        return ""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() fails without a home, this does not
    return f"~/{folder.relative_to(home).as_posix()}" if folder.is_relative_to(home) else folder.as_posix()


def _listed(items: Sequence[str]) -> str:
    return ", ".join(f"`{one_line(item)}`" for item in items)


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} s"

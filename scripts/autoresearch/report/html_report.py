"""The campaign as one HTML file that opens offline: no request leaves it, and its scripts are named by hash."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch import __version__
from autoresearch.output import one_line
from autoresearch.report.figures import Summary
from autoresearch.report.format import duration, gpu_hours, margin, number, share, signed
from autoresearch.report.open_text import under_way
from autoresearch.report.payload import block, comparison, payload, script_json
from autoresearch.report.recommendations import recommend
from autoresearch.report.series import Series, read_series
from autoresearch.report.target import check_target, replaced

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"
SUFFIXES = ("html", "htm")
MOST_BYTES = 7_900_000  # of the whole page; browsers and mail programs take it
LEAST_ROOM = 200_000  # for the campaign, whatever plotly takes


@dataclass(frozen=True, kw_only=True)
class Written:
    """The page that was written."""

    path: Path
    size_bytes: int
    experiments: int


def write_report(
    project: Path, path: Path, *, tag: str | None = None, all_tags: bool = False, finished: bool = False
) -> Written:
    """Write the page of the campaign that ``open_campaign`` would find, atomically.

    With ``all_tags`` it begins with a comparison of all campaigns of the repository. A page reloads itself
    until the campaign has been quiet for long, or not at all if it is ``finished``.
    """
    check_target(path, SUFFIXES, "--html")
    series = read_series(project, tag=tag)[0]
    others = read_series(project, all_tags=True, detailed=0) if all_tags else []
    text = render_report(series, others, finished=finished)
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return Written(path=path, size_bytes=len(text.encode("utf-8", "replace")), experiments=len(series.experiments))


def render_report(series: Series, others: Sequence[Series] = (), *, finished: bool = False) -> str:
    """The page of one campaign, with ``others`` compared."""
    import jinja2
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number, "margin": margin, "signed": signed, "duration": duration, "share": share,
        "gpu_hours": gpu_hours, "line": one_line, "block": block,
    }  # fmt: skip
    plotly, style, code = get_plotlyjs(), _read("report.css"), _read("report.js")
    fixed = len(plotly.encode()) + len(style.encode()) + len(code.encode())
    data = payload(series, room=max(MOST_BYTES - fixed - _server_side(series.summary), LEAST_ROOM), finished=finished)
    if others:
        data["comparison"] = comparison(others)
    context: dict[str, Any] = {
        "summary": series.summary,
        "sign": series.sign,
        "others": [each.summary for each in others],
        "steps": recommend(series.summary),
        "under_way": under_way(series.summary),
        "read_at": series.read_at,
        "version": __version__,
        "policy": _policy(plotly, code),
        "data": script_json(data),
        "plotly": plotly,
        "style": style,
        "code": code,
    }
    return environment.get_template("report.html.j2").render(context)


def _server_side(summary: Summary) -> int:
    """Bytes to leave for what the template writes: a page without tables, and rows."""
    return 120_000 + 700 * (len(summary.families) + len(summary.failures))


def _policy(*scripts: str) -> str:
    """The content security policy: only these scripts run, and nothing is fetched from anywhere."""
    hashes = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")

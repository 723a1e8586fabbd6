from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.campaign_kinds import (
    KINDS,
    NASTY,
    Fill,
    deterministic,
    nasty_texts,
    only_a_baseline,
    only_crashes,
    read_small,
)
from tests.conftest import RunScript
from tests.ledger_builder import LedgerBuilder
from tests.simulated_campaign import simulate

from autoresearch.errors import UsageError
from autoresearch.ledger import Ledger, Purpose, Status
from autoresearch.output import one_line
from autoresearch.report.format import duration, number, share, signed
from autoresearch.report.html_report import MOST_BYTES, render_report, write_report
from autoresearch.report.open_text import under_way
from autoresearch.report.payload import OUTCOMES, PURPOSES, STATUSES, payload, script_json
from autoresearch.report.series import Series, read_series


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("html") / "project"
    simulate(folder, runs=80, open_one=True)
    return folder


@pytest.fixture(scope="module")
def series(project: Path) -> Series:
    return read_series(project)[0]


@pytest.fixture(scope="module")
def page(series: Series) -> str:
    return render_report(series)


class Page(HTMLParser):
    """The page's data, its elements and the text of those marked with ``data-figure``."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: dict[str, str] = {}
        self.scripts: list[str] = []
        self._open: list[str] = []
        self._figure = ""
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._figure = dict(attrs).get("data-figure") or ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._figure = ""

    def handle_data(self, data: str) -> None:
        if self.lasttag == "script" and self.scripts and self.get_starttag_text() is not None and self.cdata_elem:
            self.scripts[-1] += data
            return
        self.text += data
        if self._figure:
            self.figures[self._figure] = data

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))


@pytest.fixture
def without_plotly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five megabytes less to render and to parse, where they are not the point."""
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/* plotly */")


def near(expected: float | None, rel: float = 1e-5) -> Any:
    return None if expected is None else pytest.approx(expected, rel=rel)


# ---- numbers


def test_every_number_in_the_page_equals_the_ledger(project: Path, page: str) -> None:
    data = Page(page).data
    columns = data["columns"]
    with Ledger(project / ".git" / "autoresearch") as ledger:
        rows, trials = ledger.experiments("apr5"), ledger.trials("apr5")
    assert columns["number"] == [row.number for row in rows]
    assert columns["metric"] == [row.metric for row in rows]
    assert columns["memory"] == [row.peak_mem_mib for row in rows]
    assert columns["incumbent"] == [row.incumbent for row in rows]
    assert columns["added"] == [row.lines_added for row in rows]
    assert columns["deleted"] == [row.lines_deleted for row in rows]
    assert columns["commit"] == [row.commit[:7] for row in rows]
    assert columns["description"] == [one_line(row.description) for row in rows]
    assert [STATUSES[at] for at in columns["status"]] == [row.status or "open" for row in rows]
    assert [data["families"][at] for at in columns["family"]] == [row.family for row in rows]
    for at, row in enumerate(rows):
        judged = row.judgement
        assert columns["gain"][at] == near(judged.get("gain"))
        assert columns["z"][at] == (None if "z" not in judged else pytest.approx(judged["z"], abs=1e-6))
        half = (judged["gain_high"] - judged["gain_low"]) / 2 if "gain_low" in judged else None
        assert columns["margin"][at] == near(half)
        own = [trial for trial in trials if trial.number == row.number]
        for shown, trial in zip(columns["trials"][at], own, strict=True):
            seed, purpose, outcome, metric, seconds, attempt = shown
            assert (seed, PURPOSES[purpose], metric, attempt) == (
                trial.seed,
                trial.purpose,
                trial.metric,
                trial.attempt,
            )
            assert OUTCOMES[outcome] == ("running" if trial.result is None else trial.result.outcome)
            assert seconds == pytest.approx(0.0 if trial.result is None else trial.result.duration_s, abs=0.05)


def test_the_details_are_the_ledgers(project: Path, series: Series, page: str) -> None:
    details = Page(page).data["details"]
    assert set(details) == {str(each.number) for each in series.experiments}
    kept = [each for each in series.experiments if each.kept and not each.is_baseline]
    assert kept
    for each in kept:
        detail = details[str(each.number)]
        assert (detail["commit"], detail["parent"], detail["diff"]) == (each.commit, each.parent, each.diff)
        assert (detail["note"], detail["reason"]) == (each.note, each.reason)
        trial = next(trial for trial in each.trials if trial.completed)
        curve = detail["curves"][str(trial.seed)]
        assert (curve[-2], curve[-1]) == (trial.curve[-1][0], pytest.approx(trial.curve[-1][1], rel=1e-4))
        assert set(zip(curve[::2], curve[1::2], strict=True)) <= {
            (at, float(f"{loss:.5g}")) for at, loss in trial.curve
        }


def test_the_cards_say_what_the_summary_says(series: Series, page: str) -> None:
    summary, shown = series.summary, Page(page).figures
    assert summary.credit and summary.baseline and summary.noise and summary.record
    assert shown == {
        "credit.level": number(summary.credit.level),
        "credit.margin": f"{1.96 * summary.credit.se:.2g}",
        "credit.gain": signed(summary.credit.gain),
        "baseline.metric": number(summary.baseline.metric),
        "experiments.run": str(summary.experiments.run),
        "experiments.kept": str(summary.experiments.kept),
        "experiments.discarded": str(summary.experiments.discarded),
        "experiments.crashed": str(summary.experiments.crashed),
        "experiments.open": str(summary.experiments.open),
        "elapsed_s": duration(summary.elapsed_s),
        "experiments_per_h": f"{summary.experiments_per_h:.1f}",
        "busy_share": share(summary.throughput.busy_share),
        "noise.sigma": f"{summary.noise.sigma:.3g}",
        "noise.df": str(summary.noise.df),
        "noise.rho": f"{summary.noise.rho:.2f}",
        "record.metric": number(summary.record.metric),
        "record.gain": signed(summary.record.gain),
        **({"experiments.undone": str(summary.experiments.undone)} if summary.experiments.undone else {}),
    }


def test_watched_values_are_the_means_of_the_deciding_trials(series: Series, page: str) -> None:
    watched = Page(page).data["watched"]
    assert {"trial seconds", "tokens_per_sec", "mfu_percent", "val_loss"} == set(watched)
    for at, each in enumerate(series.experiments):
        speeds = [
            trial.watched["tokens_per_sec"] for trial in each.trials if trial.completed and trial.purpose != "retest"
        ]
        expected = sum(speeds) / len(speeds) if speeds else None
        assert watched["tokens_per_sec"][at] == near(expected, 1e-6)


def some_open(builder: LedgerBuilder) -> None:
    baseline = builder.baseline([1.00, 1.01, 0.99])
    builder.trial(builder.open("warm up <b>longer</b>"), 1)
    builder.open("an idea that waits")
    builder.trial(baseline, 7, Purpose.RETEST)


def only_a_retest(builder: LedgerBuilder) -> None:
    builder.trial(builder.baseline([1.00, 1.01, 0.99]), 7, Purpose.RETEST)


@pytest.mark.parametrize(
    ("fill", "title", "numbers"),
    [(some_open, "Open experiments, on experiment 0", [1, 2, 0]), (only_a_retest, "Trials under way", [0])],
)
def test_what_is_open_and_every_trial_under_way_is_listed_as_in_the_text(
    tmp_path: Path, without_plotly: None, fill: Fill, title: str, numbers: list[int]
) -> None:
    series = read_small(tmp_path / "project", fill)
    text = Page(render_report(series)).text
    assert f"{title}as of {series.read_at[11:16]} UTC" in text
    told, rows = under_way(series.summary)
    assert (told, [row.number for row in rows]) == (title, numbers)
    for row in rows:
        assert f"#{row.number} {row.description}: {row.state}" in text


def test_where_nothing_is_open_nothing_is_said_of_it(tmp_path: Path, without_plotly: None) -> None:
    page = render_report(read_small(tmp_path / "project", only_a_baseline))
    assert "under-way" not in page.partition("<body>")[2].partition("<script")[0]


# ---- safety


@pytest.mark.usefixtures("without_plotly")
def test_nothing_of_the_campaign_becomes_markup(tmp_path: Path) -> None:
    series = read_small(tmp_path / "project", nasty_texts)
    series = replace(series, summary=replace(series.summary, metric=NASTY[1], insights="\n".join(NASTY)))
    text = render_report(series)
    parsed = Page(text)
    assert sum(tag == "script" for tag, _ in parsed.tags) == 3
    assert [tag for tag, _ in parsed.tags if tag in ("img", "b") and "onerror" in str(_)] == []
    assert not any("onerror" in attributes or "onclick" in attributes for _, attributes in parsed.tags)
    assert "{{ 7 * 7 }}" in parsed.text
    shown = {one_line(each.description) for each in series.experiments}
    assert set(parsed.data["columns"]["description"]) == shown
    assert "\u2028" not in text.partition("<script id")[2].partition("</script>")[0]


def test_script_json_survives_the_html_parser() -> None:
    data = {"text": "".join(NASTY)}
    written = script_json(data)
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == data


def test_the_policy_names_the_scripts_and_forbids_the_network(page: str) -> None:
    parsed = Page(page)
    (policy,) = [each["content"] for tag, each in parsed.tags if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "http" not in policy
    assert "connect-src" not in policy, "default-src forbids it"
    asked = [each for _, each in parsed.tags if any(name in each for name in ("src", "srcset", "data", "action"))]
    assert asked == []
    assert all((each["href"] or "").startswith("#") for _, each in parsed.tags if "href" in each)


# ---- files and sizes


def test_the_page_replaces_the_old_one_in_one_step(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    real = Path.write_text

    def half(self: Path, text: str, **rest: Any) -> int:
        real(self, text[:100], **rest)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="No space"):
            write_report(project, path)
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    written = write_report(project, path)
    assert written.size_bytes == path.stat().st_size
    with pytest.raises(UsageError):
        write_report(project, tmp_path / "report.txt")


def test_long_texts_are_cut_before_the_page_grows_too_large(tmp_path: Path) -> None:
    def fill(builder: LedgerBuilder) -> None:
        builder.curve = tuple((at / 256, 3.0 - at / 256) for at in range(256))
        with builder.ledger.transaction():
            builder.baseline([1.0, 1.01, 0.99])
            for at in range(600):
                experiment = builder.idea(f"{at} " + "很长" * 3_000, [1.5])
                experiment.note = "note " * 3_000
                builder.ledger.update_experiment(experiment, "note")

    series = read_small(tmp_path / "project", fill)
    text = render_report(series)
    assert len(text.encode()) < MOST_BYTES
    data = Page(text).data
    assert len(data["columns"]["number"]) == 601
    assert all(len(each) >= 8 for each in data["columns"]["description"])
    assert 10 < len(data["details"]) < 601, "the newest keep their details"
    assert "600" in data["details"]
    tight = payload(series, room=150_000)
    assert len(script_json(tight).encode()) < 250_000
    assert tight["columns"]["metric"] == data["columns"]["metric"], "numbers are never left out"


# ---- a running campaign


def test_a_page_reloads_itself_only_while_the_campaign_may_change(series: Series) -> None:
    last_at = series.summary.last_at
    assert last_at is not None
    soon = replace(series, read_at=last_at)
    assert payload(soon, room=10**6)["liveUntil"] > last_at[:19]
    assert payload(soon, room=10**6, finished=True)["liveUntil"] is None
    assert payload(series, room=10**6)["liveUntil"] is None, "the simulated night was long ago"


# ---- campaigns of every kind


@pytest.mark.usefixtures("without_plotly")
@pytest.mark.parametrize("direction", ["lower", "higher"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_campaign_of_any_kind_has_a_page(tmp_path: Path, kind: str, direction: str) -> None:
    series = read_small(tmp_path / "project", KINDS[kind], direction)
    parsed = Page(render_report(series))
    assert parsed.data["columns"]["number"] == [each.number for each in series.experiments]
    assert parsed.data["columns"]["metric"] == [each.metric for each in series.experiments]
    assert not re.search(r"\bnan\b|\binf\b|None|Undefined", parsed.text)
    if not series.experiments:
        assert "No experiment has been run yet" in parsed.text
    else:
        assert parsed.figures["experiments.run"] == str(len(series.experiments))


@pytest.mark.usefixtures("without_plotly")
@pytest.mark.parametrize(
    ("fill", "told"),
    [
        (only_crashes, "nothing to claim yet"),
        (only_a_baseline, "nothing to claim yet"),
        (deterministic, "exact"),
    ],
)
def test_no_claim_is_asked_for_where_none_is_possible(
    tmp_path: Path, without_plotly: None, fill: Fill, told: str
) -> None:
    page = Page(render_report(read_small(tmp_path / "project", fill, "lower")))
    card = page.text.partition("Is it real?")[2].partition("Experiments")[0]
    assert card.split("\n")[1].strip() == told
    assert "--claim" not in card


def test_a_claim_about_the_best_is_told(series: Series) -> None:
    assert series.summary.incumbent is not None
    best = series.summary.incumbent.commit
    claim = {
        "word": "confirmed",
        "reason": "confirmed: +0.03",
        "a": "baseline",
        "b": "best",
        "arms": ["x", best],
        "seeds": 6,
    }
    told = Page(render_report(replace(series, summary=replace(series.summary, claim=claim))))
    assert told.figures["claim.word"] == "confirmed"
    of_another = {**claim, "arms": ["x", "y"]}
    old = Page(render_report(replace(series, summary=replace(series.summary, claim=of_another))))
    assert "claim.word" not in old.figures


@pytest.mark.usefixtures("without_plotly")
def test_all_campaigns_are_compared(tmp_path: Path) -> None:
    project = tmp_path / "project"
    simulate(project, runs=25, seed=5, tag="first")
    simulate(project, runs=25, seed=6, tag="second")
    write_report(project, tmp_path / "report.html", all_tags=True)
    parsed = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    compared = parsed.data["comparison"]
    assert [each["tag"] for each in compared] == ["first", "second"]
    assert parsed.data["tag"] == "second"
    for each, one in zip(compared, read_series(project, all_tags=True), strict=True):
        assert [point[0] for point in each["points"]] == [level.number for level in one.levels]
        gains = [one.levels[0].level - level.level for level in one.levels]
        assert [point[2] for point in each["points"]] == pytest.approx(gains, rel=1e-5)
        assert number(one.levels[-1].level)[:5] in parsed.text


def test_summarize_writes_the_page(project: Path, tmp_path: Path, run_script: RunScript) -> None:
    done = run_script("summarize", "--html", tmp_path / "report.html", "--json", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["data"]["written"] == {"html": str(tmp_path / "report.html")}
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).data["tag"] == "apr5"
    assert run_script("summarize", "--html", tmp_path / "report.pdf", cwd=project).returncode == 2


def test_statuses_of_the_page_are_all_there_are() -> None:
    assert (*(status.value for status in Status), "open") == STATUSES

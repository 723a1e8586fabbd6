from __future__ import annotations

import json
import shlex
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import RunScript
from tests.setup_bench import KARPATHY, PLAIN, SCRIPT, TRAIN, Bench, make_bench

from autoresearch.campaign.opened import open_campaign, open_ledger
from autoresearch.campaign.preflight import check_tag, free_tag, todays_tag
from autoresearch.campaign.progress import refresh
from autoresearch.config import Config
from autoresearch.errors import RefusedError, UsageError
from autoresearch.guard import check_paths
from autoresearch.ledger import Experiment, State, Status
from autoresearch.results import outdate_results


@pytest.fixture
def karpathy(tmp_path: Path, run_script: RunScript, home: Path) -> Bench:
    """A project of karpathy's shape, its data prepared."""
    for name in ("data", "tokenizer"):
        folder = home / ".cache" / "autoresearch" / name
        folder.mkdir(parents=True)
        (folder / "made").write_text("made")
    return make_bench(tmp_path / "project", run_script, KARPATHY)


@pytest.fixture
def plain(tmp_path: Path, run_script: RunScript) -> Bench:
    """A small project that needs no data."""
    return make_bench(tmp_path / "project", run_script, PLAIN)


# --- what a set-up does --------------------------------------------------------------------------------


def test_karpathys_project_needs_no_flag(karpathy: Bench) -> None:
    start = karpathy.git("rev-parse", "HEAD")
    days = [todays_tag(date.today())]  # noqa: DTZ011 - the day as the user's clock shows it
    data = karpathy.setup()
    days += [todays_tag(date.today())]  # noqa: DTZ011
    assert data["tag"] in days
    config = Config.from_dict(data["config"])
    assert (config.command, config.metric.name, config.metric.direction) == (
        "uv run train.py",
        "val_bpb",
        "lower",
    )
    assert (config.edit, config.protect) == (("train.py",), ("prepare.py",))
    assert (config.data, config.budget_s, config.limit_s) == (("~/.cache/autoresearch",), 300, 600)
    assert list(config.watch) == ["training_seconds", "peak_vram_mb", "mfu_percent", "depth"]
    assert data["branch"] == karpathy.git("branch", "--show-current") == f"autoresearch/{data['tag']}"
    assert data["base_commit"] == karpathy.git("rev-parse", "HEAD")
    assert karpathy.git("rev-parse", "HEAD^") == start == karpathy.git("rev-parse", "main")
    assert karpathy.git("show", "--name-status", "--format=", "HEAD") == "A\tautoresearch.yaml"
    assert karpathy.status() == ""
    assert (karpathy.folder / "results.tsv").read_text() == "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    assert Config.read(karpathy.folder / "autoresearch.yaml") == config
    campaign = karpathy.campaign(data["tag"])
    assert campaign is not None
    assert campaign.base_commit == data["base_commit"]
    assert campaign.config == config.to_dict()
    assert campaign.setup["complete"] is True
    assert campaign.setup["data"], "the data is fingerprinted"
    assert any("fixes the seed at 42" in note for note in data["notes"])


def test_text_tells_what_was_found_and_how_and_what_is_next(karpathy: Bench) -> None:
    done = karpathy.run("setup_campaign", "--tag", "apr5", cwd=karpathy.folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "uv run train.py   (train.py is there; uv.lock is there)" in done.stdout
    assert "~/.cache/autoresearch   (CACHE_DIR in prepare.py:6)" in done.stdout
    assert done.stdout.rstrip().endswith('scripts/run_experiment.py -d "baseline"')
    assert len(done.stdout.splitlines()) < 25


def test_guard_accepts_the_tree_that_a_set_up_leaves(karpathy: Bench) -> None:
    """Whatever set-up writes beside the commit, the next command must not take for the agent's."""
    karpathy.write({"notes.md": "mine\n", "scratch.py": "x = 1\n", "CLAUDE.md": "Mine.\n"})
    karpathy.setup("--tag", "apr5")
    with open_campaign(karpathy.folder) as oc:
        own = oc.campaign.setup["own_files"]
        assert set(own) == {"notes.md", "scratch.py"}
        assert check_paths(oc.repo.changes(oc.campaign.base_commit), oc.config, tolerated=set(own)) == []


def test_everything_may_be_said_by_flags(plain: Bench) -> None:
    data = plain.setup(
        "--tag", "a", "--command", "python train.py --x {seed}", "--metric", "val_loss",
        "--direction", "higher", "--edit", "train.py", "lib.py", "--watch", "gpu",
        "--budget", "12.5", "--data", "",
    )  # fmt: skip
    config = Config.read(plain.folder / "autoresearch.yaml")
    assert config.to_dict() == data["config"]
    assert (config.command, config.metric.direction) == ("python train.py --x {seed}", "higher")
    assert (config.edit, config.protect) == (("train.py", "lib.py"), ())
    assert (list(config.watch), config.budget_s) == (["gpu"], 12.5)


def test_config_of_the_project_is_taken_and_flags_are_written_into_it(plain: Bench) -> None:
    kept = "# mine\r\ncommand: python train.py  # how\r\nmetric:\r\n  name: val_loss\r\n  # lower\r\n"
    plain.commit({"autoresearch.yaml": f"{kept}edit:\r\n- lib.py\r\n"})
    data = plain.setup("--tag", "a", "--edit", "train.py", "--direction", "lower", "--budget", "60")
    written = (plain.folder / "autoresearch.yaml").read_bytes().decode()
    assert written == f"{kept}edit: [train.py]\r\nbudget_s: 60\r\n"
    hows = {finding["key"]: finding["how"] for finding in data["findings"]}
    assert hows["edit"] == "given; autoresearch.yaml says so now"
    assert hows["command"] == "autoresearch.yaml"
    assert plain.git("show", "--name-status", "--format=", "HEAD") == "M\tautoresearch.yaml"


def test_unchanged_config_of_the_project_needs_no_commit(plain: Bench) -> None:
    head = plain.commit({"autoresearch.yaml": "command: python train.py\nmetric: {name: val_loss}\n"})
    assert plain.setup("--tag", "a")["base_commit"] == head == plain.git("rev-parse", "autoresearch/a")


def test_uncommitted_config_of_the_project_becomes_part_of_the_base(plain: Bench) -> None:
    plain.write({"autoresearch.yaml": "command: python train.py\nmetric: {name: val_loss}\n"})
    plain.setup("--tag", "a")
    assert plain.status() == ""
    assert plain.git("show", "HEAD:autoresearch.yaml").startswith("command: python train.py")


def test_metric_flag_over_a_config_takes_the_pattern_along(plain: Bench) -> None:
    plain.write({"autoresearch.yaml": "command: python train.py\nmetric: {name: other, pattern: 'other=(.*)'}\n"})
    plain.setup("--tag", "a", "--metric", "val_loss")
    metric = Config.read(plain.folder / "autoresearch.yaml").metric
    assert (metric.name, metric.direction, metric.pattern) == ("val_loss", "lower", r"^val_loss:\s*(\S+)")


def test_work_of_the_user_is_left_alone(plain: Bench) -> None:
    plain.commit({"README.md": "Read me.\n"})
    plain.write({"README.md": "Edited.\n", "notes/todo.txt": "todo\n", "tool.py": "x = 1\n"})
    plain.git("add", "notes/todo.txt")
    before = plain.status()
    data = plain.setup("--tag", "a")
    assert plain.status() == before
    campaign = plain.campaign("a")
    assert campaign is not None
    assert set(campaign.setup["own_files"]) == {"README.md", "notes/todo.txt", "tool.py"}
    assert all(len(mark) == 64 for mark in campaign.setup["own_files"].values())
    assert any("tool.py" in note and "git add" in note for note in data["notes"])


def test_project_in_a_folder_of_its_repository(tmp_path: Path, run_script: RunScript) -> None:
    outer = make_bench(tmp_path / "mono", run_script, {f"ml/{name}": text for name, text in PLAIN.items()})
    outer.commit({"web/app.js": "x\n"})
    outer.write({"web/app.js": "edited\n"})
    inner = Bench(folder=outer.folder / "ml", run=run_script)
    inner.setup("--tag", "a")
    assert (inner.folder / "results.tsv").exists()
    assert (inner.folder / "CLAUDE.md").exists()
    assert outer.git("show", "--name-only", "--format=", "HEAD") == "ml/autoresearch.yaml"
    assert outer.status() == " M web/app.js"


def test_script_finds_the_project_from_another_folder(plain: Bench, tmp_path: Path) -> None:
    done = plain.run("setup_campaign", "--project", plain.folder, "--tag", "a", cwd=tmp_path)
    assert done.returncode == 0
    assert plain.git("branch", "--show-current") == "autoresearch/a"


def test_detached_head_is_a_fine_start(plain: Bench) -> None:
    plain.git("checkout", "-q", "--detach")
    plain.setup("--tag", "a")
    assert plain.git("branch", "--show-current") == "autoresearch/a"


def test_repository_without_an_identity_is_a_fine_start(plain: Bench, home: Path) -> None:
    (home / ".gitconfig").write_text("[user]\n    useConfigOnly = true\n")
    plain.setup("--tag", "a")
    assert plain.git("log", "-1", "--format=%an") == "autoresearch"


def test_second_campaign_begins_at_the_tip_of_the_first(plain: Bench) -> None:
    first = plain.setup("--tag", "a")
    with open_campaign(plain.folder) as oc:
        base = oc.campaign.base_commit
        oc.ledger.add_experiment(
            Experiment(
                tag="a", number=0, epoch=1, description="baseline", commit=base, parent=base, tree="",
                incumbent=None, state=State.DECIDED, status=Status.KEEP, metric=0.5,
            )
        )  # fmt: skip
        outdate_results(oc.ledger, oc.campaign)
        refresh(oc)
    assert "baseline" in (plain.folder / "results.tsv").read_text()
    second = plain.setup("--tag", "b")
    assert second["base_commit"] == first["base_commit"]
    assert plain.git("branch", "--show-current") == "autoresearch/b"
    assert "campaign b" in (plain.folder / "CLAUDE.md").read_text()
    assert (plain.folder / "CLAUDE.md").read_text().count("autoresearch:begin") == 1
    assert not list(plain.folder.glob("results.tsv.before-*")), "the first campaign's view is in the ledger"


def test_inputs_that_git_lacks_are_linked_and_kept_out_of_its_sight(plain: Bench) -> None:
    plain.commit({".gitignore": "*.bin\n"})
    plain.write({"data/a.csv": "1\n", "train.bin": "x", "model.bin": "x"})
    data = plain.setup("--tag", "a")
    assert data["config"]["link"] == ["train.bin", "data"]
    assert data["config"]["data"] == ["data"]
    assert plain.status() == ""
    campaign = plain.campaign("a")
    assert campaign is not None
    assert campaign.setup["own_files"] == {}


def test_exclude_list_names_what_the_loop_writes_once(plain: Bench) -> None:
    plain.setup("--tag", "a")
    plain.setup("--tag", "b")
    lines = (plain.folder / ".git" / "info" / "exclude").read_text().splitlines()
    for name in ("results.tsv", "run.log", "insights.md", "autoresearch-task.md", "report.html", "/CLAUDE.md"):
        assert lines.count(name) == 1, name


def test_results_of_somebody_else_are_set_aside(plain: Bench) -> None:
    plain.write({"results.tsv": "mine\n", "results.tsv.before-a": "older\n"})
    data = plain.setup("--tag", "a")
    assert (plain.folder / "results.tsv").read_text().startswith("commit\tval_loss\t")
    assert (plain.folder / "results.tsv.before-a").read_text() == "older\n"
    assert (plain.folder / "results.tsv.before-a.2").read_text() == "mine\n"
    assert any("results.tsv.before-a.2" in sentence for sentence in data["done"])
    assert plain.status() == ""


def test_trials_that_the_ledger_has_lost_do_not_become_those_of_a_new_campaign(plain: Bench) -> None:
    stale = plain.folder / ".git" / "autoresearch" / "a" / "trials" / "a.0.1.seed1" / "result.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    plain.setup("--tag", "a")
    assert not stale.exists()
    assert (plain.folder / ".git/autoresearch/.a.lost/trials/a.0.1.seed1/result.json").exists()


def test_editable_install_asks_for_inplace_and_says_why(plain: Bench) -> None:
    files = {
        "pyproject.toml": '[project]\nname = "x"\n[build-system]\nrequires = []\n',
        "uv.lock": "",
        "src/x.py": "",
    }
    plain.commit(files)
    data = plain.setup("--tag", "a")
    assert data["config"]["isolation"] == "inplace"
    assert any(one["key"] == "isolation" and "editable" in one["how"] for one in data["findings"])


# --- dry run -------------------------------------------------------------------------------------------


def test_dry_run_says_the_same_and_writes_nothing(karpathy: Bench) -> None:
    before = karpathy.state()
    data = karpathy.setup("--tag", "apr5", "--dry-run")
    assert data["dry_run"] is True
    assert karpathy.state() == before
    assert not (karpathy.folder / ".git" / "autoresearch").exists()
    assert karpathy.setup("--tag", "apr5")["config"] == data["config"]


def test_dry_run_reports_missing_data_without_failing(tmp_path: Path, run_script: RunScript) -> None:
    bench = make_bench(tmp_path / "project", run_script, KARPATHY)
    data = bench.setup("--dry-run")
    assert any("~/.cache/autoresearch/data" in note and "uv run prepare.py" in note for note in data["notes"])


# --- tags ----------------------------------------------------------------------------------------------


def test_tag_is_the_day_and_the_first_free_letter(plain: Bench) -> None:
    with open_ledger(plain.folder) as (repo, ledger):
        assert free_tag(repo, ledger, date(2026, 4, 5)) == "apr5"
        plain.git("branch", "autoresearch/apr5")
        assert free_tag(repo, ledger, date(2026, 4, 5)) == "apr5b"
        for letter in "bcdefghijklmnopqrstuvwxyz":
            plain.git("branch", f"autoresearch/apr5{letter}")
        assert free_tag(repo, ledger, date(2026, 4, 5)) == "apr5zb"
        assert free_tag(repo, ledger, date(2026, 12, 31)) == "dec31"


def test_tag_of_a_campaign_counts_as_taken_when_its_branch_is_gone(plain: Bench) -> None:
    tag = plain.setup()["tag"]
    plain.git("switch", "-q", "main")
    plain.git("branch", "-D", f"autoresearch/{tag}")
    assert plain.setup()["tag"] == f"{tag}b"


def test_tag_of_a_branch_on_a_remote_counts_as_taken(plain: Bench, tmp_path: Path) -> None:
    plain.git("clone", "-q", "--bare", ".", str(tmp_path / "remote.git"))
    plain.git("remote", "add", "origin", str(tmp_path / "remote.git"))
    plain.git("push", "-q", "origin", "main:autoresearch/apr5")
    with open_ledger(plain.folder) as (repo, ledger):
        assert free_tag(repo, ledger, date(2026, 4, 5)) == "apr5b"
        with pytest.raises(RefusedError, match="branch autoresearch/apr5"):
            check_tag("apr5", repo, ledger, date(2026, 4, 5))


@pytest.mark.parametrize("tag", ["a b", "../x", "-x", "a..b", "x.lock", "a/b", "", "ä", "x" * 65])
def test_tag_that_no_branch_can_carry_is_a_usage_error(plain: Bench, tag: str) -> None:
    with (
        open_ledger(plain.folder) as (repo, ledger),
        pytest.raises(UsageError, match="is no tag") as caught,
    ):
        check_tag(tag, repo, ledger, date(2026, 4, 5))
    assert caught.value.hint == "For example: --tag apr5"


# --- refusals: message, exit code, nothing changed -----------------------------------------------------


class Refusal(NamedTuple):
    """``before`` is a shell line run in the project, ``arguments`` are those of the script."""

    before: str
    arguments: str
    exit_code: int
    message: str
    hint: str


SAVE = "git add . && git commit -qm x"
CONFLICT = (
    "git switch -qc x; echo 1 > lib.py; git commit -qam x; git switch -q main; echo 2 > lib.py; "
    "git commit -qam y; git {} x || true"
)
REFUSALS = {
    "tag with a campaign": Refusal(
        f"{sys.executable} {SCRIPT} --tag a", "--tag a", 4, "a campaign of the tag 'a'", "--tag "
    ),
    "tag with a branch": Refusal(
        "git branch autoresearch/a", "--tag a", 4, "a branch autoresearch/a of the tag", "--tag "
    ),
    "invalid tag": Refusal("", "--tag 'a b'", 2, "'a b' is no tag", "--tag "),
    "branch in the way": Refusal("git branch autoresearch", "", 4, "A branch named autoresearch", "git branch -m"),
    "modified code": Refusal("echo x=1 >> lib.py", "", 4, "lib.py", 'git commit -am "work in progress"'),
    "staged new code": Refusal("echo x=1 > new.py; git add new.py", "", 4, "new.py", "git stash"),
    "deleted code": Refusal("rm lib.py", "", 4, "lib.py", "git stash"),
    "modified requirements": Refusal(
        f"echo a > requirements.txt; {SAVE}; echo b > requirements.txt",
        "",
        4,
        "requirements.txt",
        "git stash",
    ),
    "edited memo that git tracks": Refusal(
        f"echo a > CLAUDE.md; {SAVE}; echo b > CLAUDE.md", "", 4, "CLAUDE.md", "git commit -am"
    ),
    "untracked file within edit": Refusal(
        f"mkdir src; echo > src/a.py; {SAVE}; echo > src/b.py",
        "--edit src",
        4,
        "src/b.py",
        "git add src/b.py",
    ),
    "merge under way": Refusal(CONFLICT.format("merge"), "", 4, "A merge is under way", "git merge --abort"),
    "rebase under way": Refusal(CONFLICT.format("rebase"), "", 4, "A rebase is under", "git rebase --abort"),
    "results.tsv in git": Refusal(
        f"echo x > results.tsv; {SAVE}", "", 4, "git tracks results.tsv", "git rm --cached results.tsv"
    ),
    "broken markers": Refusal(
        "echo '<!-- autoresearch:begin -->' > CLAUDE.md", "", 4, "CLAUDE.md has 1 x", "Mend the markers"
    ),
    "unknown key in the config": Refusal(
        "printf 'command: x\\nmetrics: y\\n' > autoresearch.yaml", "", 2, "unknown key metrics", "mean metric"
    ),
    "config that is no YAML": Refusal("echo 'command: [' > autoresearch.yaml", "", 2, "not valid YAML", "Mend"),
    "flag that a config cannot take": Refusal(
        "echo '{command: python train.py, metric: {name: val_loss}}' > autoresearch.yaml",
        *("--budget 5", 2, "flags cannot be put into", "Set budget_s"),
    ),
    "impossible budget": Refusal("", "--budget -5", 2, "--budget is -5", "--budget"),
    "no metric": Refusal("echo 'x = 1' > train.py; git commit -qam x", "", 2, "No number to improve", "--metric NAME"),
    "unclear metric": Refusal(
        'printf \'print("a:", 1)\\nprint("b:", 2)\\n\' > train.py; git commit -qam x',
        *("", 2, "not clear: a, b", "--metric a --direction lower|higher"),
    ),
    "no script": Refusal("git rm -q train.py; git commit -qm x", "", 2, "Which script trains", "--command"),
    "edit path that is not there": Refusal("", "--edit m.py", 2, "`edit` names m.py", "git add m.py"),
    "command of no script, and no edit": Refusal(
        "", "--command 'make train' --metric loss", 2, "What experiments may change", "--edit FILE"
    ),
    "data that is not there": Refusal("", "--data nowhere", 5, "The data is not there: nowhere", "--data DIR"),
    "unknown starter": Refusal("", "--starter nope", 2, "--starter 'nope' is unknown", "--starter nanogpt"),
    "starter over other files": Refusal("", "--starter nanogpt", 4, "train.py", "--project DIR"),
    "bad direction": Refusal("", "--direction down", 2, "'down'", "--help"),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
def test_refusal_names_the_way_out_and_changes_nothing(plain: Bench, case: Refusal) -> None:
    subprocess.run(["sh", "-ec", case.before], cwd=plain.folder, check=True, capture_output=True)
    before = plain.state()
    error = plain.setup(*shlex.split(case.arguments), expect=case.exit_code)
    assert case.message in error["message"]
    assert case.hint in error["hint"]
    assert plain.state() == before


def test_missing_data_is_made_by_the_command_in_the_hint(tmp_path: Path, run_script: RunScript) -> None:
    files = {**KARPATHY}
    del files["uv.lock"], files["pyproject.toml"]
    bench = make_bench(tmp_path / "project", run_script, files)
    error = bench.setup("--tag", "a", expect=5)
    assert "~/.cache/autoresearch/data" in error["message"]
    assert error["hint"] == "python prepare.py"
    assert bench.campaign("a") is None
    subprocess.run([sys.executable, *error["hint"].split()[1:]], cwd=bench.folder, check=True, capture_output=True)
    bench.setup("--tag", "a")


def test_prepare_makes_the_data_and_goes_on(tmp_path: Path, run_script: RunScript, home: Path) -> None:
    files = {**KARPATHY}
    del files["uv.lock"], files["pyproject.toml"]
    bench = make_bench(tmp_path / "project", run_script, files)
    done = bench.run("setup_campaign", "--tag", "a", "--prepare", "--json", cwd=bench.folder)
    assert json.loads(done.stdout)["ok"] is True
    assert "Cache directory" in done.stderr
    assert (home / ".cache" / "autoresearch" / "data" / "made").exists()


def test_failing_prepare_is_told(tmp_path: Path, run_script: RunScript) -> None:
    files = {"train.py": f'DATA_DIR = "~/data"\n{PLAIN["train.py"]}', "prepare.py": "raise SystemExit(3)\n"}
    bench = make_bench(tmp_path / "project", run_script, files)
    error = bench.setup("--prepare", expect=5)
    assert "exit code 3" in error["message"]


def test_folder_outside_a_repository(tmp_path: Path, run_script: RunScript) -> None:
    bench = Bench(folder=tmp_path, run=run_script)
    error = bench.setup(expect=3)
    assert "not in a git repository" in error["message"]
    assert "git -C" in error["hint"]
    assert not list(tmp_path.iterdir())


def test_repository_without_a_commit(tmp_path: Path, run_script: RunScript) -> None:
    bench = Bench(folder=tmp_path, run=run_script)
    bench.git("init", "-q")
    bench.write(PLAIN)
    error = bench.setup(expect=3)
    assert error["hint"] == f"git -C {tmp_path} add -A && git -C {tmp_path} commit -m start"


def test_bare_repository(tmp_path: Path, run_script: RunScript) -> None:
    bench = Bench(folder=tmp_path, run=run_script)
    bench.git("init", "-q", "--bare")
    assert "bare repository" in bench.setup(expect=3)["message"]


def test_script_that_was_never_added_to_git(tmp_path: Path, run_script: RunScript) -> None:
    bench = make_bench(tmp_path, run_script, {"README.md": "x\n"})
    bench.write(PLAIN)
    error = bench.setup(expect=2)
    assert "train.py is not committed" in error["message"]
    assert error["hint"] == "git add train.py && git commit -m start"


def test_checked_out_campaign_with_an_open_experiment(plain: Bench) -> None:
    base = plain.setup("--tag", "a")["base_commit"]
    with open_ledger(plain.folder) as (_, ledger):
        ledger.add_experiment(
            Experiment(
                tag="a", number=0, epoch=1, description="baseline", commit=base, parent=base, tree="",
                incumbent=None,
            )
        )  # fmt: skip
    before = plain.state()
    error = plain.setup("--tag", "b", expect=4)
    assert "Experiment 0 of the checked-out campaign a" in error["message"]
    assert "log_result.py" in error["hint"]
    assert plain.state() == before
    plain.git("switch", "-q", "main")
    plain.setup("--tag", "b")


def test_train_of_the_bench_is_what_detection_claims_about_it(tmp_path: Path) -> None:
    """The stand-in really prints what its config expects."""
    source = TRAIN.replace("import torch\n", "").replace("torch.manual_seed(42)\n", "")
    (tmp_path / "train.py").write_text(source)
    (tmp_path / "prepare.py").write_text(KARPATHY["prepare.py"])
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "val_bpb:          0.997900" in done.stdout


# --- settings that are incomplete, and flags that do not fit ---------------------------------------------


@pytest.mark.parametrize("text", ["", "\n", "# mine\n", "budget_s: 60\n", "metric:\n", "metric: {direction: lower}\n"])
@pytest.mark.parametrize("flags", [True, False])
def test_settings_that_lack_something_are_completed(plain: Bench, text: str, flags: bool) -> None:
    plain.write({"autoresearch.yaml": text})
    given = ("--metric", "val_loss", "--command", "python train.py", "--edit", "train.py") if flags else ()
    data = plain.setup("--tag", "a", *given)
    config = Config.read(plain.folder / "autoresearch.yaml")
    assert config.to_dict() == data["config"]
    assert (config.command, config.metric.name, config.metric.direction, config.edit) == (
        "python train.py", "val_loss", "lower", ("train.py",)
    )  # fmt: skip
    assert config.budget_s == (60 if "budget_s" in text else 300)
    hows = {finding["key"]: finding["how"] for finding in data["findings"]}
    assert ("budget_s" in text) is (hows["budget_s"] == "autoresearch.yaml")
    if text.strip() and not flags:
        assert hows["command"].startswith("train.py is there")
    assert plain.setup("--reconfigure")["changed"] is False


def test_what_incomplete_settings_say_is_kept(plain: Bench) -> None:
    said = "metric: {direction: higher}  # up\nedit: [lib.py]\nconstraints: ['val_loss <= 3']\nprune: false\n"
    plain.write({"autoresearch.yaml": said})
    plain.setup("--tag", "a")
    config = Config.read(plain.folder / "autoresearch.yaml")
    assert (config.metric.name, config.metric.direction, config.edit) == ("val_loss", "higher", ("lib.py",))
    assert (config.prune, len(config.constraints)) == (False, 1)


@pytest.mark.parametrize("text", ["budget_s: soon\n", "budget: 60\n", "- 1\n", "metric: val_loss\n"])
def test_mistake_in_incomplete_settings_is_named(plain: Bench, text: str) -> None:
    plain.write({"autoresearch.yaml": text})
    assert plain.setup("--tag", "a", expect=2)["code"] in ("config_value", "config_unknown_key", "config_type")


def test_folder_in_the_place_of_the_settings(plain: Bench) -> None:
    plain.write({"autoresearch.yaml/x": ""})
    assert "autoresearch.yaml is a folder" in plain.setup("--tag", "a", expect=2)["message"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--budget", "-5"), "--budget is -5.0; expected a number above 0"),
        (("--budget", "nan"), "--budget is nan; expected a number"),
        (("--command", ""), "--command is ''; expected a text"),
        (("--command", 'python "train.py'), "--command is 'python \"train.py'; expected a command line"),
        (("--metric", ""), "--metric is ''; expected a text"),
        (("--metric", "two words"), "--metric is 'two words'; expected a name without spaces"),
        (("--edit", "/tmp"), "--edit is ['/tmp']; expected paths inside the project"),
        (("--edit", ""), "--edit is []; expected at least one path"),
        (("--protect", "../x"), "--protect is ['../x']; expected paths inside the project"),
    ],
)
def test_flag_that_does_not_fit_is_blamed_itself(plain: Bench, flags: tuple[str, ...], said: str) -> None:
    before = plain.state()
    for settings in ({}, {"autoresearch.yaml": "command: python train.py\nmetric: {name: val_loss}\n"}):
        plain.write(settings)
        error = plain.setup("--tag", "a", *flags, expect=2)
        assert error["message"].startswith(said)
        assert error["hint"] == f"Give {flags[0]} another value, or leave it out (--help)."
    (plain.folder / "autoresearch.yaml").unlink()
    assert plain.state() == before
    plain.setup("--tag", "a")
    assert plain.setup("--reconfigure", *flags, expect=2)["message"].startswith(said)


def test_command_with_an_open_quote_in_the_settings(plain: Bench) -> None:
    for key in ("command", "evaluate_command", "test_command"):
        settings = {"command": "python train.py", "metric": "{name: val_loss}", key: "python 'x.py"}
        plain.write({"autoresearch.yaml": "".join(f"{name}: {value}\n" for name, value in settings.items())})
        error = plain.setup("--tag", "a", expect=2)
        assert error["message"].startswith(f"autoresearch.yaml: {key} is ")
        assert "no closing quotation" in error["message"]

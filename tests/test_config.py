from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from autoresearch.config import Config, Executor, Keep, default_pattern
from autoresearch.constraint import Constraint
from autoresearch.errors import UsageError

LEAST = "command: uv run train.py\nmetric: {name: val_bpb}\n"

FULL = r"""
command: uv run train.py --seed {seed}
metric: {name: accuracy, direction: higher, pattern: 'acc=(\S+)'}
watch: [val_loss, peak_vram_mb]
constraints: ["peak_vram_mb <= 1.1 * baseline"]
edit: [train.py, ./model/]
protect: prepare.py
data: [~/.cache/autoresearch]
link: [.venv]
budget_s: 300
timeout_factor: 3
startup_s: 60
stall_s: 120
progress: 'at (?P<percent>\d+)%'
evaluate_command: python evaluate.py
test_command: pytest
prune: false
keep: {boldness: strict, baseline_seeds: 4, min_seeds: 2, max_seeds: 8, retest_every: 0}
isolation: inplace
executor: {kind: slurm, devices: [0, 1], partition: gpu}
push: true
remote: fork
notify: [json://localhost]
"""


def parse_with(line: str) -> Config:
    return Config.parse(LEAST + line)


def test_the_least_config_has_the_documented_defaults() -> None:
    config = Config.parse(LEAST)
    assert (config.command, config.metric.name, config.metric.direction) == (
        "uv run train.py",
        "val_bpb",
        "lower",
    )
    assert (config.edit, config.budget_s, config.timeout_factor) == (("train.py",), 300.0, 2.0)
    assert config.keep == Keep(boldness="default", baseline_seeds=3, min_seeds=1, max_seeds=6, retest_every=8)
    assert (config.isolation, config.executor, config.push) == ("worktree", Executor(), False)
    assert config.limit_s == 600.0


def test_every_key_is_read() -> None:
    config = Config.parse(FULL)
    assert config.command == "uv run train.py --seed {seed}"
    assert (config.metric.name, config.metric.lower_is_better, config.metric.pattern) == (
        "accuracy",
        False,
        r"acc=(\S+)",
    )
    assert config.watch == {name: default_pattern(name) for name in ("val_loss", "peak_vram_mb")}
    assert [constraint.text for constraint in config.constraints] == ["peak_vram_mb <= 1.1 * baseline"]
    assert (config.edit, config.protect, config.link) == (("train.py", "model"), ("prepare.py",), (".venv",))
    assert config.data == ("~/.cache/autoresearch",)
    assert (config.limit_s, config.stall_s, config.progress) == (960.0, 120.0, r"at (?P<percent>\d+)%")
    assert (config.evaluate_command, config.test_command, config.prune) == (
        "python evaluate.py",
        "pytest",
        False,
    )
    assert config.keep == Keep(boldness="strict", baseline_seeds=4, min_seeds=2, max_seeds=8, retest_every=0)
    assert config.executor == Executor(kind="slurm", devices="0,1", options={"partition": "gpu"})
    assert (config.isolation, config.push, config.remote) == ("inplace", True, "fork")
    assert config.notify == ("json://localhost",)


def test_full_example_names_every_key_there_is() -> None:
    assert set(re.findall(r"^(\w+):", FULL, re.MULTILINE)) == set(Config.__dataclass_fields__)


@pytest.mark.parametrize("text", [LEAST, FULL], ids=["least", "full"])
def test_a_stored_config_is_read_back_the_same(text: str) -> None:
    """A campaign keeps its config as JSON and every command validates it again."""
    config = Config.parse(text)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", ["val_bpb", "eval/acc@5", "loss.total", "top-1", "err%"])
def test_default_pattern_finds_the_summary_line_of_a_metric(name: str) -> None:
    log = f"step 1 {name}: 9\nx{name}: 8\n{name}:          0.997900\n"
    pattern = Config.parse(f"command: x\nmetric: {{name: '{name}'}}").metric.pattern
    assert re.findall(pattern, log, re.MULTILINE) == ["0.997900"]


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        ("budget_s: -1", "budget_s is -1", "above 0"),
        ("budget_s: 0", "budget_s is 0", "above 0"),
        ("budget_s: 3000000", "budget_s is 3000000", "at most"),
        ("budget_s: .nan", "budget_s is nan", "a number"),
        ("budget_s: .inf", "budget_s is inf", "a number"),
        (f"budget_s: 1{'0' * 400}", "budget_s is 1000", "a number"),
        ("budget_s: five", "budget_s is 'five'", "a number"),
        ("budget_s: true", "budget_s is True", "a number"),
        ("stall_s: .inf", "stall_s is inf", "a number"),
        ("timeout_factor: 0.5", "timeout_factor is 0.5", "at least 1"),
        ("prune: sometimes", "prune is 'sometimes'", "true or false"),
        ("push: 1", "push is 1", "true or false"),
        ("isolation: docker", "isolation is 'docker'", "worktree, inplace"),
        ("keep: {boldness: bold}", "keep.boldness is 'bold'", "strict, default, fast"),
        ("keep: {max_seeds: 0}", "keep.max_seeds is 0", "from 1 to 100"),
        ("keep: {min_seeds: 0}", "keep.min_seeds is 0", "from 1 to 100"),
        ("keep: {min_seeds: 7}", "keep.min_seeds is 7", "at most keep.max_seeds, which is 6"),
        ("keep: {min_seeds: 3, max_seeds: 2}", "keep.min_seeds is 3", "at most keep.max_seeds, which is 2"),
        ("keep: {baseline_seeds: 2.5}", "keep.baseline_seeds is 2.5", "whole number"),
        ("keep: {retest_every: -1}", "keep.retest_every is -1", "from 0"),
        ("executor: {kind: k8s}", "executor.kind is 'k8s'", "local, slurm, ray"),
        ("executor: {devices: -1}", "executor.devices is -1", "0,1"),
        ("executor: {devices: {}}", "executor.devices is {}", "0,1"),
        ("edit: [/etc/passwd]", "edit is ['/etc/passwd']", "inside the project"),
        ("edit: [../train.py]", "edit is ['../train.py']", "inside the project"),
        ("edit: [.]", "edit is ['.']", "inside the project"),
        ("edit: []", "edit is []", "at least one"),
        ("edit: 5", "edit is 5", "list of texts"),
        ('edit: "train.py\\0"', "edit is", "list of texts"),
        ("link: [/data]", "link is ['/data']", "inside the project"),
        ("{edit: [a.py, b.py], protect: [./b.py]}", "edit is", "b.py is under both"),
        ("notify: [1]", "notify is [1]", "list of texts"),
        ("watch: {loss: '('}", "watch is", "regular expression"),
        ("watch: {loss: 5}", "watch is", "regular expression for loss"),
        ("watch: {loss: 'no group'}", "watch is", "one group"),
        ("constraints: [val_bpb is small]", "constraints is", "'val_bpb is small'"),
        ("constraints: [memory <= 1]", "constraints is", "not 'memory'"),
        ("progress: '(?P<speed>x)'", "progress is", "(?P<percent>…)"),
        ("progress: '('", "progress is '('", "regular expression"),
        ("progress: '(?P<percent>a{99999999999})'", "progress is", "regular expression"),
    ],
)  # fmt: skip
def test_impossible_value_is_quoted_with_what_was_expected(line: str, key: str, expected: str) -> None:
    flow = line.startswith("{")
    text = f"{{command: x, metric: {{name: val_bpb}}, {line[1:]}" if flow else LEAST + line
    with pytest.raises(UsageError) as caught:
        Config.parse(text)
    assert caught.value.message.startswith(f"autoresearch.yaml: {key}")
    assert expected in caught.value.message
    assert "autoresearch.yaml" in caught.value.hint
    assert len(caught.value.message) < 400
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("metric", "key", "expected"),
    [
        ("{}", "metric.name is None", "the key is missing"),
        ("{name: ''}", "metric.name is ''", "not empty"),
        ("{name: val bpb}", "metric.name is 'val bpb'", "without spaces"),
        ("{name: a, direction: min}", "metric.direction is 'min'", "lower, higher"),
        ("{name: a, direction: null}", "metric.direction is None", "lower, higher"),
        ("{name: a, pattern: 'a: .*'}", "metric.pattern is 'a: .*'", "it has 0"),
        ("{name: a, pattern: '(a)(b)'}", "metric.pattern is '(a)(b)'", "it has 2"),
        ("{name: a, pattern: 5}", "metric.pattern is 5", "regular expression"),
        ("{name: a, pattern: '(a{99999999999})'}", "metric.pattern is", "regular expression"),
        ("val_bpb", "metric must be a mapping", "'val_bpb'"),
    ],
)  # fmt: skip
def test_impossible_metric_is_refused(metric: str, key: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.parse(f"command: x\nmetric: {metric}")
    assert caught.value.message.startswith(f"autoresearch.yaml: {key}")
    assert expected in caught.value.message


@pytest.mark.parametrize("command", ["", "command:\n", "command: ''\n", "command: 5\n", "command: [a, b]\n"])
def test_a_command_is_needed(command: str) -> None:
    with pytest.raises(UsageError, match=r"command is .* a text that is not empty"):
        Config.parse(f"{command}metric: {{name: val_bpb}}")


@pytest.mark.parametrize(
    ("line", "key", "nearest"),
    [
        ("budget: 300", "budget (value 300)", "budget_s"),
        ("Edit: [train.py]", "Edit (value ['train.py'])", "edit"),
        ("time_out_factor: 2", "time_out_factor (value 2)", "timeout_factor"),
        ("keep: {bold: fast}", "keep.bold (value 'fast')", "keep.boldness"),
        ("BUDGET_S: 60", "BUDGET_S (value 60)", "budget_s?"),
        ("baseline_seeds: 5", "baseline_seeds (value 5)", "keep.baseline_seeds, under `keep:`?"),
        ("max_seeds: 3", "max_seeds (value 3)", "keep.max_seeds, under `keep:`?"),
        ("retest_evry: 4", "retest_evry (value 4)", "keep.retest_every, under `keep:`?"),
        ("boldness: fast", "boldness (value 'fast')", "keep.boldness, under `keep:`?"),
        ("direction: lower", "direction (value 'lower')", "metric.direction, under `metric:`?"),
        ("parallel: 2", "parallel (value 2)", "executor.parallel, under `executor:`?"),
        ("keep: {budget_s: 5}", "keep.budget_s (value 5)", "budget_s, at the top level?"),
    ],
)
def test_unknown_key_names_the_nearest_known_one(line: str, key: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_with(line)
    assert caught.value.message == f"autoresearch.yaml: unknown key {key}."
    assert caught.value.hint.startswith(f"Did you mean {nearest}")
    assert caught.value.code == "config_unknown_key"


@pytest.mark.parametrize("key", ["5", "foo", "自主研究"])
def test_unknown_key_that_is_like_no_other_is_no_slip_of_one(key: str) -> None:
    with pytest.raises(UsageError, match=rf"unknown key {key} ") as caught:
        parse_with(f"{key}: x")
    assert caught.value.hint.startswith("Known keys: budget_s, command,")


@pytest.mark.parametrize("text", ["- a\n- b", "just text", "5"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the file must be a mapping"):
        Config.parse(text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("command: [", 1),
        ("command: x\n\tmetric: y", 2),
        ("command: x\ncommand: y", 2),
        (LEAST + "keep: {a: 1, a: 2}", 3),
    ],
)
def test_broken_yaml_names_the_line(text: str, line: int) -> None:
    with pytest.raises(UsageError, match=f"not valid YAML at line {line}") as caught:
        Config.parse(text)
    assert caught.value.code == "config_syntax"


def test_yaml_cannot_run_code() -> None:
    with pytest.raises(UsageError, match="not valid YAML"):
        parse_with("remote: !!python/object/apply:os.system ['true']")


def test_a_missing_or_unreadable_file_is_the_users_error(tmp_path: Path) -> None:
    path = tmp_path / "autoresearch.yaml"
    with pytest.raises(UsageError, match="does not exist") as caught:
        Config.read(path)
    assert "setup_campaign.py" in caught.value.hint
    path.write_bytes(b"command: \xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        Config.read(path)
    path.write_text(LEAST, encoding="utf-8")
    assert Config.read(path) == Config.parse(LEAST)


@pytest.mark.parametrize(
    ("text", "baseline", "allowed", "forbidden"),
    [
        ("v <= 1.1 * baseline", 100.0, 110.0, 110.2),
        ("v <= 1.1*baseline", 100.0, 110.0, 110.2),
        ("v < baseline", 100.0, 99.9, 100.0),
        ("v >= baseline * .5", 100.0, 50.0, 49.9),
        ("v > -3", None, -2.9, -3.0),
        ("v <= 2e3", None, 2000.0, 2000.1),
        ("v <= 0", None, 0.0, 1e-9),
        ("v <= 0 * baseline", 7.0, 0.0, 0.1),
    ],
)
def test_constraint_bounds_a_value(text: str, baseline: float | None, allowed: float, forbidden: float) -> None:
    constraint = Constraint.parse(text)
    assert constraint.allows(allowed, baseline)
    assert not constraint.allows(forbidden, baseline)


def test_constraint_on_the_baseline_waits_for_one() -> None:
    constraint = Constraint.parse("v <= 2 * baseline")
    assert constraint.limit(None) is None
    assert constraint.allows(1e9, None)


@pytest.mark.parametrize(
    "text", ["", "v", "v == 1", "v <= ", "v <= x", "v <= 1 + baseline", "<= 1", "v <= 1.1 baseline"]
)
def test_other_constraints_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Constraint.parse(text)


@pytest.mark.parametrize(
    ("value", "devices"), [("0", "0"), (0, "0"), ([0, 1], "0,1"), ("cpu", "cpu"), ("auto", "auto")]
)
def test_devices_are_numbers_or_words(value: Any, devices: str) -> None:
    config = Config.from_dict({"command": "x", "metric": {"name": "v"}, "executor": {"devices": value}})
    assert config.executor.devices == devices

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scipy import stats
from tests.conftest import ROOT, RunScript
from tests.loop_bench import TAG, Loop
from tests.starter_bench import imported

from autoresearch.config import Config
from autoresearch.runner.watch import PROGRESS

torch = pytest.importorskip("torch", reason="torch is not installed: the topology starter goes UNTESTED")

STARTER = ROOT / "templates" / "starters" / "topology"
STUDY = ROOT / "benchmarks" / "topology_study"
TOPOLOGIES = ("ring", "expander", "dense", "none")
SIZES = (64, 256)
each_topology = pytest.mark.parametrize("topology", TOPOLOGIES)
each_size = pytest.mark.parametrize("nodes", SIZES)
each_task = pytest.mark.parametrize("task", ["consensus", "smooth", "regions"])


@pytest.fixture(scope="module")
def modules() -> Iterator[tuple[ModuleType, ModuleType]]:
    """``prepare`` and ``train``, imported, on one thread."""
    with imported(STARTER / "prepare.py", STARTER / "train.py") as (prepare, train):
        yield prepare, train


@pytest.fixture
def prepare(modules: tuple[ModuleType, ModuleType]) -> ModuleType:
    return modules[0]


@pytest.fixture
def train(modules: tuple[ModuleType, ModuleType]) -> ModuleType:
    return modules[1]


@pytest.fixture(scope="module")
def analysis() -> Iterator[ModuleType]:
    with imported(STUDY / "analysis.py") as (analysis,):
        yield analysis


def run_training(folder: Path = STARTER, **variables: str | int) -> subprocess.CompletedProcess[str]:
    """``train.py`` in ``folder`` with 3 optimiser steps, if ``variables`` say nothing else."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1", "MAX_STEPS": "3"}
    environment |= {name: str(value) for name, value in variables.items()}
    return subprocess.run(
        [sys.executable, "train.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def value_in(log: str, key: str) -> float:
    (found,) = re.findall(rf"(?m)^{key}:\s*(\S+)$", log)
    return float(found)


# --- graphs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["ring", "expander"])
@each_size
def test_sparse_graphs_are_simple_undirected_and_of_degree_four(topology: str, nodes: int, prepare) -> None:
    graph = prepare.make_graph(topology, nodes, seed=3)
    adjacency = graph.adjacency()
    assert graph.neighbours.shape == (nodes, 4)
    assert torch.equal(adjacency, adjacency.T)
    assert adjacency.sum(1).tolist() == [4] * nodes  # a repeated neighbour or a loop would make it less


@each_size
def test_diameters_and_gaps_are_the_known_ones(nodes: int, prepare) -> None:
    graphs = {topology: prepare.make_graph(topology, nodes, seed=3) for topology in TOPOLOGIES}
    assert [graphs[name].diameter for name in ("ring", "dense", "none")] == [nodes // 4, 1, None]
    assert 4 <= graphs["expander"].diameter <= 9
    angle = 2 * math.pi / nodes
    assert graphs["ring"].gap == pytest.approx(1 - (math.cos(angle) + math.cos(2 * angle)) / 2, abs=1e-9)
    assert graphs["dense"].gap == pytest.approx(nodes / (nodes - 1), abs=1e-6)
    assert graphs["none"].gap == 0
    assert graphs["expander"].gap >= prepare.LEAST_GAP > 8 * graphs["ring"].gap


def test_every_expander_of_many_seeds_is_connected_and_has_the_gap(prepare) -> None:
    graphs = [prepare.make_graph("expander", 64, seed) for seed in range(20)]
    assert all(graph.diameter is not None and graph.gap >= prepare.LEAST_GAP for graph in graphs)
    assert len({tuple(graph.neighbours.flatten().tolist()) for graph in graphs}) == 20
    again = prepare.make_graph("expander", 64, 7)
    assert torch.equal(again.neighbours, graphs[7].neighbours)


def test_expander_without_the_gap_is_not_handed_out(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "LEAST_GAP", 0.5)
    with pytest.raises(ValueError, match=r"spectral gap of 0\.5 in 1000 draws"):
        prepare.make_graph("expander", 16, 1)


@each_size
def test_propagation_reaches_every_node_on_every_graph(nodes: int, prepare) -> None:
    diameters = [prepare.make_graph(name, nodes, 1).diameter for name in TOPOLOGIES if name != "none"]
    assert prepare.sufficient_steps(nodes) == max(diameters) + 2


@pytest.mark.parametrize("topology, nodes, message", [("star", 64, "one of: ring"), ("ring", 5, "nodes is 5")])
def test_graph_that_makes_no_sense_is_refused(topology: str, nodes: int, message: str, prepare) -> None:
    with pytest.raises(ValueError, match=message):
        prepare.make_graph(topology, nodes, 1)


# --- problems ------------------------------------------------------------------------------------------


@each_task
def test_samples_depend_on_the_seed_and_the_split_and_on_nothing_else(task: str, prepare) -> None:
    torch.manual_seed(0)
    first = prepare.Problem(task, 64, 1).samples("val")
    for topology in TOPOLOGIES:  # whatever else was drawn in between
        prepare.make_graph(topology, 64, 1)
        torch.rand(5)
        assert all(map(torch.equal, prepare.Problem(task, 64, 1).samples("val"), first))
    for problem, split in ((prepare.Problem(task, 64, 2), "val"), (prepare.Problem(task, 64, 1), "test")):
        assert not torch.equal(problem.samples(split)[0], first[0])


def test_noise_is_that_of_the_readings_and_leaves_the_targets(prepare) -> None:
    loud, quiet = (prepare.Problem("smooth", 64, 1, noise).samples("train") for noise in (1.0, 0.1))
    assert torch.equal(loud[1], quiet[1])
    noise = loud[0] - loud[1]
    assert torch.allclose(noise, 10 * (quiet[0] - quiet[1]), atol=1e-4)
    assert noise.std().item() == pytest.approx((0.8 + 0.2 * 25) ** 0.5, rel=0.02)


def test_consensus_is_global_and_smooth_is_local(prepare) -> None:
    """How alike the targets of two nodes are, by their distance on the ring."""
    for task, expected in (("consensus", [1, 1, 1]), ("smooth", [0.98, 0.4, 0])):
        targets = prepare.Problem(task, 64, 1).samples("train")[1]
        likeness = [(targets * targets.roll(shift, 1)).mean().item() for shift in (1, 5, 32)]
        variance = targets.square().mean().item()
        assert variance == pytest.approx(1, abs=0.1)
        if task == "consensus":
            assert likeness == pytest.approx([variance] * 3)
        else:
            assert likeness[0] > 0.9 * variance and likeness[1] < 0.5 * variance and abs(likeness[2]) < 0.3, expected


def test_regions_have_the_same_teacher_in_training_and_test(prepare) -> None:
    """One linear function fits poorly, and equally so on both splits."""
    problem = prepare.Problem("regions", 64, 1)
    (tokens, targets), (new_tokens, new_targets) = problem.samples("train"), problem.samples("test")
    slope = torch.linalg.lstsq(tokens, targets[:, None]).solution
    errors = [
        (x @ slope - y[:, None]).square().mean() / y.var() for x, y in ((tokens, targets), (new_tokens, new_targets))
    ]
    assert 0.2 < errors[0] < 0.95 and errors[1] == pytest.approx(errors[0], rel=0.25)


def test_unknown_task_is_refused(prepare) -> None:
    with pytest.raises(ValueError, match="one of: consensus, smooth, regions"):
        prepare.Problem("sorting", 64, 1).samples("val")


# --- models --------------------------------------------------------------------------------------------


def models(modules: tuple[ModuleType, ModuleType], variant: str, steps: int = 3) -> dict[str, Any]:
    """An untrained model for each topology, whose updates do something."""
    prepare, train = modules
    made = {}
    for topology in TOPOLOGIES:
        made[topology] = train.make_model(variant, prepare.make_graph(topology, 64, 1), steps, seed=1)
        torch.manual_seed(9)
        torch.nn.init.normal_(made[topology].propagation.out.weight, std=0.5)
    return made


@pytest.mark.parametrize("variant", ["node", "moe"])
def test_all_topologies_start_from_the_same_parameters(variant: str, modules) -> None:
    first, *others = (model.state_dict() for model in models(modules, variant).values())
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[name], other[name]) for name in first)
    assert "propagation.neighbours" not in first


def test_number_of_parameters_does_not_depend_on_steps_or_nodes(modules) -> None:
    prepare, train = modules
    count = {
        sum(p.numel() for p in train.make_model("node", prepare.make_graph("ring", nodes, 1), steps, 1).parameters())
        for nodes, steps in ((64, 2), (64, 18), (256, 66))
    }
    assert len(count) == 1


@each_topology
def test_a_reading_travels_one_edge_a_step(topology: str, modules) -> None:
    prepare, _ = modules
    model = models(modules, "node", steps=2)[topology]
    adjacency = prepare.make_graph(topology, 64, 1).adjacency() + torch.eye(64)
    readings = torch.zeros(2, 64)
    readings[1, 20] = 3.0
    quiet, loud = model(readings).detach()
    heard = ((quiet - loud).abs() > 1e-7).tolist()
    assert heard == ((adjacency @ adjacency)[20] > 0).tolist()


@each_topology
def test_aggregation_is_the_mean_of_the_neighbours(topology: str, prepare, train) -> None:
    graph = prepare.make_graph(topology, 64, 1)
    z = torch.randn(64, 3, 5)
    adjacency = torch.eye(64) if topology == "none" else graph.adjacency()
    expected = torch.einsum("ij,jbw->ibw", adjacency / adjacency.sum(1, keepdim=True), z)
    assert torch.allclose(train.aggregate(z, graph.neighbours), expected, atol=1e-5)


def test_token_is_answered_by_its_top_experts_alone_where_none_talk(modules) -> None:
    _, train = modules
    flat = models(modules, "moe")["none"]
    tokens = torch.randn(7, 8)
    before = flat(tokens).detach()
    routed = set(flat.router(tokens).topk(train.TOP_K, dim=1).indices.flatten().tolist())
    others = [expert for expert in range(64) if expert not in routed]
    with torch.no_grad():
        flat.encode[others] = 9.0
        flat.decode[others] = 9.0
        assert torch.equal(flat(tokens), before)
        flat.decode[list(routed)] = 0.0
        assert flat(tokens).abs().max() == 0


def test_mixture_weighs_the_answers_of_the_top_experts(prepare, train) -> None:
    """Computed expert by expert, with no propagation in between."""
    model = train.make_model("moe", prepare.make_graph("none", 64, 1), 0, seed=1)
    tokens = torch.randn(3, 8)
    for token, predicted in zip(tokens, model(tokens), strict=True):
        best = model.router(token).topk(train.TOP_K)
        gates = best.values.exp() / best.values.exp().sum()
        answers = [
            gate * token @ model.encode[expert] @ model.decode[expert]
            for gate, expert in zip(gates, best.indices, strict=True)
        ]
        assert predicted.item() == pytest.approx(
            sum(g * a for g, a in zip(gates, answers, strict=True)).item(), rel=1e-4
        )


def test_untrained_step_is_the_identity(prepare, train) -> None:
    graph = prepare.make_graph("ring", 64, 1)
    readings = torch.randn(4, 64)
    shallow, deep = (train.make_model("node", graph, steps, 1)(readings) for steps in (0, 18))
    assert torch.equal(shallow, deep)


# --- training and metric -------------------------------------------------------------------------------


def test_metric_is_the_error_of_every_prediction(prepare) -> None:
    problem = prepare.Problem("consensus", 64, 1)
    inputs, targets = problem.samples("val")
    zero = torch.nn.Linear(64, 64)
    torch.nn.init.zeros_(zero.weight)
    torch.nn.init.zeros_(zero.bias)
    assert prepare.mean_squared_error(zero, problem, "val") == pytest.approx(targets.square().mean().item(), rel=1e-5)
    torch.nn.init.constant_(zero.weight, 1 / 64)  # every node says the mean of all readings
    expected = (inputs.mean(1, keepdim=True) - targets).square().mean().item()
    assert prepare.mean_squared_error(zero, problem, "val") == pytest.approx(expected, rel=1e-4)
    assert not zero.training


def test_prediction_of_another_shape_is_refused(prepare) -> None:
    with pytest.raises(ValueError, match=r"shape \(64, 1\); expected \(64, 64\)"):
        prepare.mean_squared_error(torch.nn.Linear(64, 1), prepare.Problem("consensus", 64, 1), "val")


@pytest.fixture(scope="module")
def logs() -> dict[str, str]:
    """Of three short trainings; two have the same seed."""
    done = {"1": run_training(AUTORESEARCH_SEED=1), "again": run_training(AUTORESEARCH_SEED=1)}
    done["2"] = run_training(AUTORESEARCH_SEED=2)
    assert [one.returncode for one in done.values()] == [0, 0, 0], done["1"].stderr
    return {name: one.stdout for name, one in done.items()}


def test_equal_seeds_give_equal_bits_and_others_do_not(logs: dict[str, str]) -> None:
    values = {name: value_in(log, "val_mse") for name, log in logs.items()}
    assert values["1"] == values["again"] != values["2"]


def test_summary_holds_what_the_settings_watch(logs: dict[str, str]) -> None:
    config = Config.read(STARTER / "autoresearch.yaml")
    summary = logs["1"].partition("\n---\n")[2]
    assert len(re.findall(config.metric.pattern, logs["1"], re.MULTILINE)) == 1
    for name in config.watch:
        assert len(re.findall(config.watch[name], summary, re.MULTILINE)) == 1, name
    assert value_in(summary, "propagation_steps") == 18
    assert "consensus, 64 nodes, ring" in summary


def test_progress_lines_are_those_that_the_runner_reads(logs: dict[str, str]) -> None:
    found = [re.search(PROGRESS, line) for line in logs["1"].partition("---")[0].splitlines()]
    assert len(found) == 3 and all(found)
    assert [match["percent"] for match in found if match] == ["33.3", "66.7", "100.0"]


def test_time_budget_is_kept(prepare, train) -> None:
    problem = prepare.Problem("consensus", 64, 1)
    model = train.make_model("node", prepare.make_graph("ring", 64, 1), 18, seed=1)
    done = train.fit(model, problem, seed=1, budget_s=0.3)
    assert 0.3 <= done.train_s < 0.6
    assert done.steps > 5


def test_training_lowers_the_error(prepare, train) -> None:
    problem = prepare.Problem("consensus", 64, 1)
    model = train.make_model("node", prepare.make_graph("dense", 64, 1), 4, seed=1)
    before = prepare.mean_squared_error(model, problem, "val")
    done = train.fit(model, problem, seed=1, max_steps=100, learning_rate=0.01)
    assert before > 0.5
    assert prepare.mean_squared_error(model, problem, "val") < 0.2
    assert done.train_loss < 0.2


def test_diverged_training_ends_without_a_metric(prepare, train) -> None:
    model = train.make_model("node", prepare.make_graph("ring", 64, 1), 4, seed=1)
    with pytest.raises(SystemExit, match="diverged"):
        train.fit(model, prepare.Problem("consensus", 64, 1), seed=1, max_steps=20, learning_rate=1e30)


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("train.py", 'TOPOLOGY = "ring"', 'TOPOLOGY = "expander"'),
        ("prepare.py", 'TASK = "consensus"', 'TASK = "regions"'),
    ],
)
def test_one_constant_is_a_switch(name: str, old: str, new: str, tmp_path: Path, logs: dict[str, str]) -> None:
    for file in ("train.py", "prepare.py"):
        text = (STARTER / file).read_text()
        assert (text.count(f"\n{old}") == 1) is (file == name)
        (tmp_path / file).write_text(text.replace(f"\n{old}", f"\n{new}"))
    done = run_training(tmp_path, AUTORESEARCH_SEED=1)
    assert done.returncode == 0, done.stderr
    assert value_in(done.stdout, "val_mse") != value_in(logs["1"], "val_mse")


# --- a campaign ----------------------------------------------------------------------------------------


def test_starter_needs_no_data_and_becomes_a_campaign(tmp_path: Path, run_script: RunScript) -> None:
    folder = tmp_path / "project"
    done = run_script(
        "setup_campaign", "--starter", "topology", "--project", folder, "--tag", "a", "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout
    config = json.loads(done.stdout)["data"]["config"]
    assert (config["metric"]["name"], config["edit"], config["protect"]) == ("val_mse", ["train.py"], ["prepare.py"])
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".py") == ["prepare.py", "train.py"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_real_training_keeps_the_planted_gain_alone(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learning rate is a third of what it should be; a tenth more decay is worth nothing."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("MAX_STEPS", "100")  # so that the outcome of this test does not depend on the machine
    loop = Loop(folder=tmp_path / "project", run=run_script)
    loop.folder.mkdir()
    loop.setup(*("--starter", "topology", "--tag", TAG, "--command", f"{sys.executable} train.py"))

    def decide(description: str, old: str, new: str) -> str:
        text = loop.text()
        assert text.count(old) == 1
        loop.write({"train.py": text.replace(old, new)})
        loop.submit(description, "--wait", 200)
        return str(loop.log()["experiment"]["status"])

    loop.submit("baseline", "--wait", 200)
    assert decide("a little more decay", "WEIGHT_DECAY = 0.01", "WEIGHT_DECAY = 0.011") == "discard"
    assert decide("a higher learning rate", "LEARNING_RATE = 0.003", "LEARNING_RATE = 0.01") == "keep"
    assert [row[3] for row in loop.rows] == ["keep", "discard", "keep"]


# --- the study -----------------------------------------------------------------------------------------


def test_holm_corrects_step_by_step(analysis) -> None:
    assert analysis.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert analysis.holm([0.9, 0.8]) == [1.0, 1.0]
    assert analysis.holm([]) == []


def test_paired_tests_give_known_numbers(analysis) -> None:
    """Differences 1 to 6: t = 3.5 / (sqrt(3.5) / sqrt(6)), and one of 64 sign patterns on either side."""
    a, b = {seed: 10 * seed + seed for seed in range(1, 7)}, {seed: 10 * seed for seed in range(1, 7)}
    found = analysis.paired_tests(a, b)
    t = 3.5 / (3.5**0.5 / 6**0.5)
    half = stats.t.ppf(0.975, 5) * 3.5**0.5 / 6**0.5
    assert found["difference"] == pytest.approx(3.5)
    assert (found["low"], found["high"]) == pytest.approx((3.5 - half, 3.5 + half))
    assert found["p_t"] == pytest.approx(2 * stats.t.sf(t, 5))
    assert found["p_wilcoxon"] == pytest.approx(2 / 64)


def test_pairing_takes_off_what_the_seeds_share(analysis) -> None:
    a = {seed: float(seed) for seed in range(8)}
    b = {seed: value + 0.1 + 0.001 * seed for seed, value in a.items()}
    assert analysis.paired_tests(a, b)["p_t"] < 1e-6
    assert analysis.unpaired_p(a, b) > 0.5


def test_pairs_are_matched_by_seed_and_the_verdict_needs_both_tests(analysis) -> None:
    low = {seed: 1.0 + 0.01 * seed for seed in range(8)}
    high = {seed: value + 0.5 + 0.001 * (seed % 3) for seed, value in reversed(low.items())} | {99: -100.0}
    (pair,) = analysis.compare_pairs({"low": {**low, 98: 100.0}, "high": high})
    assert (pair.n, pair.word) == (8, "low better")
    assert pair.high < 0
    five = {seed: low[seed] for seed in range(5)}
    (pair,) = analysis.compare_pairs({"low": five, "high": high})
    assert pair.p_t < 0.001 and pair.word == "inconclusive"  # by ranks, five pairs cannot reach 5 %


def test_equal_arms_and_too_few_seeds(analysis) -> None:
    same = dict.fromkeys(range(8), 1.0)
    (pair,) = analysis.compare_pairs({"a": same, "b": dict(same)})
    assert (pair.difference, pair.p_t, pair.word) == (0.0, 1.0, "inconclusive")
    shifted = analysis.paired_tests(same, dict.fromkeys(range(8), 1.5))
    assert (shifted["low"], shifted["high"], shifted["p_t"]) == (-0.5, -0.5, 0.0)
    assert shifted["p_wilcoxon"] == pytest.approx(2 / 256)
    with pytest.raises(ValueError, match="1 common seeds"):
        analysis.paired_tests({1: 1.0}, {1: 2.0, 2: 3.0})


def test_pairs_that_are_not_asked_for_cost_no_correction(analysis) -> None:
    arms = {name: {seed: shift + seed % (3 + shift) / 9 for seed in range(8)} for shift, name in enumerate("abc")}
    every, asked = analysis.compare_pairs(arms), analysis.compare_pairs(arms, reference="a")
    assert [(pair.a, pair.b) for pair in every] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [(pair.a, pair.b) for pair in asked] == [("a", "b"), ("a", "c")]
    assert min(pair.p_wilcoxon for pair in every) == pytest.approx(3 / 128)
    assert min(pair.p_wilcoxon for pair in asked) == pytest.approx(2 / 128)


def test_order_stability_counts_orders_and_winners(analysis) -> None:
    train = {"a": {1: 1.0, 2: 1.0, 3: 1.0}, "b": {1: 2.0, 2: 2.0, 3: 2.0}, "c": {1: 3.0, 2: 3.0, 3: 3.0}}
    test = {"a": {1: 1.0, 2: 3.0, 3: 1.0}, "b": {1: 2.0, 2: 2.0, 3: 2.0}, "c": {1: 3.0, 2: 1.0, 3: 3.0}}
    found = analysis.order_stability(train, test)
    assert (found.train_order, found.train_count, found.seeds) == (("a", "b", "c"), 3, 3)
    assert (found.test_order, found.test_count) == (("a", "b", "c"), 2)
    assert found.test_winners == {"a": 2, "c": 1}
    assert found.agreement == pytest.approx((1 - 1 + 1) / 3)


def run_study(out: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STUDY / "run.py"), "--out", str(out), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_study_goes_on_where_it_stopped_and_prints_its_tables(tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = run_study(out, "--quick", "--only", "geometry")
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    assert len(lines) == 8
    out.write_text("".join(f"{line}\n" for line in lines[:6]) + lines[6][:40])  # killed within a line
    done = run_study(out, "--quick", "--only", "geometry")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ring, shuffled") == 2
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["training"] for row in rows] == [json.loads(line)["training"] for line in lines]
    assert rows[7]["result"]["test_mse"] == json.loads(lines[7])["result"]["test_mse"]


def test_kept_results_are_paired_and_complete() -> None:
    """The figures in the documents come from this file."""
    rows = [json.loads(line) for line in (STUDY / "results.jsonl").read_text().splitlines()]
    cells: dict[str, dict[str, set[int]]] = {}
    for row in rows:
        one = row["training"]
        cells.setdefault(one["cell"], {}).setdefault(one["arm"], set()).add(one["seed"])
        assert math.isfinite(row["result"]["test_mse"])
    main = {cell: arms for cell, arms in cells.items() if not cell.startswith("trap")}
    assert len(main) == 6
    for arms in main.values():
        assert sorted(arms) == sorted(TOPOLOGIES)
        assert len({frozenset(seeds) for seeds in arms.values()}) == 1
        assert len(arms["ring"]) >= 5
    parameters = {(row["training"]["cell"], row["result"]["parameters"]) for row in rows}
    assert len(parameters) == len(cells)


@pytest.mark.parametrize(
    "arguments, message",
    [(["--quick"], "needs an --out of its own"), (["--out", "/nowhere/results.jsonl"], "the folder does not exist")],
)
def test_study_refuses_what_would_be_lost(arguments: list[str], message: str) -> None:
    """Results of a few steps among the kept ones, or trainings that cannot be written down."""
    command = [sys.executable, str(STUDY / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2 and message in done.stderr

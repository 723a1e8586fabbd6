from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import math
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.conftest import ROOT
from tests.starter_bench import imported

from autoresearch.config import Config
from autoresearch.runner.watch import PROGRESS

torch = pytest.importorskip("torch", reason="torch is not installed: the nanogpt starter goes UNTESTED")

STARTER = ROOT / "templates" / "starters" / "nanogpt"
pytestmark = pytest.mark.xdist_group("nanogpt")  # one worker: the corpus is prepared once


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AUTORESEARCH_CACHE with the default corpus in it."""
    cache = tmp_path_factory.mktemp("cache")
    preparing = start_preparing(cache)
    assert "prepared in" in preparing.communicate(timeout=60)[0]
    assert preparing.returncode == 0
    return cache


@pytest.fixture(scope="module")
def modules(cache: Path) -> Iterator[tuple[ModuleType, ModuleType]]:
    """``prepare`` and ``train``, imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(cache))
        with imported(STARTER / "prepare.py", STARTER / "train.py") as (prepare, train):
            yield prepare, train


@pytest.fixture
def prepare(modules: tuple[ModuleType, ModuleType]) -> ModuleType:
    return modules[0]


@pytest.fixture
def gpt(modules: tuple[ModuleType, ModuleType]) -> Any:
    """An untrained model whose predictions are not uniform."""
    torch.manual_seed(0)
    model = modules[1].GPT(256)
    torch.nn.init.normal_(model.head.weight, std=0.05)
    for block in model.blocks:
        torch.nn.init.normal_(block.attention.out.weight, std=0.1)
    return model


def environment(cache: Path, **extra: str) -> dict[str, str]:
    return {**os.environ, "AUTORESEARCH_CACHE": str(cache), "no_proxy": "*", "CUDA_VISIBLE_DEVICES": "", **extra}


def start_preparing(cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(STARTER / "prepare.py")]
    return subprocess.Popen(command, env=environment(cache), stdout=subprocess.PIPE, text=True)


class Run:
    """One training of a copy of train.py with some of its constants changed."""

    def __init__(self, folder: Path, cache: Path, constants: dict[str, str], variables: dict[str, str]) -> None:
        folder.mkdir()
        source = (STARTER / "train.py").read_text()
        for name, value in constants.items():
            source, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", source)
            assert count == 1, name
        (folder / "train.py").write_text(source)
        (folder / "prepare.py").write_bytes((STARTER / "prepare.py").read_bytes())
        done = subprocess.run(
            [sys.executable, "train.py"],
            cwd=folder,
            env=environment(cache, **variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        self.code, self.log, self.errors = done.returncode, done.stdout, done.stderr

    @property
    def progress(self) -> list[tuple[float, float]]:
        """(percent, loss) of each progress line, as the runner reads them."""
        found = [re.search(PROGRESS, line) for line in self.log.partition("---")[0].splitlines()]
        return [(float(match["percent"]), float(match["loss"])) for match in found if match]

    def __getitem__(self, key: str) -> float:
        assert self.code == 0, self.errors
        found = re.findall(rf"(?m)^{key}:\s*(\S+)$", self.log)
        assert len(found) == 1, (key, self.log)
        return float(found[0])


@pytest.fixture(scope="module")
def train(cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """``train(steps=, seed=, budget=, again=, CONSTANT="value")``: a ``Run``, made once for equal arguments."""

    @functools.cache
    def run(*, steps: int = 0, seed: int = 1, budget: float = 100, again: int = 0, **constants: str) -> Run:
        variables = {"MAX_STEPS": str(steps), "AUTORESEARCH_SEED": str(seed), "TIME_BUDGET": str(budget)}
        return Run(tmp_path_factory.mktemp("run") / "project", cache, constants, variables)

    return run


# --- training ------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_bits(train) -> None:
    assert train(steps=4)["val_bpb"] == train(steps=4, again=1)["val_bpb"]


def test_another_seed_gives_another_result(train) -> None:
    assert train(steps=4)["val_bpb"] != train(steps=4, seed=2)["val_bpb"]


def test_training_lowers_the_metric(train) -> None:
    assert train(steps=40)["val_bpb"] < train(steps=4)["val_bpb"] - 1


def test_summary_holds_what_the_settings_watch(train) -> None:
    config = Config.read(STARTER / "autoresearch.yaml")
    log = train(steps=4).log
    summary = log.partition("\n---\n")[2]
    assert re.findall(config.metric.pattern, log, re.MULTILINE) == re.findall(r"val_bpb: +(\d\.\d{6})\n", summary)
    gpu_only = {"mfu_percent"}
    for name in config.watch.keys() - gpu_only:
        assert len(re.findall(config.watch[name], summary, re.MULTILINE)) == 1, name


def test_progress_lines_are_those_that_the_runner_reads(train) -> None:
    percents, losses = zip(*train(steps=40).progress, strict=True)
    assert len(percents) == 40
    assert list(percents) == sorted(percents) and percents[-1] == 100
    assert losses[0] == pytest.approx(math.log(256), abs=0.001) and losses[-1] < losses[0] - 0.5


def test_time_budget_is_kept_and_little_time_is_spent_around_it(train) -> None:
    run = train(budget=1.5)
    assert 1.5 <= run["training_seconds"] < 2.5
    assert run["num_steps"] > 5
    assert "(100.0%)" in run.log


def test_accumulated_gradients_are_those_of_the_whole_batch(train) -> None:
    whole, parts = train(steps=40), train(steps=40, DEVICE_BATCH_SIZE="2")
    assert parts["val_bpb"] == pytest.approx(whole["val_bpb"], abs=0.005)
    assert parts.progress[-1] == pytest.approx(whole.progress[-1], abs=0.005)


def test_constants_can_be_changed_one_by_one_or_together(train) -> None:
    changed = {"DEPTH": "3", "ASPECT": "24", "HEAD_DIM": "12", "SEQ_LEN": "64", "TOTAL_BATCH_SIZE": "2**10"}
    run = train(steps=4, **changed, WARMUP_RATIO="0.0", WARMDOWN_RATIO="0.0", FINAL_LR_FRAC="0.1")
    assert (run["depth"], run["num_steps"]) == (3, 4)
    assert run["val_bpb"] < 8


def test_tables_of_values_are_trained_from_any_depth(train) -> None:
    """On a GPU there are three by default; with fewer blocks than that each has one."""
    plain, few, many = (train(steps=30, VALUE_TABLES=number) for number in ("0", "1", "3"))
    assert few["num_params_M"] - plain["num_params_M"] == pytest.approx(256 * 64 / 1e6, abs=0.006)
    assert many["num_params_M"] - plain["num_params_M"] == pytest.approx(2 * 256 * 64 / 1e6, abs=0.006)
    assert len({run["val_bpb"] for run in (plain, few, many)}) == 3


def test_batch_that_does_not_divide_is_refused(train) -> None:
    run = train(steps=1, TOTAL_BATCH_SIZE="1000")
    assert run.code != 0 and "TOTAL_BATCH_SIZE must be a multiple of" in run.errors


def test_diverged_run_fails_without_a_metric(train) -> None:
    run = train(steps=30, HEAD_LR="1e30")
    assert run.code != 0 and "diverged" in run.errors
    assert "val_bpb" not in run.log


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_defaults_leave_room_and_can_be_spoilt(train) -> None:
    """The edits that README.md lists, at one seed and a third of the steps measured there."""
    baseline = train(steps=60)["val_bpb"]
    assert train(steps=60, HEAD_LR="0.004")["val_bpb"] < baseline - 0.1
    assert train(steps=60, WARMDOWN_RATIO="0.6")["val_bpb"] > baseline + 0.1


# --- the optimiser -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 32, 128), (2, 128, 32)], ids=["square", "wide", "tall"])
def test_update_of_a_matrix_has_singular_values_near_one(shape: tuple[int, ...], modules) -> None:
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spectrum = torch.logspace(0, -2.5, min(shape[1:]))
    values = torch.linalg.svdvals(modules[1].orthogonalize(left @ torch.diag(spectrum) @ right))
    assert 0.85 < values.min() < values.max() < 1.15


@pytest.mark.parametrize("neurons", ["rows", "columns"])
def test_neurons_with_small_updates_catch_up_with_the_others(neurons: str, modules) -> None:
    torch.manual_seed(0)
    sizes = torch.logspace(0, -2, 16)  # of the neurons, a hundredfold apart
    scale = sizes[None, :, None] if neurons == "rows" else sizes[None, None, :]
    squares = torch.zeros_like(scale)
    for _ in range(100):
        updates = scale * torch.randn(1, 16, 16)
        evened = modules[1].even_out(updates, squares)
        torch.testing.assert_close(evened.norm(), updates.norm())
    across = evened.square().mean(-1 if neurons == "rows" else -2).sqrt()
    assert across.max() / across.min() < 4


def test_gradients_of_zero_leave_the_weights_as_they_are(modules) -> None:
    weights = [torch.nn.Parameter(torch.randn(8, 4)) for _ in range(2)]
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        zeros = [torch.zeros_like(weight) for weight in weights]
        modules[1].muon(weights, zeros, torch.zeros(2, 8, 4), torch.zeros(2, 8, 1), torch.tensor(0.0))
    assert all(torch.equal(old, new) for old, new in zip(before, weights, strict=True))


# --- the metric ----------------------------------------------------------------------------------------


def test_untrained_model_needs_eight_bits_for_a_byte(modules) -> None:
    prepare, train_module = modules
    model = train_module.GPT(256)
    assert prepare.evaluate_bpb(model, batch_size=8, seq_len=256) == pytest.approx(8, abs=1e-5)


def test_metric_does_not_depend_on_the_batch_size(prepare: ModuleType, gpt, monkeypatch) -> None:
    monkeypatch.setitem(prepare.EVAL_BLOCKS, "cpu", 5)
    first, *others = (prepare.evaluate_bpb(gpt, batch_size=n, seq_len=256) for n in (8, 7, 1, 100))
    assert others == pytest.approx([first] * 3, abs=1e-5)
    assert abs(first - 8) > 0.01


def test_metric_reads_the_same_text_at_every_context_length(prepare: ModuleType, monkeypatch) -> None:
    monkeypatch.setitem(prepare.EVAL_BLOCKS, "cpu", 5)
    torch.manual_seed(0)
    model = torch.nn.Embedding(256, 256)  # sees one token: more context makes no difference
    first, *others = (prepare.evaluate_bpb(model, batch_size=4, seq_len=n) for n in (2048, 256, 2))
    assert others == pytest.approx([first] * 2, abs=1e-5)


def test_metric_is_per_byte_whatever_the_tokenizer(prepare: ModuleType, tmp_path: Path, monkeypatch) -> None:
    documents = prepare.read_documents("stdlib", "")[:150]
    monkeypatch.setattr(prepare, "read_documents", lambda *_: documents)
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    corpus = prepare.read_corpus(prepare.prepare(vocab=300))
    monkeypatch.setattr(prepare, "load_corpus", lambda: corpus)
    monkeypatch.setitem(prepare.EVAL_BLOCKS, "cpu", 10**6)
    targets = corpus.val[1 : 1 + (len(corpus.val) - 1) // prepare.EVAL_BLOCK * prepare.EVAL_BLOCK]
    text_bytes = len(corpus.tokenizer.decode(targets.tolist()))
    uniform = torch.nn.Embedding(300, 300)
    torch.nn.init.zeros_(uniform.weight)
    expected = len(targets) * math.log2(300) / text_bytes
    assert prepare.evaluate_bpb(uniform, batch_size=8, seq_len=2048) == pytest.approx(expected, rel=0.002)
    assert expected < 7


def test_model_that_looks_ahead_is_refused(prepare: ModuleType, gpt, monkeypatch) -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, k, v, is_causal: attend(q, k, v))
    with pytest.raises(ValueError, match="looks ahead"):
        prepare.evaluate_bpb(gpt, batch_size=2, seq_len=256)


def test_context_length_that_does_not_divide_a_block_is_refused(prepare: ModuleType, gpt) -> None:
    with pytest.raises(ValueError, match="divide 2048"):
        prepare.evaluate_bpb(gpt, batch_size=2, seq_len=100)


# --- text and tokens -----------------------------------------------------------------------------------


def test_default_corpus_is_the_standard_library_split_by_file(prepare: ModuleType) -> None:
    documents = prepare.read_documents("stdlib", "")
    corpus = prepare.load_corpus()
    sides = [bytes(side.numpy()).split(b"\0")[1:] for side in (corpus.train, corpus.val)]
    train, val = map(set, sides)
    assert not train & val
    assert train | val == {data for _, data in documents} and b"\0" not in b"".join(train | val)
    assert sum(map(len, sides)) == len(train) + len(val)  # none twice
    assert 0.03 < len(corpus.val) / (len(corpus.val) + len(corpus.train)) < 0.06
    names = [name for name, _ in documents]
    assert "argparse.py" in names and "json/decoder.py" in names
    assert not any(name.startswith(("test/", "site-packages/")) for name in names)


def test_split_does_not_depend_on_the_order_of_the_documents(prepare: ModuleType) -> None:
    documents = [(f"{i}.txt", b"x" * i) for i in range(1, 200)]
    assert prepare.split(documents) == prepare.split(documents[::-1])


def test_batches_follow_the_seed(prepare: ModuleType) -> None:
    tokens = torch.arange(100, dtype=torch.uint8)
    draws = []
    for seed in (1, 1, 2):
        inputs, targets = next(prepare.batches(tokens, 4, 8, seed=seed, device="cpu"))
        assert torch.equal(inputs + 1, targets) and inputs.shape == (4, 8)
        draws.append(inputs)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_bpe_merges_the_most_frequent_pair_first(prepare: ModuleType) -> None:
    tokenizer = prepare.Tokenizer.train(b"aaabdaaabac", 259)
    assert tokenizer.texts[256] == b"aa"
    assert {tokenizer.texts[257], tokenizer.texts[258]} <= {b"ab", b"aaab", b"aaa", b"aab"}
    assert len(tokenizer.encode(b"aaabdaaabac")) == 5


def test_bpe_gives_any_bytes_back(prepare: ModuleType) -> None:
    text = (STARTER / "train.py").read_bytes()
    tokenizer = prepare.Tokenizer.train(text, 600)
    assert len(tokenizer.texts) == 600
    for sample in (text, bytes(range(256)) * 3, b"", b"  \t\n\0\0 x" + b"=" * 1000):
        assert tokenizer.decode(tokenizer.encode(sample)) == sample
    assert len(tokenizer.encode(text)) < len(text) / 2


def test_bpe_stops_when_no_pair_occurs_twice(prepare: ModuleType) -> None:
    assert len(prepare.Tokenizer.train(b"abcd", 300).texts) == 256


# --- the cache -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "gone"])
def test_damaged_corpus_is_made_anew(prepare: ModuleType, damage: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    path = prepare.prepare()
    prepare.select(path)
    good = path.read_bytes()
    flipped = good[:5_000_000] + bytes([good[5_000_000] ^ 1]) + good[5_000_001:]
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": good[:-100], "bit": flipped, "empty": b""}[damage])
    corpus = prepare.load_corpus.__wrapped__()
    assert path.read_bytes() == good
    assert len(corpus.train) > 10**6
    assert "preparing it again" in capsys.readouterr().err


def test_corpus_that_cannot_be_made_again_is_an_error(prepare: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    prepare.select(tmp_path / "stdlib-256-of-another-python.npz")
    with pytest.raises(prepare.DataError, match="is not the text that it was"):
        prepare.load_corpus.__wrapped__()


def test_damaged_selection_names_the_command_that_mends_it(prepare: ModuleType, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    for text in ("{", "[]", "{}"):
        (tmp_path / "selected.json").write_text(text)
        with pytest.raises(prepare.DataError, match=r"Run: python prepare\.py"):
            prepare.load_corpus.__wrapped__()


def test_file_appears_whole_or_not_at_all_also_with_two_writers(prepare: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with prepare.atomic_file(path) as slow:
        slow.write(b"slow")
        with prepare.atomic_file(path) as fast:
            fast.write(b"fast")
            assert not path.exists()
        assert path.read_bytes() == b"fast"
    assert path.read_bytes() == b"slow"
    with pytest.raises(KeyboardInterrupt), prepare.atomic_file(path) as broken:
        broken.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"slow"
    assert list(tmp_path.iterdir()) == [path]


def test_two_first_preparations_at_once_leave_one_whole_corpus(tmp_path: Path, prepare: ModuleType) -> None:
    both = [start_preparing(tmp_path) for _ in range(2)]
    assert [process.communicate(timeout=60)[0].count("prepared in") for process in both] == [1, 1]
    assert [process.returncode for process in both] == [0, 0]
    names = sorted(path.name for path in (tmp_path / "nanogpt").iterdir())
    assert len(names) == 2 and names[0] == "selected.json"
    assert len(prepare.read_corpus(tmp_path / "nanogpt" / names[1]).val) > 10**5


# --- downloads -----------------------------------------------------------------------------------------

TEXT = "".join(f"{i}. The quick brown fox jumps over the lazy dog.\n" for i in range(3000)).encode()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


FILES = {
    "/fox.txt": TEXT,
    "/fox.zip": zipped({f"part{i}.txt": TEXT[i::25] for i in range(25)}),
    "/small.txt": TEXT[:10_000],
}


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server of FILES, and the paths that it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = FILES.get(self.path)
            self.send_response(200 if data else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def sha256(path: str) -> str:
    return hashlib.sha256(FILES[path]).hexdigest()


def left(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


@pytest.fixture
def cli(prepare: ModuleType, tmp_path: Path, monkeypatch, capsys):
    """``cli(*arguments)`` runs prepare.py on an empty cache in ``tmp_path``: its exit code and its stderr."""
    monkeypatch.setattr(prepare, "CACHE", tmp_path / "nanogpt")
    monkeypatch.setenv("no_proxy", "*")

    def run(*arguments: str) -> tuple[int, str]:
        try:
            code = prepare.main(arguments)
        except SystemExit as ending:
            code = ending.code
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("path", ["/fox.txt", "/fox.zip"])
def test_download_with_the_right_checksum_becomes_the_corpus(path: str, server, cli, tmp_path, prepare) -> None:
    address, asked = server
    arguments = ("--dataset", address + path, "--sha256", sha256(path).upper())
    assert cli(*arguments)[0] == 0
    selected = json.loads((tmp_path / "nanogpt" / "selected.json").read_text())
    assert left(tmp_path) == sorted([selected["file"], "selected.json", sha256(path)])
    assert cli(*arguments, "--vocab", "257")[0] == 0
    assert prepare.load_corpus.__wrapped__().vocab_size == 257
    corpus = prepare.read_corpus(tmp_path / "nanogpt" / selected["file"])
    assert Counter(bytes(corpus.train.numpy()) + bytes(corpus.val.numpy())) - Counter({0: 25}) == Counter(TEXT)
    assert asked == [path]


def test_download_with_a_wrong_checksum_leaves_nothing(server, cli, tmp_path: Path) -> None:
    address, _ = server
    code, errors = cli("--dataset", f"{address}/fox.txt", "--sha256", "0" * 64)
    assert code == 1
    assert f"has the SHA-256 {sha256('/fox.txt')}, not {'0' * 64}" in errors
    assert left(tmp_path) == []


def test_damaged_download_is_fetched_again(server, cli, tmp_path: Path) -> None:
    address, asked = server
    arguments = ("--dataset", f"{address}/fox.txt", "--sha256", sha256("/fox.txt"))
    cli(*arguments)
    kept = tmp_path / "nanogpt" / "downloads" / sha256("/fox.txt")
    kept.write_bytes(TEXT[:-1])
    assert cli(*arguments)[0] == 0
    assert kept.read_bytes() == TEXT and len(asked) == 2


@pytest.mark.parametrize("path, message", [("/none", "could not be downloaded"), ("/small.txt", "is too small")])
def test_dataset_that_cannot_be_used_is_one_sentence(path: str, message: str, server, cli, tmp_path: Path) -> None:
    digest = sha256(path) if path in FILES else "0" * 64
    code, errors = cli("--dataset", server[0] + path, "--sha256", digest)
    assert code == 1 and message in errors
    assert not (tmp_path / "nanogpt" / "selected.json").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--dataset", "http://127.0.0.1/x.txt"), "a URL needs --sha256"),
        (("--dataset", "http://127.0.0.1/x.txt", "--sha256", "abc"), "not 'abc'"),
        (("--dataset", "file:///etc/hostname", "--sha256", "0" * 64), "not 'file:///etc/hostname'"),
        (("--dataset", "tinyshakespear"), "not 'tinyshakespear'"),
        (("--vocab", "255"), "not 255"),
        (("--vocab", "40000"), "not 40000"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...], message: str, cli, tmp_path) -> None:
    code, errors = cli(*arguments)
    assert code == 2 and message in errors
    assert left(tmp_path) == []

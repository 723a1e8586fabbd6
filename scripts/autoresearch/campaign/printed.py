"""Which numbers a training prints, under which names, and which of them is the metric.

Read from the ``print`` calls of the source and from the lines of an earlier log; nothing is run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from autoresearch.config import default_pattern
from autoresearch.guard.drawing import Drawing

_LOWER = (
    "bpb", "bpc", "loss", "cross_entropy", "ce", "nll", "perplexity", "ppl", "error", "err", "error_rate",
    "wer", "cer", "rmse", "mse", "mae", "fid",
)  # fmt: skip
_HIGHER = (
    "accuracy", "acc", "top1", "top_1", "acc1", "f1", "f1_score", "macro_f1", "auc", "auroc", "roc_auc",
    "map", "ap", "bleu", "rouge", "rougel", "r2", "iou", "miou", "dice", "ndcg", "mrr", "recall", "precision",
    "psnr", "ssim", "reward", "return", "episode_reward", "episode_return", "win_rate", "score",
)  # fmt: skip
# How fast it is: the metric only where nothing says how good it is.
_LOWER_SPEED = ("latency", "latency_ms", "latency_s", "latency_us", "runtime", "wall_time")
_HIGHER_SPEED = (
    "throughput", "tokens_per_sec", "tokens_per_second", "samples_per_sec", "images_per_sec", "it_per_sec",
    "steps_per_sec", "tflops", "gflops",
)  # fmt: skip
# Well-known names and which direction is better, in the order in which one is chosen among several.
DIRECTIONS = {
    **dict.fromkeys(_LOWER, "lower"),
    **dict.fromkeys(_HIGHER, "higher"),
    **dict.fromkeys(_LOWER_SPEED, "lower"),
    **dict.fromkeys(_HIGHER_SPEED, "higher"),
}
_RANK = {name: rank for rank, name in enumerate(DIRECTIONS)}
_FIRST_SPEED = _RANK[_LOWER_SPEED[0]]
_HELD_OUT = {"val", "valid", "validation", "dev", "eval", "evaluation", "heldout", "holdout"}
_TEST = {"test", "testing"}
_TRAIN = {"train", "training", "tr"}
_FILLING = {"best", "final", "avg", "average", "mean", "last", "overall", "the"}

_HOLE = "\0"  # stands for a value in the text of a print call
_LABEL = r"[A-Za-z][\w./@-]*(?: [A-Za-z][\w./@-]*){0,3}"
_NUMBER = r"[-+]?(?:[\d.]+(?:[eE][-+]?\d+)?|nan|inf)"
_IN_SOURCE = re.compile(rf"(?<![\w./@-])['\"]?(?P<label>{_LABEL})['\"]?\s*(?P<separator>[:=])\s*{_HOLE}")
_IN_LOG = re.compile(
    rf"(?<![\w./@-])['\"]?(?P<label>{_LABEL})['\"]?\s*(?P<separator>[:=])\s*(?P<value>{_NUMBER})(?![\w.])"
)
_WRITERS = {"sys.stdout.write", "sys.stderr.write", "tqdm.write", "click.echo", "typer.echo", "console.print"}
_LOGGERS = re.compile(r"(?:\w+\.)*_?(?:log|logger|logging|LOG|LOGGER)\.(?:info|warning|debug)")


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A number that is printed under a name."""

    name: str  # as a config can name it
    label: str  # as the log shows it
    where: str  # train.py:612
    repeated: bool  # more than once in a run, so that only the last value counts
    summary: bool  # a line of its own, ``name: value``

    @property
    def pattern(self) -> str:
        """The pattern that reads it out of a log as the metric: exactly one value."""
        return rf"\A(?s:.*){self.any_pattern}" if self.repeated else self.any_pattern

    @property
    def any_pattern(self) -> str:
        """The pattern of every value printed under this name."""
        if self.summary and self.name == self.label:
            return default_pattern(self.name)
        label = r"\s+".join(map(re.escape, self.label.split()))
        start = r"^\s*" if self.summary else r"(?<![\w./@-])"
        return rf"{start}['\"]?{label}['\"]?\s*[:=]\s*({_NUMBER})"

    @property
    def rank(self) -> tuple[int, ...] | None:
        """Sorts known names, the best metric first; None for a name that says nothing.

        What is of the training set comes last, speed before it; then a final line comes before what is
        printed over and over, held-out data before a test set before no named one, and at last the
        order of ``DIRECTIONS``.
        """
        known = _known(self.name)
        if known is None:
            return None
        kind, split = known
        return (split == 3, kind >= _FIRST_SPEED, self.repeated, split, kind)

    @property
    def is_result(self) -> bool:
        """Whether it says how good the training was, rather than how it went."""
        known = _known(self.name)
        return known is not None and (not self.repeated or known[1] < 2)


def direction_of(name: str) -> str | None:
    """``lower`` or ``higher`` where the name of a metric tells; else None."""
    words = [word for word in _words(name) if word not in _HELD_OUT | _TEST | _TRAIN | _FILLING]
    for start in range(len(words)):  # the longest known ending: imagenet_top_1, label_error
        direction = DIRECTIONS.get("_".join(words[start:]))
        if direction is not None:
            return direction
    return None


def choose(printed: Sequence[Printed]) -> Printed | None:
    """The metric among what is printed, see ``Printed.rank``; None if no name is known."""
    known = [one for one in printed if one.rank is not None]
    return min(known, key=lambda one: one.rank or (), default=None)


def printed_in_source(tree: ast.Module, path: str, *, is_entry: bool) -> Iterator[Printed]:
    """The names under which ``tree`` prints a value; a module that is imported does not run its main part."""
    body = [node for node in tree.body if is_entry or not _is_main(node)]
    yield from _below(ast.Module(body=body, type_ignores=[]), path, repeated=False)


def _is_main(node: ast.stmt) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == "main"
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def _below(node: ast.AST, path: str, *, repeated: bool) -> Iterator[Printed]:
    for child in ast.iter_child_nodes(node):
        again = repeated
        if isinstance(child, ast.For | ast.While | ast.AsyncFor):
            again = True
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            again = child.name not in ("main", "cli", "run")  # any other may be called in a loop
        if isinstance(child, ast.Call):
            for line in _printed_text(child).splitlines():
                yield from _named(line, f"{path}:{child.lineno}", repeated=again)
        yield from _below(child, path, repeated=again)


def _named(line: str, where: str, *, repeated: bool) -> Iterator[Printed]:
    for match in _IN_SOURCE.finditer(line):
        alone = re.fullmatch(rf"\s*{re.escape(match[0])}\W*", line) is not None
        yield _one(match["label"], where, repeated=repeated, summary=alone and match["separator"] == ":")


def _one(label: str, where: str, *, repeated: bool, summary: bool) -> Printed:
    words = label.split()
    for start in range(len(words)):  # "Epoch done loss" is about the loss
        if _known("_".join(words[start:])) is not None:
            summary = summary and start == 0
            label = " ".join(words[start:])
            break
    name = re.sub(r"[^\w./@%-]+", "_", label) if " " not in label else "_".join(_words(label))
    return Printed(name=name, label=label, where=where, repeated=repeated, summary=summary)


def _printed_text(call: ast.Call) -> str:
    """What the call prints, a hole for each value; "" if it prints nothing to the terminal."""
    function = ast.unparse(call.func)
    logs = _LOGGERS.fullmatch(function) is not None
    if not (function == "print" or function in _WRITERS or logs):
        return ""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if "file" in keywords and ast.unparse(keywords["file"]) not in ("sys.stdout", "sys.stderr", "None"):
        return ""
    text = Drawing(lambda _: _HOLE).call(call)
    # A logger may put the time or its name in front.
    return f"{_HOLE} {text}" if logs else text


def printed_in_log(text: str, path: str) -> list[Printed]:
    """The names under which an earlier run's log shows a number."""
    found: dict[str, Printed] = {}
    values: dict[str, set[str]] = {}
    for number, line in enumerate(text.replace("\r", "\n").splitlines(), 1):
        for match in _IN_LOG.finditer(line):
            summary = line.strip() == match[0] and match["separator"] == ":"
            one = _one(match["label"], f"{path}:{number}", repeated=False, summary=summary)
            values.setdefault(one.name, set()).add(match["value"])
            found.setdefault(one.name, one)
    return [replace(one, repeated=len(values[name]) > 1) for name, one in found.items()]


def merged(printed: Sequence[Printed]) -> list[Printed]:
    """One entry for each name: a line of its own first, ``repeated`` if any of them is."""
    found: dict[str, Printed] = {}
    for one in printed:
        earlier = found.get(one.name)
        if earlier is None:
            found[one.name] = one
        else:
            better = one if one.summary and not earlier.summary else earlier
            same_form = one.summary == earlier.summary
            found[one.name] = replace(
                better, repeated=earlier.repeated or one.repeated if same_form else better.repeated
            )
    return list(found.values())


def _known(name: str) -> tuple[int, int] | None:
    """(rank of the kind, rank of the split) of a well-known name."""
    words = _words(name)
    rest = "_".join(word for word in words if word not in _HELD_OUT | _TEST | _TRAIN | _FILLING)
    if rest not in _RANK:
        return None
    have = set(words)
    split = 0 if have & _HELD_OUT else 1 if have & _TEST else 3 if have & _TRAIN else 2
    return _RANK[rest], split


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]

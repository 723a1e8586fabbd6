"""What set-up takes for a printed number is what the guard protects: both read a line in the same way."""

from __future__ import annotations

import ast

import pytest

from autoresearch.campaign.printed import printed_in_source
from autoresearch.config import Config
from autoresearch.guard.printed import metric_lines
from autoresearch.guard.source import Source

LINES = {
    'print(f"loss: {x:.3f}")': "x",
    'print("loss:", x)': "x",
    'print("loss: %.3f" % x)': "x",
    'print("loss: %.3f" % both)': "both",
    'print("loss: %.3f %.3f" % (x, y))': "x",
    'print("loss: {:.3f}".format(x))': "x",
    'print("loss: {a:.3f} {a}".format(a=x))': "x",
    'print("loss: " + str(x))': "x",
    'print("loss:".ljust(9) + f"{x}")': "x",
    'log.info("loss: %s", x)': "x",
    'sys.stdout.write("\\n".join(["---", f"loss: {x}"]))': "x",
}


@pytest.mark.parametrize(("line", "value"), LINES.items(), ids=list(LINES))
def test_set_up_and_guard_read_a_line_alike(line: str, value: str) -> None:
    (found,) = [one for one in printed_in_source(ast.parse(line), "train.py", is_entry=True) if one.name == "loss"]
    metric = {"name": "loss", "direction": "lower", "pattern": found.pattern}
    lines = list(metric_lines(Source("train.py", line), Config.from_dict({"command": "x", "metric": metric})))
    assert [ast.unparse(one.value) for one in lines if one.value is not None] == [value]


def test_second_field_of_one_value_is_a_number_too() -> None:
    found = printed_in_source(ast.parse('print("loss: %f accuracy: %f" % results)'), "train.py", is_entry=True)
    assert [one.name for one in found] == ["loss", "accuracy"]


def test_number_spelled_out_is_printed_and_is_nobodys_value() -> None:
    line = 'print(f"loss: {0.5}")'
    (found,) = printed_in_source(ast.parse(line), "train.py", is_entry=True)
    metric = {"name": "loss", "direction": "lower", "pattern": found.pattern}
    (protected,) = metric_lines(Source("train.py", line), Config.from_dict({"command": "x", "metric": metric}))
    assert protected.value is None

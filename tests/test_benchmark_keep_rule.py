from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "keep_rule" / "run.py"


def test_the_benchmark_prints_a_number_for_every_rule_in_every_table() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--sessions", "2", "--processes", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    lines = done.stdout.splitlines()
    for rule in ("strict less (greedy)", "paired t-test, 5 seeds", "ours: default", "ours: short preset"):
        rows = [line.removeprefix(rule).split() for line in lines if line.startswith(f"{rule:26} ")]
        assert len(rows) >= 6
        for numbers in rows:
            assert len(numbers) >= 2
            assert all(math.isfinite(float(number)) for number in numbers)
    assert "True gain for every 100 runs" in done.stdout


def test_the_benchmark_of_a_rare_good_tail_measures_each_number_of_seeds() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK.with_name("lucky.py")), "--sessions", "2"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    lines = done.stdout.splitlines()
    ideas = [line.split()[-8:] for line in lines if line.startswith(("simulated:", "recorded:"))]
    assert len(ideas) == 9
    for numbers in ideas:
        assert all(0 <= float(kept) <= 1 for kept in numbers[::2])
        assert all(1 <= float(runs) <= 8 for runs in numbers[1::2])
        assert float(numbers[5]) >= float(numbers[1]), "three good runs take no fewer than one"
    campaigns = [line[16:].replace("±", "").split() for line in lines if line.startswith(("1 ", "1, tail "))]
    assert [row[0] for row in campaigns] == ["1", "2", "3"] * 2
    assert all(math.isfinite(float(number)) for row in campaigns for number in row)

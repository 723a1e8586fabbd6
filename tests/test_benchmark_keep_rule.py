from __future__ import annotations

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
        rows = [line for line in lines if line.startswith(rule)]
        assert len(rows) >= 6
        for row in rows:
            numbers = row.removeprefix(rule).split()
            assert len(numbers) >= 2
            assert all(number.lstrip("-").replace(".", "").isdigit() for number in numbers)
    assert "True gain for every 100 runs" in done.stdout

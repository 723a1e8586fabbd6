"""Does work ahead decide as well? The project's rule on the same worlds, several ideas judged beside one incumbent.

    python benchmarks/keep_rule/ahead.py [--sessions 1000]

With a depth of 3, three ideas are judged before the first is logged, which is the most that the loop allows with one
trial at a time. Then they are logged in order, as ``campaign.decide`` and ``campaign.rebase`` do it: where the
incumbent has moved, a winner is run anew on it, and a miss is booked as one that was made elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from rules import ScreenConfirmRetest
from world import BudgetSpentError, Session, World

DEPTHS = (1, 2, 3)
CELLS = {
    "s/4": World(sigma=0.25), "s/2": World(sigma=0.5), "1": World(), "2": World(sigma=2.0), "r.9 1": World(rho=0.9),
    "A/A": World(ideas=100), "stray A/A": World(ideas=100, spike_share=0.04),
}  # fmt: skip


@dataclass
class Ahead(ScreenConfirmRetest):
    """The same rule, deciding ``depth`` ideas at a time."""

    depth: int = 3
    moves: int = field(init=False, default=0)  # keeps and undos so far: which incumbent it is

    def play(self, session: Session) -> None:
        """A whole session."""
        try:
            self.set_up(session)
            for gains in batches(session, self.depth):
                on = self.moves
                judged = [(gain, *self.judged(session, gain)) for gain in gains]
                for gain, runs, kept in judged:
                    self.log(session, gain, runs, kept=kept, is_current=self.moves == on)
                    self.after(session)
        except BudgetSpentError:
            pass

    def judged(self, session: Session, gain: float) -> tuple[dict[int, float], bool]:
        """The runs of an idea on today's incumbent, and whether they are enough to keep it."""
        session.idea_gain = gain
        runs: dict[int, float] = {}
        while (decision := self.rule.judge(runs).decision if runs else "run") == "run":
            seed = self.rule.next_seed(len(runs))
            runs[seed] = session.run_idea(seed)
        return runs, decision == "keep"

    def log(self, session: Session, gain: float, runs: dict[int, float], *, kept: bool, is_current: bool) -> None:
        """Decide one; ``is_current``: the incumbent is the one that it was judged beside."""
        if not is_current:
            if not kept:
                self.rule.close_elsewhere(runs)
                return
            runs, kept = self.judged(session, gain)
        if self.rule.close(runs, kept=kept):
            self.undo(session)
        if kept:
            session.gain += gain
            session.kept.append(gain)
            self.moves += 1

    def undo(self, session: Session) -> None:
        session.undo()
        self.moves += 1

    def _learn(self, session: Session, loss: float) -> None:
        if self.rule.add_incumbent_run(loss):
            self.undo(session)


def batches(session: Session, depth: int) -> Iterator[list[float]]:
    """The true gains of the session's ideas, ``depth`` at a time."""
    ideas = session.arriving()
    while batch := list(itertools.islice(ideas, depth)):
        yield batch


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sessions", type=int, default=1000, help="a cell (default: %(default)s)")
    sessions = parser.parse_args().sessions
    print(f"{sessions} sessions a cell; columns as in run.py")
    print(f"{'':10}{'depth':>6}{'gain per 100 runs':>20}{'keeps':>8}{'false':>7}{'reported - true, sigma':>24}")
    for name, world in CELLS.items():
        for depth in DEPTHS:
            gains, keeps, false, optimism = [], 0, 0, []
            for number in range(sessions):
                session, rule = Session(world, number), Ahead(depth=depth)
                rule.play(session)
                gains.append(100 * session.gain / world.budget)
                keeps += len(session.kept)
                false += sum(gain <= 0 for gain in session.kept)
                optimism.append((rule.reported_gain() - session.gain) / world.sigma)
            se = statistics.stdev(gains) / math.sqrt(sessions)
            print(
                f"{name:10}{depth:6}{statistics.fmean(gains):13.2f} ±{se:5.2f}{keeps / sessions:8.2f}"
                f"{false / max(keeps, 1):7.2f}{statistics.fmean(optimism):24.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""The simulated world: ideas with hidden true effects, runs with noise, and a budget of runs.

A session starts from a baseline with true loss 0. Ideas arrive one at a time; an idea has a true gain drawn
from a mixture (70 % harmful, 15 % empty, 15 % helpful) and gains of kept ideas add up. A run at a seed reads

    loss = -gain + sigma * (sqrt(rho) * luck[seed] + sqrt(1 - rho) * fresh noise)   (+ a spike, see World)

with ``luck`` shared by all codes, so that two codes' runs at one seed correlate with rho. Rules see only such
readings. The unit of loss is the scale of a helpful idea.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

HARMFUL, EMPTY = 0.70, 0.15  # shares of ideas; the rest is helpful
HARM_SCALE = 2.0  # half-normal scale of a harmful idea; a helpful one has 1
CRASH_SHARE, CRASH_COST = 0.06, 0.3


@dataclass(frozen=True)
class World:
    """One cell of the benchmark. ``budget`` counts runs, set-up and re-tests included.

    ``decline``: the scale of ideas falls geometrically from the first number to the second over the budget,
    as in real campaigns. ``ideas``: if set, this many empty ideas and no budget (an A/A test).

    ``spike_share`` of the seeds spoil every code's run: it ends 6 to 30 sigma behind, as after an
    initialisation that trains badly. Without ``spike_shared`` it is that share of runs, whatever their seed.
    ``lucky_share`` of the runs, whatever their seed, end 3 to 5 sigma ahead.
    """

    sigma: float = 1.0
    rho: float = 0.0
    budget: float = 100.0
    decline: tuple[float, float] | None = None
    ideas: int | None = None
    spike_share: float = 0.0
    spike_shared: bool = True
    lucky_share: float = 0.0
    heavy_tails: bool = False


class BudgetSpentError(Exception):
    """No run is left."""


class Rule(Protocol):
    """What is compared: ``set_up`` measures the baseline, ``decide`` an idea (True: keep).

    Both run things through the session. ``after`` may spend runs on the incumbent and ask for an undo.
    """

    def set_up(self, session: Session) -> None: ...
    def decide(self, session: Session) -> bool: ...
    def after(self, session: Session) -> None: ...
    def reported_gain(self) -> float: ...


class Session:
    """One campaign in a world; all randomness comes from ``number``, and ideas are the same for all rules."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.spent = 0.0
        self.gain = 0.0  # true gain of the incumbent over the baseline
        self.kept: list[float] = []  # true gains of the keeps that still stand
        self.idea_gain = 0.0
        self._ideas = random.Random(f"ideas {number}")
        self._noise = random.Random(f"noise {number} {world.sigma} {world.rho}")
        self._number = number
        self._seeds: dict[int, tuple[float, float]] = {}
        self._decided = 0

    def run_idea(self, seed: int) -> float:
        return self._run(self.gain + self.idea_gain, seed, 1.0)

    def run_incumbent(self, seed: int, *, free: bool = False) -> float:
        return self._run(self.gain, seed, 0.0 if free else 1.0)

    def undo(self) -> None:
        """Take the last standing keep back."""
        self.gain -= self.kept.pop()

    def play(self, rule: Rule) -> None:
        """Set up, then try ideas until the budget or the ideas run out."""
        try:
            rule.set_up(self)
            for gain in self.arriving():
                self.idea_gain = gain
                kept = rule.decide(self)
                if kept:
                    self.gain += gain
                    self.kept.append(gain)
                rule.after(self)
        except BudgetSpentError:
            pass

    def arriving(self) -> Iterator[float]:
        """The true gains of ideas, one after the other; crashes are charged on the way."""
        world, draw = self.world, self._ideas
        if world.ideas is not None:
            yield from [0.0] * world.ideas
            return
        while True:
            kind, size = draw.random(), abs(draw.gauss(0, 1))
            crashed = draw.random() < CRASH_SHARE
            scale = 1.0
            if world.decline:
                first, final = world.decline
                scale = first * (final / first) ** min(self._decided / world.budget, 1.0)
            self._decided += 1
            if crashed:
                self._charge(CRASH_COST)
            elif kind < HARMFUL:
                yield -HARM_SCALE * size * scale
            else:
                yield 0.0 if kind < HARMFUL + EMPTY else size * scale

    def _charge(self, cost: float) -> None:
        if self.world.ideas is None and self.spent + cost > self.world.budget + 1e-9:
            raise BudgetSpentError
        self.spent += cost

    def _run(self, gain: float, seed: int, cost: float) -> float:
        self._charge(cost)
        world = self.world
        if seed not in self._seeds:
            own = random.Random(f"seed {self._number} {seed}")
            spiked = own.random() < world.spike_share and world.spike_shared
            self._seeds[seed] = (self._unit(own), own.uniform(6, 30) if spiked else 0.0)
        luck, spike = self._seeds[seed]
        if not world.spike_shared and self._noise.random() < world.spike_share:
            spike = self._noise.uniform(6, 30)
        if world.lucky_share and self._noise.random() < world.lucky_share:
            spike -= self._noise.uniform(3, 5)
        noise = math.sqrt(world.rho) * luck + math.sqrt(1 - world.rho) * self._unit(self._noise) + spike
        return -gain + world.sigma * noise

    def _unit(self, source: random.Random) -> float:
        """Noise of mean 0 and variance 1: normal, or Student t with 3 degrees of freedom."""
        normal = source.gauss(0, 1)
        if not self.world.heavy_tails:
            return normal
        return normal / math.sqrt(source.gammavariate(1.5, 2.0))

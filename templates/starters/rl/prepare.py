"""The fixed half of the rl starter: the task, the practice that a training may have, and the metric mean_return.

Experiments edit train.py; this file is protected, so that every number means the same thing.

    python prepare.py    makes nothing: prints what two policies that have learnt nothing score

The task is gymnasium's Pendulum-v1: swing a pendulum up and hold it there, with a motor too weak to lift
it at once. A step lasts 0.05 s and costs angle**2 + 0.1 * speed**2 + 0.001 * torque**2, the angle being
zero at the top; the return of an episode is minus the sum over its 200 steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

TASK = "Pendulum-v1"
OBSERVATION_SIZE = 3  # cosine and sine of the angle, and the speed, which stays within -8 and 8
ACTION_SIZE = 1  # the torque
MAX_TORQUE = 2.0  # in both directions; the motor takes a larger one for this
EPISODE_STEPS = 200

TIME_BUDGET = float(os.environ.get("TIME_BUDGET", "6"))  # seconds; the runner sets it
STEPS_PER_SECOND = 8000  # a fixed rate of exchange, about what one core makes of the default train.py
PRACTICE_STEPS = round(TIME_BUDGET * STEPS_PER_SECOND)

HELD_OUT_EPISODES = 100
HELD_OUT_SEED = 2**31  # of the first of them; all seeds of practice are smaller

Policy = Callable[[np.ndarray], np.ndarray]


class BudgetError(RuntimeError):
    """Practice beyond PRACTICE_STEPS."""


@dataclass(frozen=True)
class Step:
    """Where one action in each copy has led."""

    rewards: np.ndarray  # (copies,)
    reached: np.ndarray  # (copies, OBSERVATION_SIZE); of the old episode where a new one has begun
    ended: bool  # the episodes, of all copies at once: the time is up, the pendulum would have swung on


class Practice:
    """``copies`` of the task to learn from; when their episodes end, the next ones begin by themselves."""

    _used: ClassVar[int] = 0  # steps, of every practice of this process: a second one does not bring a second budget

    def __init__(self, copies: int, *, seed: int) -> None:
        self._tasks = make_tasks(copies)
        seeds = np.random.SeedSequence(seed).generate_state(copies) % HELD_OUT_SEED
        self.observations, _ = self._tasks.reset(seed=seeds.tolist())  # what the copies show now
        self.mean_return: float | None = None  # over the copies' latest whole episodes; None before their first
        self._reward_so_far = 0.0

    @property
    def steps(self) -> int:
        """Used up so far, of all copies together."""
        return Practice._used

    @property
    def progress(self) -> float:
        """How much of the practice is used up, from 0 to 1; at 1 there is no step left."""
        is_over = self.steps + len(self.observations) > PRACTICE_STEPS
        return 1.0 if is_over else self.steps / PRACTICE_STEPS

    def step(self, torques: np.ndarray) -> Step:
        """Act once in each copy; ``torques`` has the shape (copies, ACTION_SIZE)."""
        if self.progress == 1:
            raise BudgetError(f"The {PRACTICE_STEPS:,} steps of practice are used up.")
        reached, rewards, _, times_up, _ = self._tasks.step(checked(torques, len(self.observations)))
        Practice._used += len(reached)
        self._reward_so_far += float(rewards.mean())
        self.observations, ended = reached, bool(times_up.all())
        if ended:
            self.mean_return, self._reward_so_far = self._reward_so_far, 0.0
            self.observations, _ = self._tasks.reset()
        return Step(rewards, reached, ended)


def make_tasks(copies: int) -> VectorEnv:
    """Copies of the task whose new episodes begin when they are told to."""
    reset_by_hand = {"autoreset_mode": AutoresetMode.DISABLED}
    return gymnasium.make_vec(TASK, num_envs=copies, vectorization_mode="sync", vector_kwargs=reset_by_hand)


def checked(torques: np.ndarray, copies: int) -> np.ndarray:
    """The torques as the task takes them: one finite number for each copy, or a ValueError."""
    torques = np.asarray(torques, dtype=np.float32)
    if torques.shape != (copies, ACTION_SIZE):
        raise ValueError(f"The torques have the shape {torques.shape}, not {(copies, ACTION_SIZE)}.")
    if not np.isfinite(torques).all():
        raise ValueError("A torque is not a finite number.")
    return torques


# ---------------------------------------------------------------------------------------------------------
# The metric


def evaluate(policy: Policy) -> float:
    """The mean return of ``policy`` in HELD_OUT_EPISODES episodes, the same ones for every policy; higher is better.

    ``policy`` is called once a step. It is given a copy of what the episodes show, (HELD_OUT_EPISODES,
    OBSERVATION_SIZE), and answers with their torques, (HELD_OUT_EPISODES, ACTION_SIZE); it sees nothing else.
    """
    tasks = make_tasks(HELD_OUT_EPISODES)
    observations, _ = tasks.reset(seed=HELD_OUT_SEED)
    total = 0.0
    for _ in range(EPISODE_STEPS):
        observations, rewards, *_ = tasks.step(checked(policy(observations), HELD_OUT_EPISODES))
        total += float(rewards.sum())
    return total / HELD_OUT_EPISODES


def main() -> None:
    rng = np.random.default_rng(0)
    shape = (HELD_OUT_EPISODES, ACTION_SIZE)
    at_rest = evaluate(lambda _: np.zeros(shape))
    at_random = evaluate(lambda _: rng.uniform(-MAX_TORQUE, MAX_TORQUE, shape))
    print(f"{TASK}, {PRACTICE_STEPS:,} steps of practice, {HELD_OUT_EPISODES} held-out episodes")
    print(f"no torque:     {at_rest:.1f}")
    print(f"random torque: {at_random:.1f}")


if __name__ == "__main__":
    main()

"""Learn by PPO to swing a pendulum up, within a budget of practice. This is the file that experiments edit.

    python train.py

Progress lines come first, then `---` and `key: value` lines; mean_return is the one that counts, higher is better.
The constants below are conservative rather than tuned.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from prepare import ACTION_SIZE, OBSERVATION_SIZE, Practice, evaluate

# Experience.
COPIES = 16  # pendulums that practise at the same time
ROLLOUT = 100  # steps of each between two updates
REWARD_SCALE = 0.1  # on the reward that is learnt from
GAMMA = 0.95  # discount of a reward one step later
LAMBDA = 0.95  # of advantages: 0 trusts the critic, 1 the rewards that followed

# Networks.
WIDTH = 64  # of the two hidden layers, in actor and critic
START_STD = 1.0  # of the torque around the actor's mean

# Updates.
LEARNING_RATE = 5e-4
EPOCHS = 10  # passes over a rollout
MINIBATCH = 400  # steps per gradient
CLIP = 0.2  # how far one rollout may move the probability of an action, as a factor above or below 1
VALUE_WEIGHT = 0.5  # of the critic's loss beside the actor's
MAX_GRADIENT_NORM = 0.5

# The run.
SEED = int(os.environ.get("AUTORESEARCH_SEED", "1"))  # set by the runner: initial weights, actions, starts, batches
CPU_THREADS = 1  # the networks are too small for more; a GPU would not help either


# ---------------------------------------------------------------------------------------------------------
# Actor and critic


def perceptron(outputs: int, *, last_gain: float) -> nn.Sequential:
    """Two hidden layers of tanh, with orthogonal initial weights."""
    sizes = [OBSERVATION_SIZE, WIDTH, WIDTH, outputs]
    gains = [2**0.5, 2**0.5, last_gain]
    layers: list[nn.Module] = []
    for (before, after), gain in zip(pairwise(sizes), gains, strict=True):
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight, gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Agent(nn.Module):
    """A torque drawn from a normal distribution around the actor's mean, and the critic's guess of the return."""

    def __init__(self) -> None:
        super().__init__()
        self.actor = perceptron(ACTION_SIZE, last_gain=0.01)
        self.critic = perceptron(1, last_gain=1.0)
        self.log_std = nn.Parameter(torch.full((ACTION_SIZE,), math.log(START_STD)))

    def act(self, observations: Tensor) -> Tensor:
        mean = self.actor(observations)
        return torch.normal(mean, self.log_std.exp().expand_as(mean))

    def log_likelihood(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Of the actions, up to a constant."""
        distance = (actions - self.actor(observations)) / self.log_std.exp()
        return -(distance.square() / 2 + self.log_std).sum(-1)

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(observations).squeeze(-1)

    @torch.no_grad()
    def policy(self, observations: np.ndarray) -> np.ndarray:
        """What the agent has learnt, without its noise."""
        return self.actor(torch.from_numpy(observations)).numpy()


# ---------------------------------------------------------------------------------------------------------
# Experience


@dataclass(frozen=True)
class Rollout:
    """Steps of all copies: tensors of shape (steps, copies, ...)."""

    observations: Tensor
    actions: Tensor
    rewards: Tensor  # as the task gives them
    reached: Tensor  # the observations that the actions led to
    ended: list[bool]  # for each step: an episode of every copy ended with it


@torch.no_grad()
def practise(agent: Agent, practice: Practice) -> Rollout:
    """Act for ROLLOUT steps, or until the practice is used up."""
    observations, actions, steps = [], [], []
    while len(steps) < ROLLOUT and practice.progress < 1:
        observations.append(torch.from_numpy(practice.observations))
        actions.append(agent.act(observations[-1]))
        steps.append(practice.step(actions[-1].numpy()))
    return Rollout(
        torch.stack(observations),
        torch.stack(actions),
        torch.tensor(np.stack([step.rewards for step in steps]), dtype=torch.float32),
        torch.from_numpy(np.stack([step.reached for step in steps])),
        [step.ended for step in steps],
    )


def advantages(agent: Agent, rollout: Rollout) -> tuple[Tensor, Tensor]:
    """How much better each action was than the critic expected (Schulman et al. 2016), and the critic's targets.

    An episode's end is only that of its time, so the state reached there still has its value.
    """
    values, next_values = agent.value(rollout.observations), agent.value(rollout.reached)
    surprises = REWARD_SCALE * rollout.rewards + GAMMA * next_values - values
    gains = torch.zeros_like(surprises)
    following = torch.zeros_like(surprises[0])
    for i in reversed(range(len(surprises))):
        if rollout.ended[i]:
            following = torch.zeros_like(following)
        following = gains[i] = surprises[i] + GAMMA * LAMBDA * following
    return gains, gains + values


# ---------------------------------------------------------------------------------------------------------
# Updates


def update(agent: Agent, optimizer: torch.optim.Optimizer, rollout: Rollout) -> float:
    """Improve actor and critic by the rollout (PPO, Schulman et al. 2017); the loss of the last minibatch."""
    with torch.no_grad():
        gains, targets = (part.flatten() for part in advantages(agent, rollout))
        observations, actions = rollout.observations.flatten(0, 1), rollout.actions.flatten(0, 1)
        before = agent.log_likelihood(observations, actions)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(observations)).split(MINIBATCH):
            ratio = (agent.log_likelihood(observations[batch], actions[batch]) - before[batch]).exp()
            gain = (gains[batch] - gains[batch].mean()) / (gains[batch].std(correction=0) + 1e-8)
            actor_loss = -torch.minimum(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean()
            critic_loss = (agent.value(observations[batch]) - targets[batch]).square().mean()
            loss = actor_loss + VALUE_WEIGHT * critic_loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
    return loss.item()


def main() -> None:
    started, cpu_started = time.perf_counter(), time.process_time()
    torch.manual_seed(SEED)
    torch.set_num_threads(CPU_THREADS)
    agent = Agent()
    optimizer = torch.optim.Adam(agent.parameters(), lr=LEARNING_RATE, eps=1e-5)
    practice = Practice(COPIES, seed=SEED)
    updates = 0
    while practice.progress < 1:
        loss = update(agent, optimizer, practise(agent, practice))
        updates += 1
        if not math.isfinite(loss):
            raise SystemExit(f"The loss is {loss} after {updates} updates: the run diverged.")
        if practice.mean_return is not None:
            print(
                f"step {practice.steps:06d} ({practice.progress:.1%}) | cost: {-practice.mean_return:.1f} | "
                f"loss: {loss:.3f} | std: {agent.log_std.exp().mean():.3f}",
                flush=True,
            )
    training_seconds = time.process_time() - cpu_started

    mean_return = evaluate(agent.policy)
    print("---")
    print(f"mean_return:      {mean_return:.3f}")
    print(f"training_seconds: {training_seconds:.1f}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")
    print(f"num_steps:        {practice.steps}")
    print(f"num_updates:      {updates}")
    print(f"num_params:       {sum(weight.numel() for weight in agent.parameters())}")


if __name__ == "__main__":
    main()

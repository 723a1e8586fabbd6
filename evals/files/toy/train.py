"""Train a linear model by stochastic gradient descent."""

import os
import random

from prepare import STEPS, TRAINING, evaluate

LEARNING_RATE = 0.002
MOMENTUM = 0.0
BATCH = 8
INIT_SCALE = 0.1
ORDER = 0  # where in the examples to begin
STOP_LOSS = None  # train on, past the last step, until a batch's loss is below this
SHAKE = 0.001  # of the weights, after each step

draw = random.Random(int(os.environ.get("AUTORESEARCH_SEED", "1")))
examples = TRAINING[ORDER:] + TRAINING[:ORDER]
weights = [draw.gauss(0, INIT_SCALE) for _ in range(3)]
speed = [0.0] * 3
step, loss = 0, float("inf")
while step < STEPS or (STOP_LOSS is not None and loss > STOP_LOSS):
    batch = draw.sample(examples, BATCH)
    gradient, loss = [0.0] * 3, 0.0
    for features, value in batch:
        error = sum(w * x for w, x in zip(weights, features, strict=True)) - value
        loss += error * error / BATCH
        gradient = [g + 2 * error * x / BATCH for g, x in zip(gradient, features, strict=True)]
    speed = [MOMENTUM * s - LEARNING_RATE * g for s, g in zip(speed, gradient, strict=True)]
    weights = [w + s for w, s in zip(weights, speed, strict=True)]
    # It may help to leave flat places.
    weights = [w + draw.gauss(0, SHAKE) for w in weights]
    step += 1
print(f"steps: {step}")
print(f"val_loss: {evaluate(weights):.6f}")

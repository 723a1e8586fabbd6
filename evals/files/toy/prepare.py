"""The data and the evaluation. Not to be changed: all results are compared by it."""

import random

STEPS = 300  # the length of a training
EXAMPLES = 256


def examples(seed):
    """Pairs of three features, of different size, and a value."""
    draw = random.Random(seed)
    found = []
    for _ in range(EXAMPLES):
        features = [draw.gauss(0, 1), draw.gauss(0, 3), 1.0]
        value = 2.0 * features[0] - 0.5 * features[1] + 1.5 + draw.gauss(0, 0.5)
        found.append((features, value))
    return found


TRAINING, VALIDATION = examples(1), examples(2)


def evaluate(weights):
    """The mean squared error on examples that training has not seen."""
    errors = [sum(w * x for w, x in zip(weights, features, strict=True)) - value for features, value in VALIDATION]
    return sum(error * error for error in errors) / len(errors)

"""The fixed half of the speed starter: documents, the right answers, and the metric ms.

Experiments edit train.py; this file is protected, so that every number means the same thing.

    python prepare.py       check train.neighbours and time it, for TIME_BUDGET seconds

There is nothing to prepare. Each call gets new documents, drawn with the system's own randomness, and each answer
is compared with that of ``reference``: nothing can be known before, and nothing can be kept for later.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import resource
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time  # bound before train.py is imported, which could replace them

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy: all threads' seconds count, and several wait for each other

TIME_BUDGET = float(os.environ.get("TIME_BUDGET", "5"))  # CPU seconds of measuring; the runner sets it
LEAST_ROUNDS = 7
WARM_UP_ROUNDS = 2
DOCUMENTS = 100
NEIGHBOURS = 5
DOCUMENT_WORDS = (15, 60)  # the least and the most
VOCABULARY = 1500
COMMONNESS = 0.7  # the word of rank r is drawn with a weight of r to the power of minus this
REFERENCE_MS = 10.0  # what ``reference`` takes, by definition; README.md says where that is so
LOG_EVERY = 0.05  # of the run, between two progress lines

Solution = Callable[[tuple[str, ...], int], list[list[int]]]


class WrongAnswerError(RuntimeError):
    """train.py does not do what it should; the message says where."""


# ---------------------------------------------------------------------------------------------------------
# Documents and right answers


def draw_documents(chance: random.Random, count: int = DOCUMENTS) -> tuple[str, ...]:
    """Documents of words of a vocabulary of their own, with capitals and punctuation, like text."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(VOCABULARY)]
    weights = [rank**-COMMONNESS for rank in range(1, VOCABULARY + 1)]
    documents = []
    for _ in range(count):
        drawn = chance.choices(vocabulary, weights, k=chance.randint(*DOCUMENT_WORDS))
        shown = [word.capitalize() if chance.random() < 0.15 else word for word in drawn]
        documents.append("".join(word + chance.choice((" ", " ", " ", ", ", ". ", "\n")) for word in shown))
    return tuple(documents)


def reference(documents: tuple[str, ...], k: int) -> list[list[int]]:
    """The right answer, computed plainly. Its time is also the unit that train.py is measured in."""
    sets = [frozenset(re.findall("[a-z]+", document.lower())) for document in documents]
    found = []
    for i, own in enumerate(sets):
        scores = []
        for other in sets:
            shared = len(own & other)
            either = len(own) + len(other) - shared
            scores.append(-shared / either if either else 0.0)
        order = sorted((j for j in range(len(sets)) if j != i), key=scores.__getitem__)  # stable: earlier first
        found.append(order[:k])
    return found


EDGE_CASES: tuple[tuple[tuple[str, ...], int], ...] = (
    ((), 3),
    (("alone",), 3),
    (("", "", "..."), 2),
    (("A b", "b, a", "a b c", "", "B. A!"), 9),
    (("one two", "two three", "three four"), 0),
    (("x1y", "x y", "1", "y\nx"), 2),
)


def check(answer: object, expected: list[list[int]]) -> None:
    """``WrongAnswerError`` unless it equals ``expected``, and is of these very types: others could compute later."""
    if type(answer) is not list or any(type(row) is not list for row in answer):
        raise WrongAnswerError("neighbours must return a list of lists.")
    if any(type(place) is not int for row in answer for place in row):
        raise WrongAnswerError("neighbours must return ints of Python's own, not of another type.")
    if len(answer) != len(expected):
        raise WrongAnswerError(f"neighbours returned {len(answer)} rows for {len(expected)} documents.")
    for i, (row, right) in enumerate(zip(answer, expected, strict=True)):
        if row != right:
            raise WrongAnswerError(f"For document {i} of {len(expected)} neighbours returned {row}; right is {right}.")


# ---------------------------------------------------------------------------------------------------------
# The metric


def cpu_seconds() -> float:
    """Of all threads of this process, and of its ended children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + children.ru_utime + children.ru_stime


def timed(function: Solution, documents: tuple[str, ...]) -> tuple[list[list[int]], float]:
    """The answer, and the CPU seconds that it took."""
    gc.collect()
    started = cpu_seconds()
    answer = function(documents, NEIGHBOURS)
    return answer, cpu_seconds() - started


def helpers() -> set[str]:
    """Threads and processes that work for this one: they could go on between the calls."""
    found = {f"thread {thread.name}" for thread in threading.enumerate() if thread is not threading.main_thread()}
    for task in Path("/proc/self/task").glob("*/children"):  # on Linux
        with contextlib.suppress(OSError):
            found |= {f"process {pid}" for pid in task.read_text().split()}
    return found


def refuse_helpers(when: str) -> None:
    if found := helpers():
        raise WrongAnswerError(f"{when} leaves {', '.join(sorted(found))}: work that is not timed.")


def measure(solution: Solution, budget_s: float = TIME_BUDGET) -> tuple[list[float], list[float]]:
    """CPU seconds of ``solution`` and of ``reference``, round by round, on the same documents in turn.

    Raises ``WrongAnswerError`` at the first wrong answer.
    """
    chance = random.SystemRandom()
    for documents, k in EDGE_CASES:
        check(solution(documents, k), reference(documents, k))
    refuse_helpers("neighbours")
    times: list[float] = []
    reference_times: list[float] = []
    started, next_log, rounds = cpu_seconds(), 0.0, 0
    while rounds < WARM_UP_ROUNDS + LEAST_ROUNDS or cpu_seconds() - started < budget_s:
        documents = draw_documents(random.Random(chance.getrandbits(128)))
        expected, reference_s = timed(reference, documents)
        answer, solution_s = timed(solution, documents)
        check(answer, expected)
        refuse_helpers("neighbours")
        rounds += 1
        if rounds <= WARM_UP_ROUNDS:
            continue
        times.append(solution_s)
        reference_times.append(reference_s)
        progress = min(1.0, (cpu_seconds() - started) / budget_s)
        if progress >= next_log:
            print(f"round {rounds:05d} ({progress:.1%}) | ms: {relative_ms(times, reference_times):.4f}", flush=True)
            next_log = progress + LOG_EVERY
    return times, reference_times


def relative_ms(times: Sequence[float], reference_times: Sequence[float]) -> float:
    """Milliseconds of a call on a machine where the reference takes REFERENCE_MS.

    Both are medians: a round in which the machine did something else moves them little. The quotient
    cancels how fast the machine is today.
    """
    return REFERENCE_MS * median(times) / median(reference_times)


def main() -> int:
    started = perf_counter()
    with contextlib.redirect_stdout(sys.stderr):  # what train.py prints is no result
        from train import neighbours
    try:
        refuse_helpers("The import of train.py")

        def silenced(documents: tuple[str, ...], k: int) -> list[list[int]]:
            with contextlib.redirect_stdout(sys.stderr):
                return neighbours(documents, k)

        times, reference_times = measure(silenced)
    except WrongAnswerError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    print("---")
    print(f"ms:            {relative_ms(times, reference_times):.4f}")
    print(f"measured_ms:   {1000 * median(times):.4f}")
    print(f"reference_ms:  {1000 * median(reference_times):.4f}")
    print(f"rounds:        {len(times)}")
    print(f"total_seconds: {perf_counter() - started:.1f}")
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: nothing that train.py left for the end runs, nor prints

"""For each document, which others are most alike? This is the file that experiments edit; nothing in it is trained.

    python prepare.py       check and time it

The name is that of the other starters. The code below is plain and slow; any way to the same answers is allowed,
as long as each call does its own work on its own documents.
"""

from __future__ import annotations

import re

WORD = re.compile("[a-z]+")


def words(document: str) -> set[str]:
    """The different words of ``document``, in lower case."""
    return set(WORD.findall(document.lower()))


def similarity(a: set[str], b: set[str]) -> float:
    """Jaccard's: the words in both over the words in either; 0 where there are none."""
    either = len(a | b)
    return len(a & b) / either if either else 0.0


def neighbours(documents: tuple[str, ...], k: int) -> list[list[int]]:
    """For each document the places of the ``k`` others that are most similar, the earlier first among equals."""
    found = []
    for i, document in enumerate(documents):
        own = words(document)
        scores = [(similarity(own, words(other)), -j) for j, other in enumerate(documents) if j != i]
        scores.sort(reverse=True)
        found.append([-j for _, j in scores[:k]])
    return found

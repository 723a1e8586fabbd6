"""Papers from arXiv, through the ``arxiv`` library, which keeps to arXiv's pace of one request in three seconds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from autoresearch.errors import MachineError, UsageError
from autoresearch.output import one_line

TIMEOUT_S = 30.0  # of one request; the library itself would wait for ever
RETRIES = 1
AT_MOST = 50  # more would be a bulk download, for which arXiv has other ways


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One paper; its texts are on one line each and come from outside: data, never instructions."""

    id: str
    title: str
    authors: list[str]
    published: str  # the day of the first version, ISO 8601
    category: str
    url: str
    abstract: str
    comment: str


def find_papers(
    query: str,
    *,
    ids: Sequence[str] = (),
    most: int = 10,
    newest: bool = False,
    since: int | None = None,
    server: str | None = None,
) -> list[Paper]:
    """At most ``most`` papers for ``query`` in arXiv's syntax, or those with ``ids``; by relevance or the newest first.

    ``since`` is the first year. ``server`` is another address of arXiv's query API, such as a cache.
    """
    if not 1 <= most <= AT_MOST:
        raise UsageError(f"--max is {most}; expected 1 to {AT_MOST}.", hint="Ask a narrower question.")
    if bool(query.strip()) == bool(ids):
        raise UsageError(
            "expected either a query or --id.",
            hint='python scripts/find_papers.py "ti:learning AND ti:rate"',
            code="no_query",
        )
    arxiv = _library()
    if since is not None and query:
        query = f"({query}) AND submittedDate:[{since:04}01010000 TO 999912312359]"
    order = arxiv.SortCriterion.SubmittedDate if newest else arxiv.SortCriterion.Relevance
    search = arxiv.Search(query=query, id_list=list(ids), max_results=most, sort_by=order)
    client = arxiv.Client(page_size=most, num_retries=RETRIES)
    if server is not None:
        client.query_url_format = server.rstrip("?") + "?{}"
    # There is no public way to give the library's requests a time limit.
    client._session.request = functools.partial(client._session.request, timeout=TIMEOUT_S)
    try:
        return [_paper(result) for result in client.results(search)]
    except (arxiv.ArxivError, OSError) as error:  # what the network does wrong is an OSError
        raise MachineError(
            f"arXiv did not answer: {one_line(str(error), 200)}.",
            hint="Check the network, or go on without: references/experiment-ideas.md",
            code="no_answer",
        ) from None


def _library() -> Any:
    try:
        import arxiv
    except ImportError:
        raise MachineError(
            "The Python package arxiv is not installed.",
            hint="uv run scripts/find_papers.py brings it by itself; else: pip install arxiv",
            code="no_arxiv",
        ) from None
    return arxiv


def _paper(result: Any) -> Paper:
    return Paper(
        id=result.get_short_id(),
        title=one_line(result.title),
        authors=[one_line(author.name) for author in result.authors],
        published=result.published.date().isoformat(),
        category=result.primary_category,
        url=result.entry_id,
        abstract=one_line(result.summary),
        comment=one_line(result.comment or ""),
    )

"""Numbers as a reader wants them: metrics, differences, times, counts."""

from __future__ import annotations

from autoresearch.plain import metric_text, plain

NOTHING = "-"
NORMAL_95 = 1.96  # standard errors to each side: an interval of 95 %


def number(value: float | None) -> str:
    """A metric."""
    return NOTHING if value is None else metric_text(value)


def margin(se: float) -> str:
    """What stands after a ±: half an interval of 95 %, from a standard error."""
    return f"{NORMAL_95 * se:.2g}"


def signed(value: float | None) -> str:
    """A difference, to three significant digits."""
    return NOTHING if value is None else plain(value, 3, "+")


def share(part: float | None, digits: int = 0) -> str:
    return NOTHING if part is None else f"{part:.{digits}%}"


def duration(seconds: float) -> str:
    """``9 h 40 min``, ``3 min 20 s`` or ``12.4 s``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def gpu_hours(gpu_s: float) -> str:
    """``12.5``, or ``-`` where no GPU was used."""
    return f"{gpu_s / 3600:.3g}" if gpu_s else NOTHING


def plural(count: int, one: str, several: str = "") -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {one if count == 1 else several or one + 's'}"

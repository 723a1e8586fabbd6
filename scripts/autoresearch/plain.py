"""Rounded numbers for readers."""

from __future__ import annotations


def metric_text(value: float) -> str:
    """Six decimals, as in results.tsv, where they show the value; else nine significant digits."""
    return f"{value:.6f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.9g}"


def plain(value: float, digits: int, sign: str = "") -> str:
    """``value`` to ``digits`` significant digits: no exponent up to a million, no minus zero; ``sign`` is "+" or ""."""
    text = f"{value + 0.0:{sign}.{digits}g}"  # adding zero turns -0.0 into 0.0
    return f"{float(text):{sign}.0f}" if "e+" in text and abs(value) < 1e6 else text

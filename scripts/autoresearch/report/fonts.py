"""Fonts that have the characters of a chart's texts, whatever script they are in."""

from __future__ import annotations

from collections.abc import Iterator

BASE = "DejaVu Sans"  # comes with matplotlib
PREFERRED = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Droid Sans Fallback",
    "Arial Unicode MS", "Noto Sans",
)  # fmt: skip
MOST_LOOKED_AT = 300  # font files; reading the table of one takes a millisecond
UNUSABLE = ("emoji", "color", "last resort", "lastresort")  # bitmaps, or boxes for every character
LEFT_OUT = "…"


class Glyphs:
    """The font families that show ``text``, the base font first, and what no font here can show."""

    def __init__(self, text: str) -> None:
        self.families = [BASE]
        self._missing = {ord(char) for char in text if not char.isspace()} - _characters(_path_of(BASE))
        for family, path in _candidates():
            if not self._missing:
                break
            if self._missing & (found := _characters(path)):
                self.families.append(family)
                self._missing -= found

    def covered(self, text: str) -> str:
        """``text`` with each run of characters that no font has as one ``…``, never as boxes."""
        shown = ""
        for char in text:
            if ord(char) not in self._missing:
                shown += char
            elif not shown.endswith(LEFT_OUT):
                shown += LEFT_OUT
        return shown


def _path_of(family: str) -> str:
    from matplotlib.font_manager import findfont

    return str(findfont(family))


def _candidates() -> Iterator[tuple[str, str]]:
    """Family and file of the machine's regular fonts, those known to be good first."""
    from matplotlib.font_manager import fontManager

    files: dict[str, str] = {}
    for entry in fontManager.ttflist:
        if entry.style == "normal" and not any(word in entry.name.lower() for word in UNUSABLE):
            files.setdefault(entry.name, entry.fname)
    names = [name for name in PREFERRED if name in files]
    names += sorted(set(files) - {*names, BASE})
    for name in names[:MOST_LOOKED_AT]:
        yield name, files[name]


def _characters(path: str) -> set[int]:
    """The code points that a font file has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return set(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):
        return set()

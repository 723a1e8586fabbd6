"""The text of ``autoresearch.yaml``: rendered whole, or with single keys changed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from autoresearch.config import Config

TEMPLATES = Path(__file__).resolve().parents[3] / "templates"


def render_config(values: Mapping[str, Any]) -> str:
    """The text of a complete, commented config; keys that ``values`` lacks take their defaults."""
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - the output is YAML, each value is quoted by `flow`
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["flow"] = flow
    defaults = Config.from_dict({"command": "-", "metric": {"name": "-"}}).to_dict()
    defaults |= {"timeout_factor": 2, "stall_s": 0}
    return environment.get_template("autoresearch.yaml.j2").render({**defaults, **values})


def flow(value: Any) -> str:
    """``value`` as one line of YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def set_keys(text: str, changes: Mapping[str, Any]) -> str:
    """Replace top-level keys of a YAML text, or append them; everything else stays to the letter."""
    newline = "\r\n" if "\r\n" in text else "\n"
    for key, value in changes.items():
        line = f"{key}: {flow(value)}".replace("\\", r"\\")  # literal in a replacement
        # The key's line and what is indented, or a list item, below it.
        block = re.compile(rf"(?m)^{key}[ \t]*:[^\r\n]*(?:\r?\n(?:[ \t]+[^\s#]|-[ \t])[^\r\n]*)*")
        text, count = block.subn(line, text, count=1)
        if not count:
            text += ("" if not text or text.endswith("\n") else newline) + line + newline
    return text

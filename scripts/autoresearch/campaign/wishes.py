"""What a set-up's flags say about the settings."""

from __future__ import annotations

from dataclasses import dataclass, fields

from autoresearch.config import Config


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the flags say; None where a flag was not given."""

    command: str | None = None
    metric: str | None = None
    direction: str | None = None
    edit: tuple[str, ...] | None = None
    protect: tuple[str, ...] | None = None
    data: tuple[str, ...] | None = None
    watch: tuple[str, ...] | None = None
    budget_s: float | None = None

    @property
    def given(self) -> list[str]:
        """The config keys that the flags speak about."""
        named = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        return list(dict.fromkeys("metric" if name == "direction" else name for name in named))

    @property
    def flags(self) -> dict[str, str]:
        """The flags that were given, by the key of the config that each sets."""
        keys = {"metric": "metric.name", "direction": "metric.direction"}
        named = [one.name for one in fields(self) if getattr(self, one.name) is not None]
        return {keys.get(name, name): f"--{name.removesuffix('_s')}" for name in named}

    def check(self) -> None:
        """Refuse a value that no config could hold, by the name of its flag."""
        metric = {"name": "-" if self.metric is None else self.metric, "direction": self.direction or "lower"}
        values = {"command": "-", "edit": ["-"]} | {
            key: list(value) if isinstance(value, tuple) else value
            for key in self.given
            if key != "metric" and (value := getattr(self, key)) is not None
        }
        Config.from_dict({**values, "metric": metric}, flags=self.flags)

"""What a trial prints while it runs: how far it is, its training loss, and whether to go on."""

from __future__ import annotations

import math
from collections import deque

from autoresearch.runner.endings import Ending
from autoresearch.runner.metrics import compile_pattern, log_text, number
from autoresearch.trial import Outcome, TrialSpec

CURVE_POINTS = 256
SMOOTHED_READINGS = 5  # pruning compares the mean of this many latest losses: one batch decides nothing
# In a flood of output only the newest part of each read is looked at, and no line is longer than this.
WATCHED_BYTES = 64 * 2**10

# A line that begins like a training step and names a loss that is not one of evaluation:
#   step 00132 (13.9%) | loss: 3.581000 | lrm: 1.00
#   progress 13.9% loss 3.581
#   iter 100: loss 2.3456, time 12.30ms, mfu 3.21%
PROGRESS = r"""(?xi)
    ^[ \t]* (?:progress|step|iter(?:ation)?|epoch) [ \t]*[:=]?[ \t]*
    (?:\d+(?:/\d+)?[:,]?[ \t]+)?
    (?:\(?(?P<percent>\d+(?:\.\d+)?)[ ]?%\)?)?
    .{0,80}?
    (?<!val[ /]) (?<!valid[ /]) (?<!validation[ /]) (?<!eval[ /]) (?<!test[ /])
    \b(?:train(?:ing)?[_ ])?loss\b [ \t]*[:=]?[ \t]*
    (?P<loss>[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|nan|inf(?:inity)?))\b
"""


class Watch:
    """Follows the output of one command; ``ending`` is set once there is no sense in going on."""

    def __init__(self, spec: TrialSpec) -> None:
        self._spec = spec
        self._pattern = compile_pattern(spec.progress_pattern or PROGRESS)
        self._bounds = sorted(spec.prune_above)
        self._rest = b""
        self._latest: deque[float] = deque(maxlen=SMOOTHED_READINGS)
        self._curve: list[tuple[float, float]] = []
        self._readings = 0
        self._stride = 1
        self._printed_fraction: float | None = None
        self.fraction = 0.0
        self.loss: float | None = None
        self.ending: Ending | None = None

    @property
    def curve(self) -> tuple[tuple[float, float], ...]:
        return tuple(self._curve)

    def feed(self, data: bytes, elapsed_s: float) -> None:
        """Take in what was printed ``elapsed_s`` after the start; a line counts once it has ended."""
        lines = (self._rest + data)[-WATCHED_BYTES:]
        end = max(lines.rfind(b"\n"), lines.rfind(b"\r")) + 1
        self._rest = lines[end:]
        for match in self._pattern.finditer(log_text(lines[:end])):
            self._read(match.groupdict(), elapsed_s)

    def close(self, elapsed_s: float) -> None:
        """Take in a last line that has no end."""
        self.feed(b"\n", elapsed_s)

    def advance(self, elapsed_s: float) -> None:
        """Bring ``fraction`` up to date: as printed, or by the clock if the command prints no percentage."""
        by_clock = elapsed_s / self._spec.budget_s
        fraction = by_clock if self._printed_fraction is None else self._printed_fraction
        self.fraction = min(max(fraction, 0.0), 1.0)

    def _read(self, found: dict[str, str | None], elapsed_s: float) -> None:
        percent = number(found.get("percent"))
        if percent is not None:
            self._printed_fraction = percent / 100
        self.advance(elapsed_s)
        loss = number(found.get("loss"))
        if loss is not None:
            self.loss = loss if math.isfinite(loss) else None
            self.ending = self.ending or self._judge(loss)

    def _judge(self, loss: float) -> Ending | None:
        at = f"at {self.fraction:.0%} of the run"
        if not math.isfinite(loss):
            return Ending(Outcome.DIVERGED, "nan", f"the training loss became {loss} {at}")
        self._record(loss)
        if 0 < self._spec.diverged_above < loss:
            rise = f"{loss:.6g}, above {self._spec.diverged_above:g}"
            return Ending(Outcome.DIVERGED, "loss", f"the training loss rose to {rise}, {at}")
        self._latest.append(loss)
        bound = math.inf
        while self._bounds and self.fraction >= self._bounds[0][0]:
            bound = self._bounds.pop(0)[1]
        smoothed = sum(self._latest) / len(self._latest)
        if smoothed > bound:
            excess = f"{smoothed:.6g}, above {bound:.6g}"
            return Ending(Outcome.PRUNED, "pruned", f"the training loss was {excess}, {at}")
        return None

    def _record(self, loss: float) -> None:
        """Add a point to the curve; when it is full, every second one goes, now and from now on."""
        if self._readings % self._stride == 0:
            self._curve.append((round(self.fraction, 5), loss))
            if len(self._curve) > CURVE_POINTS:
                self._curve = self._curve[::2]
                self._stride *= 2
        self._readings += 1

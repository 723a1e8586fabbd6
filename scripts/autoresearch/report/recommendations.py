"""What to do next, derived from a campaign's figures; where these say nothing, nothing is recommended."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from autoresearch.output import one_line
from autoresearch.report.figures import Ablation, Judged, Summary
from autoresearch.report.format import margin, number, plural, signed

CLAIM_SEEDS = 6
LEAST_SEEDS, MOST_SEEDS = 5, 20  # of a closer look: fewer pairs decide nothing, more are not worth a night
MOST_CLAIM_SEEDS = 100  # as many as compare.py takes
OF_A_KIND = 3
ENOUGH_IDEAS = 5  # with a family named; fewer do not tell that a family was left out
IDEA_WIDTH = 60

# The families of ideas with the names that agents give them; the first is the one to write.
FAMILIES: tuple[tuple[str, ...], ...] = (
    ("architecture", "model", "attention", "layers", "width", "depth"),
    ("optimizer", "optimiser", "optim", "lr", "learning rate", "momentum", "muon", "adam"),
    ("schedule", "scheduler", "warmup", "warmdown", "decay"),
    ("regularization", "regularisation", "dropout", "weight decay", "augmentation"),
    ("data", "dataset", "tokenizer", "sampling", "curriculum"),
    ("batch", "batch size", "batch-size", "accumulation", "sequence length"),
    ("precision", "dtype", "bf16", "fp8", "amp", "quantization"),
    ("loss", "objective", "label smoothing", "z-loss"),
    ("initialization", "initialisation", "init"),
)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """One next step with the numbers that speak for it; ``command`` is to be typed, "" if it takes an idea first.

    ``kind``: baseline | claim | retest | more_seeds | combine | constraint | ablate | drop | family.
    """

    kind: str
    text: str
    command: str


def recommend(summary: Summary) -> list[Recommendation]:
    """The next steps, the most urgent first: what is believed has to be true before more is built on it."""
    return [
        *_baseline(summary),
        *_claim(summary),
        *_retest(summary),
        *_more_seeds(summary),
        *_combine(summary),
        *_constraint(summary),
        *_ablate(summary),
        *_family(summary),
    ]


def _baseline(summary: Summary) -> Iterator[Recommendation]:
    """Experiments, and none that an idea could be compared with."""
    if summary.experiments.run and summary.incumbent is None and not summary.open_experiments:
        yield Recommendation(
            kind="baseline",
            text="No baseline has been measured. See what broke, mend it, and measure the unmodified code.",
            command='python scripts/run_experiment.py -d "baseline"',
        )


def _claim(summary: Summary) -> Iterator[Recommendation]:
    """A gain that was never compared on fresh seeds, or not with enough of them."""
    best, credit, noise = summary.incumbent, summary.credit, summary.noise
    if best is None or credit is None or noise is None or noise.deterministic or not summary.discoveries.stack.keeps:
        return
    claim, again = summary.claim, f"python scripts/summarize.py --claim {CLAIM_SEEDS}"
    if claim is None or claim["arms"][1] != best.commit:
        past = "" if claim is None else f"; the last one was about {claim['b']}"
        yield Recommendation(
            kind="claim",
            text=f"The gain of {signed(credit.gain)} rests on the trials that chose the winner; "
            f"experiment {best.number} has not been compared on fresh seeds{past}.",
            command=again,
        )
    elif claim["word"] != "confirmed" and claim.get("gain_high") is not None:
        seeds, gain = len(claim["seeds"]), claim["gain"]
        shown = f"gain {signed(gain)} (95 % {signed(claim['gain_low'])} to {signed(claim['gain_high'])})"
        if gain <= 0:
            yield Recommendation(
                kind="claim",
                text=f"On {plural(seeds, 'fresh seed')} {claim['b']} is no better than {claim['a']}: {shown}. "
                "See which of the kept changes is not real.",
                command=f"python scripts/compare.py baseline best --seeds {max(seeds, CLAIM_SEEDS)} --ablate",
            )
            return
        wanted = math.ceil(seeds * ((claim["gain_high"] - gain) / gain) ** 2)
        if seeds < wanted <= MOST_CLAIM_SEEDS:
            yield Recommendation(
                kind="claim",
                text=f"The comparison on {plural(seeds, 'fresh seed')} was inconclusive: {shown}. "
                f"If that gain holds, about {wanted} seeds show it.",
                command=f"python scripts/summarize.py --claim {wanted}",
            )


def _retest(summary: Summary) -> Iterator[Recommendation]:
    best, credit = summary.incumbent, summary.credit
    if summary.retest_due and best is not None and credit is not None:
        yield Recommendation(
            kind="retest",
            text=f"A re-test of experiment {best.number} is due: {plural(summary.misses_in_a_row, 'miss', 'misses')} "
            f"in a row, and its level {number(credit.level)} is known only to ± {margin(credit.se)} (95 %). "
            "It starts by itself with the next decision.",
            command="",
        )


def _more_seeds(summary: Summary) -> Iterator[Recommendation]:
    """Near misses that a bearable number of seeds would decide if their gain holds; those on today's best first."""
    best = summary.incumbent
    assert best is not None or not summary.near_misses, "an idea is compared with something"
    worth = [each for each in summary.near_misses if (_seeds_to_decide(each, summary) or math.inf) <= MOST_SEEDS]
    worth.sort(key=lambda each: best is not None and each.parent != best.commit)
    for each in worth[:OF_A_KIND]:
        wanted = _seeds_to_decide(each, summary) or 0
        text = (
            f"{_named(each)} is undecided: {_evidence(each)} after {plural(each.trials, 'trial')}. "
            f"If the gain holds, about {wanted} decide"
        )
        if best is not None and each.parent == best.commit:
            command = f"python scripts/compare.py best {each.number} --seeds {max(wanted, LEAST_SEEDS)}"
        else:
            text += f"; it was measured beside experiment {each.incumbent}, not beside today's best"
            command = (
                f"{_patch(each)} && python scripts/run_experiment.py "
                f'-d "experiment {each.number} on today\'s best" --seeds {min(wanted, summary.max_seeds)}'
            )
        yield Recommendation(kind="more_seeds", text=f"{text}.", command=command)


def _seeds_to_decide(idea: Judged, summary: Summary) -> int | None:
    """Trials after which the idea's gain, if it stays as it is, reaches the rule's boundary A / sqrt(n).

    z grows with the root of n while the boundary falls with it, so n grows as z_needed / z; at least ``min_seeds``.
    """
    if not idea.z or idea.z_needed is None:
        return None
    return max(math.ceil(idea.trials * idea.z_needed / idea.z), summary.min_seeds)


def _combine(summary: Summary) -> Iterator[Recommendation]:
    """The two best near misses on today's best code, of different families if there are such."""
    best = summary.incumbent
    here = [each for each in summary.near_misses if best is not None and each.parent == best.commit]
    if len(here) < 2:
        return
    first = here[0]
    second = next((each for each in here[1:] if each.family != first.family), here[1])
    assert first.gain is not None and second.gain is not None, "a near miss has a gain"
    together = math.hypot(first.z or 0.0, second.z or 0.0)
    yield Recommendation(
        kind="combine",
        text=f"{_named(first)} and e{_named(second)[1:]} missed alone ({_evidence(first)}; {_evidence(second)}). "
        f"If they are independent, together they gain {signed(first.gain + second.gain)} at z {together:.1f}.",
        command=f"{_patch(first)} && {_patch(second)} && python scripts/run_experiment.py "
        f'-d "combine experiments {first.number} and {second.number}"',
    )


def _constraint(summary: Summary) -> Iterator[Recommendation]:
    """Ideas that looked better and were refused by a constraint."""
    for each in summary.constraint_limited[:OF_A_KIND]:
        yield Recommendation(
            kind="constraint",
            text=f"{_named(each)} looked better ({_evidence(each)}) but {one_line(each.constraint, 160)}. "
            "Make it fit, for instance by giving up something of less worth.",
            command=_patch(each),
        )


def _ablate(summary: Summary) -> Iterator[Recommendation]:
    """Keeps of which nobody knows what they add to the whole, or of which it is known: nothing."""
    found = summary.discoveries
    if found.stack.keeps < 2:
        return
    if not found.ablations:
        yield Recommendation(
            kind="ablate",
            text=f"{found.stack.keeps} kept changes stand on one another, with gains of "
            f"{signed(found.stack.gains_sum)} in all when they were kept; what each one adds to the best is not known.",
            command=f"python scripts/compare.py baseline best --seeds {CLAIM_SEEDS} --ablate",
        )
        return
    kept = {each.number: each for each in summary.kept}
    for each in islice((each for each in found.ablations if each.gain <= 0), OF_A_KIND):
        yield Recommendation(
            kind="drop",
            text=f"Experiment {each.number} ({one_line(each.description, IDEA_WIDTH)}) adds nothing to the best: "
            f"{signed(each.gain)}{_interval(each)} on {plural(each.seeds, 'fresh seed')}. Take it out.",
            command=f"{_patch(kept[each.number])} --reverse && python scripts/run_experiment.py "
            f'-d "without experiment {each.number}" --simplification',
        )


def _family(summary: Summary) -> Iterator[Recommendation]:
    """Kinds of ideas that nobody has tried, beside the kind that has had the most tries."""
    known = {alias: family[0] for family in FAMILIES for alias in family}
    tried = [each for each in summary.families if each.family]
    ideas = sum(each.experiments for each in tried)
    words = {known.get(one_line(each.family).lower()) for each in tried}
    missing = [family[0] for family in FAMILIES if family[0] not in words]
    if ideas < ENOUGH_IDEAS or not missing:
        return
    most = max(tried, key=lambda each: each.experiments)
    text = (
        f"Not tried in {ideas} ideas: {', '.join(missing)}. {one_line(most.family, 40)} has had {most.experiments} "
        f"of them and kept {most.kept}"
    )
    misses = summary.misses_in_a_row
    text += f"; the last {plural(misses, 'idea')} missed." if misses >= ENOUGH_IDEAS else "."
    yield Recommendation(
        kind="family",
        text=text,
        command=f'python scripts/run_experiment.py -d "the idea in a sentence" --family {missing[0]}',
    )


# ---- pieces


def _named(idea: Judged) -> str:
    return f"Experiment {idea.number} ({one_line(idea.description, IDEA_WIDTH)})"


def _evidence(idea: Judged) -> str:
    if idea.gain is None or idea.gain_high is None or idea.z is None:
        return "no gain measured"
    return f"gain {signed(idea.gain)} ± {idea.gain_high - idea.gain:.2g} (95 %), z {idea.z:.1f}"


def _interval(ablation: Ablation) -> str:
    if ablation.gain_low is None or ablation.gain_high is None:
        return ""
    return f" (95 % {signed(ablation.gain_low)} to {signed(ablation.gain_high)})"


def _patch(idea: Judged) -> str:
    """The command that makes the idea's change in the work tree; it changes nothing where it does not fit."""
    return f"git diff {idea.parent[:12]} {idea.commit[:12]} | git apply"

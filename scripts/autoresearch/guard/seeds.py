"""Seeds belong to the runner: an edit may neither consist of a new one nor put one in its place.

Two questions are asked. Is the edit the same code but for its seeds? Both versions are brought to a
form without any, and the forms compared. And whose seeds does it use? Every place that seeds a
generator or fills a name like ``seed`` is held against what stood there before.

Not seen: random numbers drawn and thrown away inside other expressions, several trainings in one
trial of which the best is reported, seeds under names that do not say so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.guard.source import FUNCTIONS, Source, root, text_of

SEED_VARIABLE = "AUTORESEARCH_SEED"
_NAME = re.compile(r"(?!n_|num_)(\w*_)?seeds?(_?(base|offset|value|number|num))?\d*|random_state", re.IGNORECASE)
_WHOLE_PROGRAM = r"((set|fix|init|reset)_)?((manual|random|global)_)?seeds?(_(all|everything|rngs?|torch))?|PRNGKey"
_SEEDER = re.compile(_WHOLE_PROGRAM + r"|default_rng|RandomState|Random|SeedSequence|PCG64|Philox|MT19937")
_LIBRARIES = re.compile(r"(torch|random|numpy|jax|tensorflow|mlx|cupy|paddle|lightning|transformers)\..*")
_DRAWS = re.compile(r"torch\.(rand\w*|normal|bernoulli|multinomial)|(numpy\.)?random\.\w+")
_CLOCKS = re.compile(r"(time|os\.(urandom|getpid)|secrets|uuid|random|datetime)\b.*")
_CASTS = {"int", "str", "float", "abs", "hash"}
_WITHOUT_EFFECT = {"os", "random", "numpy", "torch", "time", "sys"}  # modules that an import only names
_BLANK = "<seed>"
_ADOPTING = (
    f"Using {SEED_VARIABLE} is right, but the baseline must do so too: a human commits it and runs "
    "setup_campaign.py --reconfigure."
)


class Whose(IntEnum):
    """Who chose a seed; of several values that a name may have, the lowest counts."""

    RUNNER = 0
    UNKNOWN = 1  # such as seed + rank
    EDIT = 2  # a number spelled out, arithmetic with one, or the clock


@dataclass(frozen=True)
class Site:
    """A place where a seed is set. Sites with equal ``key`` are the same place in two versions."""

    source: Source
    node: ast.AST
    key: str
    whose: Whose
    value: str
    seeds: bool  # it seeds a generator, rather than filling a name
    whole: bool  # the generator is the whole program's

    @property
    def quoted(self) -> str:
        return self.source.quote(self.node)


def check_seeds(
    before: Sequence[Source], after: Sequence[Source], config: Config, others: Collection[str]
) -> list[str]:
    """Refuse an edit whose seeds are less the runner's than before. ``others`` are texts of unchanged files.

    Returns notes on new generators that are seeded alike in every trial.
    """
    old = [site for source in before for site in _sites(source)]
    new = [site for source in after for site in _sites(source)]
    readers = [source.quote(node) for source in before for node in _reads_of_runner(source, config)]
    if readers:
        read = any(_reads_of_runner(source, config) for source in after)
        if not read and not any(SEED_VARIABLE in text for text in others):
            raise _ignored(f"the runner's seed is no longer read; before: {readers[0]}")
        seeded = [site for site in old if site.seeds and site.whose is not Whose.EDIT]
        if seeded and not any(site.seeds and site.whose is not Whose.EDIT for site in new):
            raise _ignored(f"nothing is seeded with the runner's seed any more; before: {seeded[0].quoted}")
    known = {(site.key, site.value) for site in old}
    keys = {site.key for site in old}
    values = {site.value for site in old if site.whose is Whose.EDIT}
    notes = []
    for site in new:
        if site.whose is not Whose.EDIT or (site.key, site.value) in known:
            continue
        if site.key in keys:
            raise _ignored(f"this moves a seed: {site.quoted}")
        if site.whole and site.value not in values:
            raise _ignored(f"this puts a seed of its own in the place of the runner's: {site.quoted}")
        notes.append(f"a seed that is the same in every trial: {site.quoted}")
    return notes


def seed_only(before: Sequence[Source], after: Sequence[Source], config: Config) -> RefusedError:
    """The error for an edit that is the same code but for its seeds."""
    old = {(site.key, site.value): site for source in before for site in _sites(source)}
    new = {(site.key, site.value): site for source in after for site in _sites(source)}
    moved = [new[place] for place in new if place not in old] or [old[place] for place in old if place not in new]
    site = next(iter(moved or new.values()), None)
    where = site.quoted if site else "random numbers are drawn and not used."
    adopting = site and site.whose is Whose.RUNNER and not any(_reads_of_runner(source, config) for source in before)
    keep = f"The runner sets {SEED_VARIABLE} and compares at equal seeds: leave seeding as it was."
    hint = _ADOPTING if adopting else keep
    return RefusedError(f"the edit changes nothing but seeds: {where}", hint=hint, code="seed_only")


def _ignored(message: str) -> RefusedError:
    return RefusedError(message, hint=f'Seed with int(os.environ["{SEED_VARIABLE}"]), unchanged.', code="seed_ignored")


def _is_seed_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _is_seeder(function: ast.expr) -> bool:
    last = _last(function)
    return _SEEDER.fullmatch(last) is not None or (last == "key" and ast.unparse(function).endswith("random.key"))


def _is_flag(call: ast.Call) -> bool:
    """``add_argument("--seed", …)`` and its like."""
    if _last(call.func) not in ("add_argument", "option", "argument"):
        return False
    names = (text_of(argument).lstrip("-").replace("-", "_") for argument in call.args)
    return any(map(_is_seed_name, names))


def _last(node: ast.AST) -> str:
    """The last name in ``name``, ``a.name`` and ``a["name"]``; else ""."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str() as name)):
            return name
    return ""


def _reads_of_runner(source: Source, config: Config) -> list[ast.AST]:
    """Where the file reads the runner's seed, from the environment or from the command line."""
    flags = filter(_is_flag, source.all(ast.Call)) if "{seed}" in config.command else ()
    return [*(node for node in source.strings() if node.value == SEED_VARIABLE), *flags]


# ---- the places that set seeds


def _sites(source: Source) -> Iterator[Site]:
    for binding in source.bindings:
        name = _last(binding.place)
        value = binding.node.value if isinstance(binding.node, ast.AugAssign) else binding.value
        if _is_seed_name(name) and value is not None:
            yield _site(source, binding.node, f"name {name}", value)
    for function in source.all(*FUNCTIONS):
        for name, default in _defaults(function):
            if _is_seed_name(name):
                yield _site(source, default, f"parameter {function.name}.{name}", default)
    for table in source.all(ast.Dict):
        for name, value in _entries(table):
            yield _site(source, value, f"name {name}", value)
    for call in source.all(ast.Call):
        for keyword in _seed_keywords(call):
            key = f"argument {ast.unparse(call.func)}.{keyword.arg}"
            yield _site(source, keyword, key, keyword.value, seeds=keyword.arg != "default")
        if call.args and _is_seeder(call.func):
            library = _LIBRARIES.fullmatch(source.dotted(call.func)) is not None
            whole = re.fullmatch(_WHOLE_PROGRAM, _last(call.func)) is not None
            whole = whole and (library or isinstance(call.func, ast.Name))
            yield _site(source, call, f"call {ast.unparse(call.func)}", call.args[0], seeds=True, whole=whole)


def _site(
    source: Source, node: ast.AST, key: str, value: ast.expr, *, seeds: bool = False, whole: bool = False
) -> Site:
    given = source.given(value.id) if isinstance(value, ast.Name) else []
    if len(given) == 1 and isinstance(given[0].value, ast.Constant):
        value = given[0].value  # the number that a name stands for
    return Site(source, node, key, _whose(source, value, frozenset()), ast.dump(value), seeds, whole)


def _defaults(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Parameters that have a default, by name."""
    spec = function.args
    pairs = [*zip(reversed([*spec.posonlyargs, *spec.args]), reversed(spec.defaults), strict=False)]
    yield from ((argument.arg, default) for argument, default in pairs)
    for argument, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
        if default is not None:
            yield argument.arg, default


def _entries(table: ast.Dict) -> Iterator[tuple[str, ast.Constant]]:
    """``{"seed": 42}``."""
    for key, value in zip(table.keys, table.values, strict=True):
        if _is_seed_name(text_of(key)) and isinstance(value, ast.Constant) and not text_of(value):
            yield text_of(key), value


def _seed_keywords(call: ast.Call) -> list[ast.keyword]:
    """``f(seed=42)``, and the default of a flag."""
    flag = bool(call.keywords) and _is_flag(call)
    return [k for k in call.keywords if k.arg and (_is_seed_name(k.arg) or (flag and k.arg == "default"))]


def _whose(source: Source, node: ast.expr, followed: frozenset[str]) -> Whose:
    """Who chose the value of ``node``; ``followed`` are the names on the way to it."""
    match node:
        case ast.Constant(value=str() | None):
            return Whose.UNKNOWN
        case ast.Constant():
            return Whose.EDIT
        case ast.BinOp(left=left, right=right):
            sides = (_whose(source, left, followed), _whose(source, right, followed))
            return Whose.UNKNOWN if Whose.UNKNOWN in sides else Whose.EDIT
        case ast.UnaryOp():
            return Whose.EDIT
        case ast.IfExp(body=body, orelse=other):
            return min(_whose(source, body, followed), _whose(source, other, followed))
        case ast.BoolOp(values=values):
            return min(_whose(source, value, followed) for value in values)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            given = [] if name in followed else source.given(name)
            whose = [_whose(source, one.value, followed | {name}) if one.value else Whose.UNKNOWN for one in given]
            return min(whose, default=Whose.RUNNER if _is_seed_name(name) else Whose.UNKNOWN)
        case ast.Call(func=ast.Name(id=cast), args=[value]) if cast in _CASTS:
            return _whose(source, value, followed)
    if any(text_of(part) == SEED_VARIABLE for part in ast.walk(node)):
        return Whose.RUNNER
    if isinstance(node, ast.Call) and source.is_imported(root(node.func)):
        return Whose.EDIT if _CLOCKS.fullmatch(source.dotted(node.func)) else Whose.UNKNOWN
    return Whose.UNKNOWN


# ---- code without its seeds


def without_seeds(source: Source, tree: ast.Module) -> ast.Module:
    """``tree``, changed in place: seeding statements gone, all other seeds alike."""
    _SeedsOut(source).visit(tree)
    return tree


class _SeedsOut(ast.NodeTransformer):
    def __init__(self, source: Source) -> None:
        self._source = source

    def visit(self, node: ast.AST) -> ast.AST | None:
        """Without seeding statements, and without the compound ones that did nothing but seed."""
        if self._only_seeds(node):
            return None
        self._blank(node)
        self.generic_visit(node)
        if isinstance(node, ast.expr):
            return ast.Name(id=_BLANK, ctx=ast.Load()) if self._is_seed(node) else node
        if isinstance(node, ast.Import):
            node.names = [alias for alias in node.names if alias.name not in _WITHOUT_EFFECT]
            return node if node.names else None
        emptied = getattr(node, "body", None) == [] and not isinstance(node, ast.Module)
        return None if emptied and not getattr(node, "orelse", None) else node

    def _only_seeds(self, node: ast.AST) -> bool:
        match node:
            case ast.Expr(value=ast.Call() as call):
                draws = _DRAWS.fullmatch(self._source.dotted(call.func)) is not None
                return draws or _is_seeder(call.func) or _is_flag(call)
            case ast.Assign(targets=[target], value=value) | ast.AugAssign(target=target, value=value):
                return _is_seed_name(_last(target)) and not text_of(value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                return _is_seed_name(_last(target)) and not text_of(value)
            case ast.FunctionDef(name=name):
                return _SEEDER.fullmatch(name) is not None
        return False

    @staticmethod
    def _blank(node: ast.AST) -> None:
        """Make the seeds that ``node`` spells out or passes on alike."""
        if isinstance(node, ast.Call):
            if _is_seeder(node.func):
                node.args, node.keywords = [ast.Constant(_BLANK)], []
            for keyword in _seed_keywords(node):
                keyword.value = ast.Constant(_BLANK)
        elif isinstance(node, ast.Dict):
            for _, value in _entries(node):
                value.value = _BLANK
        elif isinstance(node, FUNCTIONS):
            for name, default in _defaults(node):
                if _is_seed_name(name) and isinstance(default, ast.Constant):
                    default.value = _BLANK

    def _is_seed(self, node: ast.expr) -> bool:
        """Whether a visited expression is a seed: a name of one, the runner's variable, arithmetic on it."""
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name, ctx=ast.Load()):
                return name == _BLANK or _is_seed_name(name)
            case ast.Subscript(slice=key):
                return text_of(key) == SEED_VARIABLE
            case ast.Call(func=ast.Name(id=cast), args=[value]) if cast in _CASTS:
                return self._is_seed(value)
            case ast.Call(func=function, args=[key, *_]):
                reads = self._source.dotted(function) in ("os.environ.get", "os.getenv")
                return reads and text_of(key) == SEED_VARIABLE
            case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.IfExp():
                parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
                seeds = [self._is_seed(part) for part in parts]
                numbers = (isinstance(part, ast.Constant) for part in parts)
                return any(seeds) and all(a or b for a, b in zip(seeds, numbers, strict=True))
        return False

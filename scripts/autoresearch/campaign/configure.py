"""The config that a set-up writes: the project's own or what was detected, with the flags on top."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from autoresearch.campaign.config_notes import (
    about_budget,
    about_evaluators,
    loose_code,
    missing_links,
    protect_how,
    secrets,
)
from autoresearch.campaign.config_text import render_config, set_keys
from autoresearch.campaign.detect import Finding, detect, evaluators_within
from autoresearch.campaign.entry import SETUP, Project
from autoresearch.campaign.needs import Data, find_data, find_isolation, find_links, given_data
from autoresearch.campaign.printed import Printed, choose, direction_of
from autoresearch.campaign.wishes import Wishes
from autoresearch.config import CONFIG_FILE, Config, default_pattern, load_yaml
from autoresearch.errors import UsageError, near_names
from autoresearch.executors import executor_for
from autoresearch.guard import in_scope, may_edit
from autoresearch.notify import check_channels

LONG_BUDGET_S = 300.0  # from here on, timeout_factor alone leaves room for what is no training
STARTUP_ALLOWANCE_S = 60.0  # imports, loading and evaluation
COMPILE_ALLOWANCE_S = 120.0  # torch.compile of a new shape takes over a minute
WATCHED_AT_MOST = 16
DETECTED_KEYS = ("command", "watch", "edit", "protect", "data", "link", "budget_s", "startup_s", "isolation")


@dataclass(kw_only=True)
class Configured:
    """A validated config, the text of its file, and what there is to say about it."""

    config: Config
    text: str
    findings: list[Finding]
    data: Data
    notes: list[str] = field(default_factory=list)


def configure(project: Project, wishes: Wishes, *, existing: str | None) -> Configured:
    """The config of a new campaign. ``existing`` is the text of the project's own ``autoresearch.yaml``."""
    if existing is None or not existing.strip():
        made = _from_detection(project, wishes)
    else:
        made = _from_file(project, wishes, *_completed(project, wishes, existing))
    check_edit(made.config, project)
    made.notes += loose_code(project, made.config) + missing_links(made.config, project.folder)
    made.notes += secrets(made.config)
    return made


def check_edit(config: Config, project: Project) -> None:
    """Refuse paths that hold nothing to edit or to protect, and settings that this version cannot carry out."""
    executor_for(config.executor)
    check_channels(config.notify)
    for path in config.edit:
        held = [file for file in project.files if in_scope(file, (path,))]
        if not held:
            raise UsageError(
                f"`edit` names {path}, and no committed file is there.",
                hint=f"Name what experiments may change: {SETUP} --edit FILE; a new file first: "
                f"git add {path} && git commit -m start",
                code="edit_not_committed",
            )
        if not any(may_edit(file, config) for file in held):
            raise UsageError(
                f"`edit` names {path}, and all of it is protected: {', '.join(config.protect[:5])}.",
                hint=f"Name the files that experiments may change: {SETUP} --edit {held[0]}",
                code="edit_protected",
            )
    present = [*project.files, *project.untracked]
    for path in config.protect:
        if not any(in_scope(file, (path,)) for file in present) and not (project.folder / path).exists():
            near = near_names(path, project.files)
            raise UsageError(
                f"`protect` names {path}, and no such file is there.",
                hint=f"Did you mean {near[0]}?" if near else f"Name a file that is there: {SETUP} --protect FILE",
                code="protect_missing",
            )


def _from_detection(project: Project, wishes: Wishes) -> Configured:
    found = detect(project, command=wishes.command, edit=wishes.edit or ())
    edit = wishes.edit or ((found.entry,) if found.entry else None)
    if edit is None:
        raise UsageError(
            f"What experiments may change is not clear: {found.command!r} names no script of the project.",
            hint=f"Say it: {SETUP} --command … --edit FILE",
            code="ask_edit",
        )
    metric, metric_how = _metric(found.printed, wishes)
    watch, watch_how = _watched(found.printed, metric["name"], wishes)
    links, left_out = find_links(project, found)
    isolation, isolation_how = find_isolation(project, found)
    data = find_data(project, found, links)
    if wishes.data is not None:
        data = given_data(wishes.data, project, found)
    if wishes.protect is None:
        protect = tuple(path for path in found.protect if not in_scope(path, edit))
    else:
        protect = wishes.protect
    within = [path for path in evaluators_within(project, edit, [found.command]) if not in_scope(path, protect)]
    protect = (*protect, *within)
    budget_s = found.budget_s if wishes.budget_s is None else wishes.budget_s
    values = {
        "command": found.command, "metric": metric, "watch": watch, "edit": list(edit),
        "protect": list(protect), "data": list(data.paths), "link": links, "budget_s": _plain(budget_s),
        "startup_s": _plain(_startup(budget_s, compiles=found.compiles)), "isolation": isolation,
    }  # fmt: skip
    text = render_config(values)
    findings = [
        _finding("command", found.command, "given" if wishes.command else found.command_how),
        _finding("metric", f"{metric['name']}, {metric['direction']} is better", metric_how),
        _finding("edit", edit, "given" if wishes.edit else "the script that trains"),
        _finding("protect", protect, protect_how(wishes, within)),
        _finding("data", data.paths, data.how),
        _finding("budget_s", _plain(budget_s), found.budget_how if wishes.budget_s is None else "given"),
        _finding("watch", list(watch), watch_how),
        _finding("link", links, "not in git, and a clean checkout needs it"),
        _finding("isolation", isolation if isolation_how else "", isolation_how),
    ]
    made = Configured(
        config=Config.parse(text, flags=wishes.flags), text=text, findings=[one for one in findings if one.value],
        notes=found.notes, data=data,
    )  # fmt: skip
    made.notes += about_evaluators(found, made.config, within) + about_budget(found, wishes)
    if found.command.startswith("uv ") and shutil.which("uv") is None:
        made.notes.append("uv is not on the PATH of this machine; install it, or say --command.")
    if left_out:
        made.notes.append(
            f"{len(left_out)} more ignored files look like data and are not linked, such as {left_out[0]}; "
            f"put them in one folder and name it under `link` in {CONFIG_FILE}."
        )
    return made


def _completed(project: Project, wishes: Wishes, existing: str) -> tuple[str, dict[str, str]]:
    """``existing`` with what it lacks for a config, flags and detection asked, and how each key was found."""
    read = load_yaml(existing)
    said = {} if read is None else read
    if not isinstance(said, dict) or not isinstance(said.get("metric") or {}, dict):
        return existing, {}  # an error, which the reader of the config tells
    said = {key: value for key, value in said.items() if value is not None}
    metric = {key: value for key, value in said.get("metric", {}).items() if value is not None}
    if "command" in said and "name" in metric:
        return existing, {}
    # With its other values in place, for their errors; a constraint may be on the metric that is to be found.
    probe = Config.from_dict(
        {"command": "-", **said, "metric": {"name": "-", **metric}, "constraints": []}, source=CONFIG_FILE
    )
    known = {key: getattr(probe, key) for key in ("command", "edit", "protect", "data", "budget_s") if key in said}
    known |= {wish: metric[key] for wish, key in (("metric", "name"), ("direction", "direction")) if key in metric}
    given = {key: value for key in known if (value := getattr(wishes, key)) is not None}
    made = _from_detection(project, replace(wishes, **{**known, **given}))
    whole = load_yaml(made.text)
    hows = {finding.key: finding.how for finding in made.findings if finding.key not in said}
    missing = {key: whole[key] for key in DETECTED_KEYS if key not in said}
    if "name" not in metric:
        missing["metric"] = {**whole["metric"], **metric}
    return set_keys(existing, missing), hows


def _from_file(project: Project, wishes: Wishes, existing: str, filled: Mapping[str, str]) -> Configured:
    text, config = with_wishes(existing, project, wishes)
    said = Config.parse(existing).protect if wishes.protect is None else wishes.protect
    within = [path for path in config.protect if not in_scope(path, said)]
    found = detect(project, command=config.command, edit=config.edit)
    values = config.to_dict()
    values["metric"] = f"{config.metric.name}, {config.metric.direction} is better"
    values["watch"] = list(config.watch)
    values["budget_s"] = _plain(config.budget_s)
    keys = ("command", "metric", "edit", "protect", "data", "budget_s", "watch", "link", "isolation")
    hows = {key: f"given; {CONFIG_FILE} says so now" if key in wishes.given else CONFIG_FILE for key in keys}
    hows |= {key: how for key, how in filled.items() if key not in wishes.given}
    if within:
        hows["protect"] += ", and what measures"
    findings = [_finding(key, values[key], hows[key]) for key in keys]
    made = Configured(
        config=config, text=text, findings=[one for one in findings if one.value], notes=found.notes,
        data=given_data(config.data, project, found),
    )  # fmt: skip
    made.notes += about_evaluators(found, config, within) + about_budget(found, wishes)
    unlinked = [link for link in find_links(project, found)[0] if not in_scope(link, config.link)]
    if unlinked and config.isolation == "worktree":
        made.notes.append(
            f"not in git and not linked, so no trial sees it: {', '.join(unlinked[:5])}. "
            f"If training needs it, add it to `link` in {CONFIG_FILE}."
        )
    return made


def with_wishes(text: str, project: Project, wishes: Wishes) -> tuple[str, Config]:
    """The text of a config with the flags written into it, comments kept, and the config that it is now."""
    before = Config.parse(text)
    changes: dict[str, Any] = {
        key: getattr(wishes, key) for key in ("command", "edit", "protect", "data") if key in wishes.given
    }
    if wishes.edit is not None and wishes.protect is None:
        named = {Path(path).as_posix() for path in wishes.edit}
        changes["protect"] = [path for path in before.protect if path not in named]
    protect = changes.get("protect", before.protect)
    commands = [changes.get("command", before.command), before.evaluate_command, before.test_command]
    within = evaluators_within(project, changes.get("edit", before.edit), commands)
    if within := [path for path in within if not in_scope(path, protect)]:
        changes["protect"] = [*protect, *within]
    if wishes.budget_s is not None:
        changes["budget_s"] = _plain(wishes.budget_s)
    printed = detect(project, command=wishes.command or before.command).printed if wishes.given else []
    if "metric" in wishes.given:
        if wishes.metric in (None, before.metric.name):
            direction = wishes.direction or before.metric.direction
            changes["metric"] = {**before.to_dict()["metric"], "direction": direction}
        else:
            changes["metric"] = _metric(printed, wishes)[0]
    if wishes.watch is not None:
        changes["watch"] = _watched(printed, "", wishes)[0]
    changes = {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}
    wanted = Config.from_dict({**yaml.safe_load(text), **changes}, flags=wishes.flags)
    old, new = before.to_dict(), wanted.to_dict()
    changes = {key: value for key, value in changes.items() if new[key] != old[key]}
    written = set_keys(text, changes)
    try:
        understood = Config.parse(written) == wanted
    except UsageError:
        understood = False
    if not understood:
        raise UsageError(
            f"{CONFIG_FILE} is written in a way that flags cannot be put into.",
            hint=f"Set {', '.join(changes)} in {CONFIG_FILE} by hand, then leave these flags out.",
            code="config_not_writable",
        )
    return written, wanted


def _metric(printed: Sequence[Printed], wishes: Wishes) -> tuple[dict[str, str], str]:
    """The config's metric section, and how it was found; ``UsageError`` where that is not clear."""
    if wishes.metric is not None:
        same = [one for one in printed if wishes.metric in (one.name, one.label)]
        name, pattern = wishes.metric, same[0].pattern if same else default_pattern(wishes.metric)
        how = f"given; printed at {same[0].where}" if same else f"given; expected as a line `{name}: value`"
        if same and same[0].repeated:
            how += ", of several values the last"
    else:
        best = choose(printed)
        rivals = [one for one in printed if best is not None and one.rank == best.rank]
        if best is None or len(rivals) > 1:
            raise _which_metric(rivals or printed, wishes)
        name, pattern = best.name, best.pattern
        how = f"printed at {best.where}" + (", of several values the last" if best.repeated else "")
        others = [one.name for one in printed if one.rank is not None and one is not best]
        how += f"; comes before {', '.join(others[:4])}" if others else ""
    direction = wishes.direction or direction_of(name)
    if direction is None:
        raise UsageError(
            f"Whether a lower or a higher {name} is better is not known.",
            hint=f"Say it: {SETUP} --metric {name} --direction lower|higher",
            code="ask_direction",
        )
    return {"name": name, "direction": direction, "pattern": pattern}, how


def _which_metric(printed: Sequence[Printed], wishes: Wishes) -> UsageError:
    names = [one.name for one in printed if one.summary or one.rank is not None] or [one.name for one in printed]
    direction = wishes.direction or "lower|higher"
    if not names:
        return UsageError(
            "No number to improve was found: no `name: value` is printed by the code or stands in a log.",
            hint=f"Let the training print a last line such as `val_loss: 0.123`; or name what it prints: "
            f"{SETUP} --metric NAME --direction {direction}",
            code="ask_metric",
        )
    return UsageError(
        f"Which number the campaign improves is not clear: {', '.join(names[:10])}.",
        hint=f"Say it: {SETUP} --metric {names[0]} --direction {direction}",
        code="ask_metric",
    )


def _watched(printed: Sequence[Printed], metric: str, wishes: Wishes) -> tuple[list[str] | dict[str, str], str]:
    """The config's ``watch``: a list of names where all are plain lines, else name and pattern."""
    if wishes.watch is not None:
        by_name = {one.name: one for one in printed}
        chosen = {
            name: by_name[name].any_pattern if name in by_name else default_pattern(name) for name in wishes.watch
        }
        how = "given"
    else:
        lines = [one for one in printed if one.summary and not one.repeated and one.name == one.label]
        known = [one for one in printed if one.is_result and one not in lines]
        chosen = {one.name: one.any_pattern for one in [*lines, *known][: WATCHED_AT_MOST + 1] if one.name != metric}
        how = "printed as well"
    if all(pattern == default_pattern(name) for name, pattern in chosen.items()):
        return list(chosen), how
    return chosen, how


def _startup(budget_s: float, *, compiles: bool) -> float:
    if budget_s >= LONG_BUDGET_S:
        return 0.0
    return COMPILE_ALLOWANCE_S if compiles else STARTUP_ALLOWANCE_S


def _finding(key: str, value: Any, how: str) -> Finding:
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return Finding(key=key, value=text, how=how)


def _plain(number: float) -> int | float:
    """5 rather than 5.0, as a person writes it."""
    return int(number) if math.isfinite(number) and number == int(number) else number

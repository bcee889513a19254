"""Which setting of the design a run belongs to."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from analysis import formats
from analysis.baselines import Baselines
from analysis.design import Arm, Cell, Design, Setting, matches, nearest, same
from sbbridge.records import flatten_config


def place_settings(design: Design, runs: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """The settings of the ablation's runs, centre first, then levels in the design's order, then arms."""
    by_digest = {str(run["digest"]): run for run in runs}
    settings = [_place(design, digest, run) for digest, run in by_digest.items()]
    finder = Baselines(design, settings)
    baselines = {found.digest for setting in settings if (found := finder.of(setting))}
    settings = [replace(setting, is_baseline=setting.digest in baselines) for setting in settings]
    labels = Counter(setting.label for setting in settings if setting.cells)
    settings = [
        replace(setting, label=f"{setting.label} ({setting.digest[:6]})")
        if labels[setting.label] > 1 else setting
        for setting in settings
    ]
    return sorted(settings, key=lambda setting: _order(design, setting))


def _place(design: Design, digest: str, run: Mapping[str, Any]) -> Setting:
    leaves = flatten_config(json.loads(run["config_json"]))
    method = str(run["method"] or leaves.get("method.kind") or "unknown")
    arms = _arms_of(design, digest, leaves)
    if design.cells:
        return _place_in_cells(design, Setting(digest, "", method, leaves, None, frozenset(), arms=arms))
    arm = arms[0] if arms and digest != design.centre_arm.digest else None
    # A value that is absent is inactive (cycles of a method without them): not a departure from the centre.
    changed = frozenset(
        factor.path for factor in design.factors
        if leaves.get(factor.path) is not None
        and factor.path in design.centre
        and not same(leaves[factor.path], design.centre[factor.path])
    )  # fmt: skip
    another = not same(leaves.get("method.kind"), design.centre.get("method.kind"))
    if arm is not None:
        if _stands_apart(design, arm, another):
            return Setting(digest, arm.name, method, leaves, arm.name, changed, arms=arms)
    elif another:
        name = formats.level(method)
        return Setting(digest, name, method, leaves, name, changed, arms=arms)
    named = [factor for factor in design.factors if factor.path in changed]
    label = ", ".join(f"{factor.label} = {formats.level(leaves[factor.path])}" for factor in named)
    if not label:
        centre = design.centre_arm
        arms = arms if arms and not centre.table else (centre, *arms)
        return Setting(digest, centre.name, method, leaves, None, changed, arms=arms)
    return Setting(digest, label, method, leaves, None, changed, arms=arms)


def _place_in_cells(design: Design, setting: Setting) -> Setting:
    """Its places in a design that lists them; whatever is in none is an arm."""
    digest, arms = setting.digest, setting.arms
    cells = tuple(cell for cell in design.cells if cell.digest == digest)
    own = nearest(cells)
    if own is None:
        name = arms[0].name if arms else f"outside the design ({digest[:6]})"
        return replace(setting, label=name, arm=name)
    if not own.changed:
        centre = design.centre_arm
        arms = arms if arms and not centre.table else (centre, *arms)
        return replace(setting, label=centre.name, arms=arms, cells=cells)
    # A factor at whose every level it stands does nothing to it.
    told = [path for path in own.levels if path in design.told(own.changed) and own.levels[path] is not None]
    named = [path for path in told if _all_alike(cells, path)] or told
    ordered = sorted(named, key=lambda path: [factor.path for factor in design.factors].index(path))
    label = ", ".join(f"{design.label(path)} = {formats.level(own.levels[path])}" for path in ordered)
    return replace(setting, label=label, changed=own.changed, cells=cells)


def _all_alike(cells: Sequence[Cell], path: str) -> bool:
    return all(same(cell.levels.get(path), cells[0].levels.get(path)) for cell in cells)


def _stands_apart(design: Design, arm: Arm, another: bool) -> bool:
    """Whether an arm is no level of the factors under another name: it moves something else, or is another method.

    One that moves nothing and yet has a digest of its own is neither a level nor the centre.
    """
    paths = {factor.path for factor in design.factors}
    moved = {path for path, value in arm.overrides.items() if not same(value, design.centre.get(path))}
    unexplained = bool(arm.digest) and not moved
    return unexplained or not moved <= paths or (another and "method.kind" not in paths)


def _arms_of(design: Design, digest: str, leaves: Mapping[str, Any]) -> tuple[Arm, ...]:
    """The arms that a configuration is: those of its digest, else the one that explains it best."""
    named = tuple(arm for arm in design.arms if arm.digest == digest)
    alike = [
        arm for arm in design.arms if not arm.digest and arm.overrides and matches(leaves, arm.overrides, strict=True)
    ]
    if named or not alike:
        return named
    return (min(alike, key=lambda arm: (_unexplained(design, arm, leaves), -len(arm.overrides))),)


def _unexplained(design: Design, arm: Arm, leaves: Mapping[str, Any]) -> int:
    """Values that neither the centre nor the arm's overrides account for."""
    wanted = {**design.centre, **arm.overrides}
    return sum(path in wanted and not same(value, wanted[path]) for path, value in leaves.items())


def _order(design: Design, setting: Setting) -> tuple[Any, ...]:
    names = [arm.name for arm in design.arms]
    if setting.arm is not None:
        return (2, names.index(setting.arm) if setting.arm in names else len(names), (), setting.label)
    if setting.cells:
        return (0 if setting.is_centre else 1, setting.cells[0].place, (), setting.label)
    ranks = []
    for factor in design.factors:
        value = setting.leaves.get(factor.path)
        ranks.append(next((rank for rank, level in enumerate(factor.values) if same(level, value)), -1))
    first = next((i for i, factor in enumerate(design.factors) if factor.path in setting.changed), -1)
    return (0 if setting.is_centre else 1, len(setting.changed), (first, *ranks), setting.label)

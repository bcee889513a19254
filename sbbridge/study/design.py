"""The ablation: a balanced design around a centre, rivals, and the search's best on fresh seeds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study.definition import BEST_PATH, Arm, Definition, Factor, Preset
from sbbridge.study.space import Point, Space, differences, resolve, value_at, with_path

SEARCH_SEED = 1000
"""The search's trainings never serve as the ablation's: its winner was chosen for how well this seed did."""


@dataclass(frozen=True)
class Centre:
    """Where an ablation stands.

    Attributes:
        tree: its configuration.
        point: its levels of what was searched; empty for a preset's own.
        evaluations: network evaluations of its training, None before they are known.
        best_path: levels of the search's best path, for the factor "path"; empty where there is none.
        finalists: (network calls, the point that was best at no more than these).
    """

    tree: Mapping[str, Any]
    point: Point = field(default_factory=dict)
    evaluations: int | None = None
    best_path: Point = field(default_factory=dict)
    finalists: tuple[tuple[int, Point], ...] = ()

    @classmethod
    def read(cls, held: Mapping[str, Any], space: Space) -> "Centre":
        """What `as_json` wrote, into study.json; older studies have the winner's configuration and not its levels."""
        finalists = tuple((int(entry["nfe"]), entry["point"]) for entry in held.get("finalists", ()))
        point = held.get("point")
        if point is None:
            point = space.point_of(held["config"]) if held.get("chosen_by") == "search" else {}
        return cls(held["config"], point, held["evaluations"], held.get("best_path") or {}, finalists)

    def as_json(self) -> dict[str, Any]:
        """For study.json."""
        return {
            "config": self.tree, "digest": config.digest(self.tree), "point": dict(self.point),
            "evaluations": self.evaluations, "best_path": dict(self.best_path),
            "finalists": [{"nfe": nfe, "point": dict(point)} for nfe, point in self.finalists],
        }  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A configuration of the balanced design: its levels of the factors that are varied, and of all that matters."""

    levels: Mapping[str, Any]
    point: Point


def ablation_cells(space: Space, preset: Preset, centre: Centre) -> list[Cell]:
    """The centre, each factor alone, and the grid; the same levels once."""
    whole = _whole(space, preset)
    named = {factor.path: factor for factor in preset.factors}
    stands = {path: _centre_level(whole, factor, centre) for path, factor in named.items()}
    levels = {path: factor.levels(stands[path]) for path, factor in named.items()}
    changes: list[dict[str, Any]] = [{}]
    crossed = preset.grid if "path" in preset.grid else ()  # around a grid that the centre may not stand in
    for path, factor in named.items():
        alone = stands[path] is not None and path not in crossed
        if alone and whole.matters(factor, whole.complete(centre.point)):
            changes += [{path: level} for level in levels[path] if level != stands[path]]
    if preset.grid:
        changes += [
            dict(zip(preset.grid, chosen, strict=True)) for chosen in product(*(levels[path] for path in preset.grid))
        ]
    unique: dict[tuple[str, ...], Cell] = {}
    for change in changes:
        point = _point(whole, centre, change)
        held = {**whole.complete(point), **({"path": stands["path"]} if "path" in stands else {}), **change}
        found = {path: held.get(path) for path in named}  # what does nothing there has no level, unless it is crossed
        unique.setdefault(tuple(str(level) for level in found.values()), Cell(found, point))
    return list(unique.values())


def cell_tree(space: Space, preset: Preset, centre: Centre, cell: Cell) -> dict[str, Any]:
    """A cell's configuration."""
    return dict(centre.tree) if cell.point == centre.point else _whole(space, preset).tree(cell.point)


def _whole(space: Space, preset: Preset) -> Space:
    """The searched factors, and those that are ablated alone; conditions are those of the search."""
    searched = {factor.path for factor in space.factors}
    return replace(space, factors=(*space.factors, *(f for f in preset.factors if f.path not in searched)))


def _point(whole: Space, centre: Centre, changed: Point) -> Point:
    """The centre's point with some levels changed, and with what these need and bring."""
    if not changed:
        return centre.point
    named = {factor.path: factor for factor in whole.factors}
    brought: dict[str, Any] = {}
    if "path" in changed:
        best = centre.best_path if changed["path"] == BEST_PATH else {}
        brought = {**named["path"].brings.get(changed["path"], {}), **best}
    wanted = {**(centre.point or whole.complete({})), **changed, **brought}
    for path in changed:
        wanted = whole.meeting(named[path], wanted, held={*changed, *brought})
    return whole.complete(wanted)


def _centre_level(whole: Space, factor: Factor, centre: Centre) -> Any:
    if factor.path == "path":  # a winner of another student or number of steps is none of the levels
        made = {level: whole.tree(_point(whole, centre, {"path": level})) for level in factor.values}
        return next((level for level, tree in made.items() if tree == centre.tree), None)
    if factor.path in centre.point:
        return centre.point[factor.path]
    if factor.multiple_of:
        return whole.multiple(factor, centre.tree)
    return value_at(centre.tree, factor.path)


def arm_tree(space: Space, arm: Arm, centre: Centre) -> dict[str, Any]:
    """An arm's whole configuration, with its budget matched to the centre's where that is known.

    Raises:
        ConfigurationError: the arm is a denoiser's training, and the centre so changed has none; or a fit costs more
            than the centre's whole training.
    """
    start = space.tree({}) if arm.of_preset else centre.tree
    tree = resolve(space.type_, start, arm.overrides)
    total = centre.evaluations or value_at(tree, "training.budget")
    if arm.own_path is not None:
        tree = with_path(space.type_, tree, (arm.own_path,))
    if arm.matched and total:
        tree = resolve(space.type_, tree, _matched(space.type_, arm, tree, int(total)))
    if not arm.denoiser:
        return tree
    wanted = denoiser_tree(tree)
    if wanted is None:
        raise ConfigurationError(f"arm {arm.name}: method.denoiser.kind must be trained")
    return resolve(space.type_, wanted, {})


def _matched(type_: Any, arm: Arm, tree: Mapping[str, Any], total: int) -> dict[str, Any]:
    """The budget of a training; of a path's denoiser what its fit leaves of it."""
    if denoiser_tree(tree) is None:
        return {"training.budget": total}
    parsed = config.parse(type_, tree)
    left = total - parsed.method.cost(parsed.training.batch_size)
    if left <= 0:
        raise ConfigurationError(f"arm {arm.name}: its fit takes {total - left} network evaluations, the whole budget "
                                 f"is {total} (training.budget)")  # fmt: skip
    return {"method.denoiser.training.budget": left}


def finalists(centre: Centre) -> list[Arm]:
    """The search's best at no more than so many network calls, by name."""
    return [Arm(f"best of the search at NFE {nfe}", {}, family=None) for nfe, _ in centre.finalists]


def ablation_trees(space: Space, preset: Preset, centre: Centre) -> Iterator[dict[str, Any]]:
    """Every configuration of the ablation, once; fields before the paths that are fitted for them."""
    cells = [cell_tree(space, preset, centre, cell) for cell in ablation_cells(space, preset, centre)]
    arms = [arm_tree(space, arm, centre) for arm in preset.arms]
    best = [space.tree(point) for _, point in centre.finalists]
    trees = {config.digest(tree): tree for tree in (*cells, *arms, *best)}
    if preset.own_path is None:
        yield from trees.values()
    else:
        yield from sorted(trees.values(), key=lambda tree: denoiser_tree(tree) is not None)


def denoiser_tree(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of the training that a trial's denoiser comes from, None where it needs none."""
    if tree["method"]["kind"] != "ldsb" or tree["method"]["denoiser"]["kind"] != "trained":
        return None
    denoiser = tree["method"]["denoiser"]
    return {
        **tree, "method": denoiser["method"], "network": denoiser["network"],
        "training": denoiser["training"],
    }  # fmt: skip


def denoiser_trees(space: Space, preset: Preset) -> list[dict[str, Any]]:
    """The trainings of every denoiser that search and ablation will ask for, each once.

    None where the search itself chooses what is trained, nor of arms with fields of their own: such a field is trained
    when the first path asks for it.
    """
    if preset.own_path is not None:
        return []
    base, type_ = space.base, space.type_
    varied = [f for f in (*preset.space, *preset.factors) if f.path.startswith(("method.denoiser", "reference"))]
    values: dict[str, tuple[Any, ...]] = {}
    for factor in varied:
        values[factor.path] = (*values.get(factor.path, ()), *factor.values)
    cells = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    centre = Centre(base, {})
    trees = [*(resolve(type_, base, change) for change in cells),
             *(arm_tree(space, replace(arm, denoiser=False), centre) for arm in preset.arms if arm.own_path is None),
    ]  # fmt: skip
    found = {config.digest(wanted): wanted for tree in trees if (wanted := denoiser_tree(tree)) is not None}
    return [resolve(type_, tree, {}) for tree in found.values()]


def design_json(definition: Definition, preset: Preset, space: Space, centre: Centre | None) -> dict[str, Any]:
    """The design as study.json keeps it; its cells once there is a centre."""
    whole = _whole(space, preset)
    factors = []
    for factor in preset.factors:
        levels = factor.levels(_centre_level(whole, factor, centre)) if centre else factor.values
        factors.append({"path": factor.path, "label": factor.label, "values": list(levels),
                        "multiple_of": factor.multiple_of})  # fmt: skip
    arms = [_arm_json(space, arm, centre) for arm in preset.arms]
    cells = []
    if centre:
        for cell in ablation_cells(space, preset, centre):
            tree = cell_tree(space, preset, centre, cell)
            wanted = whole.assignments(tree, cell.point or None)
            cells.append({"digest": config.digest(tree), "levels": dict(cell.levels), "set": wanted})
        for (nfe, point), arm in zip(centre.finalists, finalists(centre), strict=True):
            tree = space.tree(point)
            arms.append({"name": arm.name, "overrides": {}, "family": None, "table": None, "nfe": nfe,
                         "digest": config.digest(tree), "set": space.assignments(tree, point)})  # fmt: skip
    named = {f"centre_{what}": getattr(preset, f"centre_{what}") for what in ("name", "family", "table")}
    return {
        "factors": factors, "grid": list(preset.grid) or None, "cells": cells, "arms": arms,
        "baseline": dict(definition.baseline), **{key: value for key, value in named.items() if value},
    }  # fmt: skip


def _arm_json(space: Space, arm: Arm, centre: Centre | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": arm.name, "overrides": dict(arm.overrides), "family": arm.family, "table": arm.table,
    }  # fmt: skip
    if centre is None:
        return told
    tree = arm_tree(space, arm, centre)
    budget = {key: value for key in ("training.budget", "method.denoiser.training.budget")
              if arm.matched and (value := value_at(tree, key)) is not None}  # fmt: skip
    whole_tree = arm.of_preset or arm.own_path is not None
    moved = differences(space.type_, centre.tree, tree) if whole_tree else {**arm.overrides, **budget}
    wanted = space.assignments(tree)
    return {**told, "overrides": moved, "digest": config.digest(tree), "set": wanted}


def space_json(preset: Preset) -> list[dict[str, Any]]:
    """The searched space as study.json keeps it."""
    return [
        {"path": f.path, "label": f.label, "values": list(f.values), "multiple_of": f.multiple_of,
         "only_if": [{path: list(levels) for path, levels in when.items()} for when in f.only_if]}
        for f in preset.space
    ]  # fmt: skip


def check_space(space: Space, factors: Sequence[Factor]) -> None:
    """Resolves every single choice where it matters, so that no impossible value is found hours later.

    Raises:
        ConfigurationError: a choice that the configuration does not allow.
    """
    whole = replace(space, factors=(*space.factors, *(f for f in factors if f not in space.factors)))
    start = whole.complete({})
    for factor in whole.factors:
        for value in factor.values:
            point = whole.complete({**whole.meeting(factor, start), factor.path: value})
            try:
                whole.tree(point)
            except ConfigurationError as error:
                raise ConfigurationError(f"{factor.label} = {value}: {error}") from None

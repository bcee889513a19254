"""From presets to jobs: the searched space, and the balanced design around a centre."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study.definition import Arm, Definition, Factor, Preset

SEARCH_SEED = 1000
"""The search's trainings never serve as the ablation's: its winner was chosen for how well this seed did."""


def value_at(tree: Mapping[str, Any], path: str) -> Any:
    """The value at a path, or None."""
    node: Any = tree
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def resolve(type_: Any, tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The whole tree after changes, validated; errors name the field."""
    return config.dump(config.parse(type_, config.override(tree, changes)))


@dataclass(frozen=True)
class Space:
    """The searched space as Optuna's define-by-run function; a class, because Ray pickles it.

    Attributes:
        factors: categorical choices; "nfe" and "sampler" choose among what one training's evaluation has measured.
    """

    factors: tuple[Factor, ...]

    def __call__(self, trial: Any) -> dict[str, Any]:
        """Suggests every factor that matters given those before it."""
        chosen: dict[str, Any] = {}
        for factor in self.factors:
            if factor.only_if is None or chosen.get(factor.only_if[0]) == factor.only_if[1]:
                chosen[factor.path] = trial.suggest_categorical(factor.path, list(factor.values))
        return {"choices": chosen, "optuna_number": trial.number}


def ablation_cells(preset: Preset, centre: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Changes of the centre's configuration, one a cell: the centre, each factor alone, and the grid; no doubles."""
    levels = {factor.path: factor.levels(value_at(centre, factor.path)) for factor in preset.factors}
    cells: list[dict[str, Any]] = [{}]
    for factor in preset.factors:
        if factor.only_if is None or value_at(centre, factor.only_if[0]) == factor.only_if[1]:
            cells += [{factor.path: level} for level in levels[factor.path]]
    if preset.grid:
        cells += [
            dict(zip(preset.grid, pair, strict=True)) for pair in product(*(levels[path] for path in preset.grid))
        ]
    unique: dict[tuple[Any, ...], dict[str, Any]] = {}
    for cell in cells:
        changed = {path: value for path, value in cell.items() if value != value_at(centre, path)}
        unique.setdefault(tuple(sorted((path, str(value)) for path, value in changed.items())), changed)
    return list(unique.values())


def arm_changes(arm: Arm, centre_evaluations: int | None) -> dict[str, Any]:
    """What an arm changes, with its budget matched to the centre's where that is known."""
    budget = {"training.budget": centre_evaluations} if arm.matched and centre_evaluations else {}
    return {**arm.overrides, **budget}


def arm_tree(type_: Any, arm: Arm, centre: Mapping[str, Any], centre_evaluations: int | None) -> dict[str, Any]:
    """An arm's whole configuration.

    Raises:
        ConfigurationError: the arm is a denoiser's training, and the centre so changed has none.
    """
    tree = resolve(type_, centre, arm_changes(arm, centre_evaluations))
    if not arm.denoiser:
        return tree
    wanted = denoiser_tree(tree)
    if wanted is None:
        raise ConfigurationError(f"arm {arm.name}: method.denoiser.kind must be trained")
    return resolve(type_, wanted, {})


def ablation_trees(type_: Any, preset: Preset, centre: Mapping[str, Any],
                   centre_evaluations: int | None) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Every configuration of the ablation, once."""
    seen = set()
    cells = (resolve(type_, centre, change) for change in ablation_cells(preset, centre))
    arms = (arm_tree(type_, arm, centre, centre_evaluations) for arm in preset.arms)
    for tree in (*cells, *arms):
        if (digest := config.digest(tree)) not in seen:
            seen.add(digest)
            yield tree


def denoiser_tree(tree: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of the training that a trial's denoiser comes from, None where it needs none."""
    if tree["method"]["kind"] != "ldsb" or tree["method"]["denoiser"]["kind"] != "trained":
        return None
    denoiser = tree["method"]["denoiser"]
    return {
        **tree, "method": denoiser["method"], "network": denoiser["network"],
        "training": denoiser["training"],
    }  # fmt: skip


def denoiser_trees(type_: Any, preset: Preset, base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trainings of every denoiser that the search or the ablation may ask for, each once."""
    varied = [f for f in (*preset.space, *preset.factors) if f.path.startswith(("method.denoiser", "reference"))]
    values: dict[str, tuple[Any, ...]] = {}
    for factor in varied:
        values[factor.path] = (*values.get(factor.path, ()), *factor.values)
    cells = [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]
    trees = [resolve(type_, base, change) for change in (*cells, *(arm.overrides for arm in preset.arms))]
    found = {config.digest(wanted): wanted for tree in trees if (wanted := denoiser_tree(tree)) is not None}
    return [resolve(type_, tree, {}) for tree in found.values()]


def design_json(type_: Any, definition: Definition, preset: Preset, centre: Mapping[str, Any] | None,
                centre_evaluations: int | None) -> dict[str, Any]:  # fmt: skip
    """The design as study.json keeps it."""
    factors = [
        {"path": f.path, "label": f.label, "values": list(f.levels(value_at(centre, f.path)) if centre else f.values)}
        for f in preset.factors
    ]
    arms = []
    for arm in preset.arms:
        changes = arm_changes(arm, centre_evaluations)
        known = {"digest": config.digest(arm_tree(type_, arm, centre, centre_evaluations))} if centre else {}
        arms.append({"name": arm.name, "overrides": changes, "family": arm.family, "table": arm.table, **known})
    named = {f"centre_{what}": getattr(preset, f"centre_{what}") for what in ("name", "family", "table")}
    return {
        "factors": factors, "grid": list(preset.grid) if preset.grid else None, "arms": arms,
        "baseline": dict(definition.baseline), **{key: value for key, value in named.items() if value},
    }  # fmt: skip


def space_json(preset: Preset) -> list[dict[str, Any]]:
    """The searched space as study.json keeps it."""
    return [
        {key: value for key, value in asdict(f).items() if key in ("path", "label", "values")} for f in preset.space
    ]


def check_preset(type_: Any, preset: Preset, tree: Mapping[str, Any]) -> None:
    """Resolves every single choice of the space, so that no impossible value is found hours later.

    Raises:
        ConfigurationError: a choice that the configuration does not allow.
    """
    for factor in (*preset.space, *preset.factors):
        for value in factor.values:
            if factor.path not in ("nfe", "sampler"):
                try:
                    resolve(type_, tree, {factor.path: value})
                except ConfigurationError as error:
                    raise ConfigurationError(f"{factor.label} = {value}: {error}") from None

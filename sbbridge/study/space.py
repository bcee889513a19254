"""A space of proposals: which factor matters when, and the configuration that a choice of levels makes."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, TypeAlias

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study.definition import Factor, Preset, When

Point: TypeAlias = Mapping[str, Any]
"""{a factor's path: its level}, of the factors that matter at it."""
PATH_KINDS = ("kan", "efficient_kan", "ratio_mlp", "table")
"""Networks of a path; others are of a field."""


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
    """Factors over a base configuration.

    Attributes:
        type_: of the configuration.
        base: what the levels change; without a path of its own, where the search may choose one.
        factors: in the order in which conditions are looked at; of a path only the first counts.
        nfe: network calls at which a proposal is judged that names no number of them.
        own_path: see `Preset.own_path`, one after the other; the user's settings of the path come last.
        fixed: {"method.kind": ldsb} where the user wants a path of its own in every trial.
        said: what the user has set, all of it.
        shipped: the base without that, where they differ.
    """

    type_: Any
    base: Mapping[str, Any]
    factors: tuple[Factor, ...]
    nfe: int = 10
    own_path: tuple[Mapping[str, Any], ...] | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    shipped: Mapping[str, Any] | None = None

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Asks Optuna's trial for the level of every factor that matters given those before it."""
        chosen: dict[str, Any] = {}
        for factor in self.factors:
            if self.matters(factor, chosen):
                chosen[factor.path] = trial.suggest_categorical(factor.path, list(factor.values))
        return chosen

    def complete(self, partial: Point) -> dict[str, Any]:
        """A whole point: what matters of the partial one, the base's levels where it leaves them open."""
        chosen: dict[str, Any] = {}
        for factor in self.factors:
            if factor.path in chosen or not self.matters(factor, chosen):
                continue
            level = partial.get(factor.path, self.level(factor))
            if level is not None:  # options of another kind than the base's: their own defaults
                chosen[factor.path] = level
        return chosen

    def matters(self, factor: Factor, chosen: Point) -> bool:
        """Whether a factor does anything beside these levels."""
        return not factor.only_if or any(self._holds(when, chosen) for when in factor.only_if)

    def meeting(self, factor: Factor, point: Point, held: Collection[str] = ()) -> dict[str, Any]:
        """The point with other levels that make the factor matter: the first that its conditions name.

        Args:
            factor: it is left without meaning where only levels that are held could change that.
            point: whatever it is.
            held: paths whose levels stay.
        """
        if self.matters(factor, point):
            return dict(point)
        for when in factor.only_if:
            missing = {path: levels[0] for path, levels in when.items() if self._chosen(path, point) not in levels}
            if not set(missing) & set(held):
                return {**point, **missing}
        return dict(point)

    def level(self, factor: Factor) -> Any:
        """The base's level of a factor; None where its configuration has none."""
        if factor.path == "nfe" or (self.own_path is not None and factor.path == "method.num_steps"):
            nearest = [value for value in factor.values if value <= self.nfe]
            return max(nearest, default=factor.values[0])
        if not factor.configured:  # an ablation's path is a name for other levels: alone, it moves none of them
            return None if factor.path == "path" else factor.values[0]
        value = self.held(factor.path)
        return value if value is None or factor.multiple_of is None else self.multiple(factor, self.with_path)

    def multiple(self, factor: Factor, tree: Mapping[str, Any]) -> Any:
        """The level of a factor in multiples that a configuration has; its ratio where it is none of the levels."""
        value, unit = value_at(tree, factor.path), value_at(tree, factor.multiple_of or "")
        if value is None or not unit:
            return None
        return next((level for level in factor.values if _times(level, unit) == value), value / unit)

    def point_of(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """The levels that a configuration of this space has."""
        found: dict[str, Any] = {}
        for factor in self.factors:
            level = self.multiple(factor, tree) if factor.multiple_of else value_at(tree, factor.path)
            if level is not None and self.matters(factor, found):
                found[factor.path] = level
        return found

    def changes(self, point: Point) -> dict[str, Any]:
        """What the levels change in the configuration, with what they bring; multiples in numbers."""
        named = {factor.path: factor for factor in self.factors}
        mine = {path: level for path, level in point.items() if path in named}
        wanted: dict[str, Any] = dict(self.fixed)
        for path, level in mine.items():
            if named[path].brings:  # a level that is a list brings nothing
                wanted |= named[path].brings.get(level, {})
        wanted |= {path: level for path, level in mine.items() if named[path].configured}
        for path, factor in named.items():
            if factor.multiple_of and path in wanted:
                unit = wanted.get(factor.multiple_of, self.held(factor.multiple_of))
                wanted[path] = _times(wanted[path], unit)
        return wanted

    def tree(self, point: Point) -> dict[str, Any]:
        """The configuration of a point, validated.

        Raises:
            ConfigurationError: levels that do not go together.
        """
        changes = self.changes(point)
        if self.own_path is None:
            return resolve(self.type_, self.base, changes)
        kind = changes.pop("method.kind", value_at(self.base, "method.kind"))
        of_path = {path: value for path, value in changes.items() if self.is_of_path(path, value)}
        tree = resolve(self.type_, self.base, {p: v for p, v in changes.items() if p not in of_path})
        return resolve(self.type_, self._wrapped(tree), of_path) if kind == "ldsb" else tree

    def judged_at(self, point: Point) -> int:
        """Network calls at which a point is judged."""
        steps = point.get("method.num_steps", self.nfe) if self.own_path is not None else self.nfe
        return int(point.get("nfe", steps))

    def is_of_path(self, path: str, value: Any = None) -> bool:
        """Whether a change belongs to the path of its own and not to the field that it is fitted for."""
        if self.own_path is None or path == "method.kind":
            return False
        root, _, rest = path.partition(".")
        if path == "network.kind":
            return value in PATH_KINDS
        head = f"{root}.{rest.partition('.')[0]}"
        known = value_at(self.with_path, head) is not None
        return root in ("method", "network") and known and value_at(self.base, head) is None

    def assignments(self, tree: Mapping[str, Any], point: Point | None = None) -> dict[str, Any]:
        """The `--set` values that make this configuration out of the preset, few where that is easily found."""
        base = self.base if self.shipped is None else self.shipped
        if point is not None:
            wanted = self.changes(point)
            few = {path: value for path, value in wanted.items() if value != value_at(base, path)}
            for found in (few, {**self.said, **few}, {**self.said, **wanted}):
                if self._made_of(base, found) == tree:
                    return found
        return differences(self.type_, base, tree)

    def _made_of(self, base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any] | None:
        """What these settings make of a preset's base."""
        plain = tuple(Factor(path, path, (value,)) for path, value in changes.items())
        own_path = None if self.own_path is None else self.own_path[:1]
        try:
            return Space(self.type_, base, plain, self.nfe, own_path).tree(changes)
        except ConfigurationError:
            return None

    def _holds(self, when: When, chosen: Point) -> bool:
        return all(self._chosen(path, chosen) in levels for path, levels in when.items())

    def _chosen(self, path: str, chosen: Point) -> Any:
        """The level at a path: a searched one that does not matter here is none."""
        if path in chosen:
            return chosen[path]
        return None if any(factor.path == path for factor in self.factors) else self.held(path)

    def held(self, path: str) -> Any:
        """The base's value at a path of the configuration; networks are a path's own where there may be one."""
        if path in self.fixed:
            return self.fixed[path]
        trees = (self.with_path, self.base) if path.startswith("network.") else (self.base, self.with_path)
        return next((value for tree in trees if (value := value_at(tree, path)) is not None), None)

    @cached_property
    def with_path(self) -> Mapping[str, Any]:
        """The base with a path of its own; the base itself where there may be none."""
        return self.base if self.own_path is None else self._wrapped(self.base)

    def _wrapped(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        return with_path(self.type_, tree, self.own_path or ())


def with_path(type_: Any, tree: Mapping[str, Any], own_path: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A path of its own for the field that a configuration trains.

    Args:
        type_: of the configuration.
        tree: of the field.
        own_path: changes of LDSB's defaults, one after the other.
    """
    denoiser = {
        "kind": "trained", "method": tree["method"], "network": tree["network"], "training": _options(tree),
    }  # fmt: skip
    path = {**tree, "method": {"kind": "ldsb", "denoiser": denoiser}, "network": {"kind": "efficient_kan"},
            "training": {}}  # fmt: skip
    for changes in ({}, *own_path):
        path = resolve(type_, path, changes)
    return path


def search_space(type_: Any, preset: Preset, base: Mapping[str, Any], fixed: Mapping[str, Any],
                 of_path: Mapping[str, Any]) -> Space:  # fmt: skip
    """What the preset's search proposes, with what the user has set of a path and whether there is one."""
    own_path = None if preset.own_path is None else (preset.own_path, of_path)
    return Space(type_, base, preset.space, preset.centre_nfe, own_path, fixed)


def differences(type_: Any, base: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """{path: value} that makes one resolved configuration out of another; a branch of another kind starts afresh."""
    found: dict[str, Any] = {}
    made: Mapping[str, Any] = base
    for _ in range(8):  # options of a new kind show only once it is there
        further = _different(made, tree, found)
        if not further:
            break
        found |= further
        try:
            made = resolve(type_, base, found)
        except ConfigurationError:  # it needs options that are still missing
            made = config.override(base, found)
    return found


def _different(made: Mapping[str, Any], tree: Mapping[str, Any], found: Mapping[str, Any],
               prefix: str = "") -> dict[str, Any]:  # fmt: skip
    """What is not yet as in the tree: leaves; whole branches where there are none, or inside of what began afresh."""
    if tree.get("kind") != made.get("kind"):
        return {f"{prefix}kind": tree["kind"]}
    mine: dict[str, Any] = {}
    began = f"{prefix}kind" in found
    for key, value in tree.items():
        held = made.get(key)
        if isinstance(value, Mapping) and isinstance(held, Mapping) and not began:
            mine |= _different(held, value, found, f"{prefix}{key}.")
        elif held != value:
            mine[f"{prefix}{key}"] = value
    return mine


def _times(level: float, unit: float) -> int:
    return math.ceil(level * unit - 1e-9)


def _options(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A field's training as a denoiser's options.

    Raises:
        ConfigurationError: it has what these lack.
    """
    from sbbridge.methods.denoisers import TrainingOptions
    from sbbridge.training import Training

    known, usual = {option.name for option in fields(TrainingOptions)}, config.dump(Training())
    for name, value in tree["training"].items():
        if name not in known and value != usual[name]:
            raise ConfigurationError(f"training.{name}: a field that paths may be fitted for keeps {usual[name]!r} "
                                     f"(allowed: {', '.join(sorted(known))})")  # fmt: skip
    return {name: value for name, value in tree["training"].items() if name in known}

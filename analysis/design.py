"""The ablation's design: which setting a run belongs to, and which setting is its baseline."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis import formats
from sbbridge.records import flatten_config

_OF_ARMS = ("family", "table", "digest")


@dataclass(frozen=True)
class Factor:
    """One thing that the ablation varies: its path in the configuration, its name for people, its levels."""

    path: str
    label: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Arm:
    """A rival outside the factor grid.

    Attributes:
        name: for people.
        overrides: the configuration values that make it out of the centre.
        family: rivals of one family are tunings of one method.
        table: the table that it belongs to; None: the table of methods.
        digest: its configuration's, where the study wrote it; without it, runs are matched by the overrides.
    """

    name: str
    overrides: Mapping[str, Any]
    family: str | None = None
    table: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class Design:
    """What study.json says was to be compared.

    Attributes:
        factors: what is varied around the centre.
        grid: the paths of the two factors that are crossed in full; empty without such a pair.
        arms: rivals outside the grid.
        baseline: configuration values that turn a setting into the one it is compared with.
        centre: the centre's configuration by path; empty before one was chosen.
        centre_arm: the centre as a rival: its name, family, table and digest.
    """

    factors: tuple[Factor, ...]
    grid: tuple[str, ...]
    arms: tuple[Arm, ...]
    baseline: Mapping[str, Any]
    centre: Mapping[str, Any]
    centre_arm: Arm = Arm("centre", {})

    @property
    def baseline_label(self) -> str:
        """The baseline in words: "coupling = independent"."""
        names = {factor.path: factor.label for factor in self.factors}
        parts = [f"{names.get(path, path)} = {formats.level(value)}" for path, value in self.baseline.items()]
        return ", ".join(parts) or "none named"

    def factor(self, path: str) -> Factor | None:
        """The factor at a path."""
        return next((factor for factor in self.factors if factor.path == path), None)


@dataclass(frozen=True)
class Setting:
    """One configuration of the ablation, run with several seeds.

    Attributes:
        digest: its configuration's digest.
        label: its name for people, by what sets it apart from the centre.
        method: the method's kind.
        leaves: its configuration by path.
        arm: the rival's name, None for a setting of the factor design.
        changed: paths of the factors whose level is not the centre's.
        is_baseline: whether other settings are compared with it.
        arms: every arm of the design that has this configuration, the centre among them.
    """

    digest: str
    label: str
    method: str
    leaves: Mapping[str, Any]
    arm: str | None
    changed: frozenset[str]
    is_baseline: bool = False
    arms: tuple[Arm, ...] = ()

    @property
    def family(self) -> str | None:
        """The family that it is a tuning of."""
        return next((arm.family for arm in self.arms if arm.family), None)

    def name_in(self, table: str) -> str | None:
        """Its name in a table of arms, None where it has no row there."""
        return next((arm.name for arm in self.arms if arm.table == table), None)

    @property
    def is_centre(self) -> bool:
        """Whether this is the centre itself."""
        return self.arm is None and not self.changed


def read_design(study: Mapping[str, Any]) -> Design:
    """The design of study.json; parts that are absent are empty."""
    design = study.get("design") or {}
    factors = tuple(
        Factor(item["path"], item.get("label") or item["path"], tuple(item.get("values") or ()))
        for item in design.get("factors") or ()
    )
    arms = tuple(
        Arm(item["name"], flatten_config(item.get("overrides") or {}), *(item.get(name) for name in _OF_ARMS))
        for item in design.get("arms") or ()
    )
    chosen = study.get("centre") or {}
    centre = chosen.get("config") or study.get("base") or {}
    family = design.get("centre_family")
    name = design.get("centre_name") or (f"{family} (centre)" if family else "centre")
    centre_arm = Arm(name, {}, family, design.get("centre_table"), chosen.get("digest"))
    baseline = flatten_config(design.get("baseline") or {})
    return Design(factors, tuple(design.get("grid") or ()), arms, baseline, flatten_config(centre), centre_arm)


def place_settings(design: Design, runs: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """The settings of the ablation's runs, centre first, then levels in the design's order, then arms."""
    by_digest = {str(run["digest"]): run for run in runs}
    settings = [_place(design, digest, run) for digest, run in by_digest.items()]
    finder = Baselines(design, settings)
    baselines = {found.digest for setting in settings if (found := finder.of(setting))}
    settings = [replace(setting, is_baseline=setting.digest in baselines) for setting in settings]
    return sorted(settings, key=lambda setting: _order(design, setting))


class Baselines:
    """Finds the setting that a setting is compared with."""

    def __init__(self, design: Design, settings: Sequence[Setting]) -> None:
        self.design, self.settings = design, settings
        self._paths = tuple(dict.fromkeys([*(factor.path for factor in design.factors), *design.baseline]))
        self._named = next((other for other in settings if any(_is_baseline(design, arm) for arm in other.arms)), None)
        levels = [other for other in settings if other.arm is None] if design.baseline else []
        # Nearest to the centre first. Those without a level of some factor may stand for any of it: they are few.
        self._levels: dict[tuple[str | None, ...], tuple[int, Setting]] = {}
        self._open: list[tuple[tuple[str | None, ...], int, Setting]] = []
        for rank, other in enumerate(sorted(levels, key=lambda other: len(other.changed))):
            if matches(other.leaves, design.baseline, strict=True):
                key = self._key(other.leaves)
                if None in key:
                    self._open.append((key, rank, other))
                else:
                    self._levels.setdefault(key, (rank, other))

    def of(self, setting: Setting) -> Setting | None:
        """The same levels with the baseline's values in place.

        The centre's levels stand in where no run has this setting's own (an arm, or a factor that the baseline lacks);
        then comes an arm that changes what the baseline changes and nothing else, last the arm with the baseline's
        values that differs least from this setting among those of its table.
        """
        design = self.design
        if not design.baseline:
            return None
        for levels in (setting.leaves if setting.arm is None else {}, design.centre):
            found = self._nearest(self._key({**levels, **design.baseline}))
            if found is not None:
                return found
        return self._named or _baseline_in_table(design, self.settings, setting)

    def _nearest(self, wanted: tuple[str | None, ...]) -> Setting | None:
        exact = [self._levels[wanted]] if wanted in self._levels else []
        held = [(rank, other) for key, rank, other in self._open if _agree(key, wanted)]
        if None in wanted:
            held += [found for key, found in self._levels.items() if _agree(key, wanted)]
        return min([*exact, *held], key=lambda found: found[0], default=(0, None))[1]

    def _key(self, leaves: Mapping[str, Any]) -> tuple[str | None, ...]:
        return tuple(_level_key(leaves.get(path)) for path in self._paths)


def _agree(key: tuple[str | None, ...], wanted: tuple[str | None, ...]) -> bool:
    return all(left is None or right is None or left == right for left, right in zip(key, wanted, strict=True))


def _level_key(value: Any) -> str | None:
    """A text that two values share where they are the `same`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.9g}"
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _baseline_in_table(design: Design, settings: Sequence[Setting], setting: Setting) -> Setting | None:
    tables = {arm.table for arm in setting.arms if arm.table}
    found = [
        other for other in settings
        if tables & {arm.table for arm in other.arms} and matches(other.leaves, design.baseline, strict=True)
    ]  # fmt: skip
    return min(found, key=lambda other: _departures(setting.leaves, other.leaves), default=None)


def _departures(leaves: Mapping[str, Any], others: Mapping[str, Any]) -> int:
    """How many values that both have differ."""
    both = [path for path, value in leaves.items() if value is not None and others.get(path) is not None]
    return sum(not same(leaves[path], others[path]) for path in both)


def _is_baseline(design: Design, arm: Arm) -> bool:
    return set(arm.overrides) == set(design.baseline) and matches(arm.overrides, design.baseline, strict=True)


def in_factor(setting: Setting, path: str) -> bool:
    """Whether a setting is a level of this factor with all others at the centre."""
    return setting.arm is None and setting.changed <= {path}


def same(left: Any, right: Any) -> bool:
    """Equality of two configuration values, whatever their number type."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right or (str(left).lower() == str(right).lower())
    if isinstance(left, int | float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=1e-9)
    return str(left) == str(right)


def _place(design: Design, digest: str, run: Mapping[str, Any]) -> Setting:
    leaves = flatten_config(json.loads(run["config_json"]))
    method = str(run["method"] or leaves.get("method.kind") or "unknown")
    arms = _arms_of(design, digest, leaves)
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


def matches(leaves: Mapping[str, Any], wanted: Mapping[str, Any], strict: bool) -> bool:
    """Whether a configuration has these values; where it has none, only if not strict."""
    return all(
        same(leaves[path], value) if leaves.get(path) is not None and value is not None else not strict
        for path, value in wanted.items()
    )


def _order(design: Design, setting: Setting) -> tuple[Any, ...]:
    names = [arm.name for arm in design.arms]
    if setting.arm is not None:
        return (2, names.index(setting.arm) if setting.arm in names else len(names), (), setting.label)
    ranks = []
    for factor in design.factors:
        value = setting.leaves.get(factor.path)
        ranks.append(next((rank for rank, level in enumerate(factor.values) if same(level, value)), -1))
    first = next((i for i, factor in enumerate(design.factors) if factor.path in setting.changed), -1)
    return (0 if setting.is_centre else 1, len(setting.changed), (first, *ranks), setting.label)

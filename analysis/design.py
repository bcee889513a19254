"""The ablation's design, as study.json says it, and the settings that it has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
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


def matches(leaves: Mapping[str, Any], wanted: Mapping[str, Any], strict: bool) -> bool:
    """Whether a configuration has these values; where it has none, only if not strict."""
    return all(
        same(leaves[path], value) if leaves.get(path) is not None and value is not None else not strict
        for path, value in wanted.items()
    )

"""The ablation's design, as study.json says it, and the settings that it has."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from analysis import formats
from sbbridge.records import flatten_config

OWN_PATH = "path"
"""The factor that is no place of the configuration: whether there is a path of its own, and which."""
_OF_ARMS = ("family", "table", "digest", "set", "nfe")


@dataclass(frozen=True)
class Factor:
    """One thing that the ablation varies.

    Attributes:
        path: in the configuration.
        label: for people.
        values: its levels, in order.
        multiple_of: levels are multiples of the value at this path, rounded up.
    """

    path: str
    label: str
    values: tuple[Any, ...]
    multiple_of: str | None = None


@dataclass(frozen=True)
class Cell:
    """A place in the factor design; several may have one configuration, where a factor does nothing.

    Attributes:
        digest: of its configuration.
        levels: of the factors, by path; None of one that does nothing here.
        assignments: the values that make its configuration out of the preset, None where they were not recorded.
        changed: paths of the factors whose level is not the centre's.
        place: in the design's order.
    """

    digest: str
    levels: Mapping[str, Any]
    assignments: Mapping[str, Any] | None = None
    changed: frozenset[str] = frozenset()
    place: int = 0


@dataclass(frozen=True)
class Arm:
    """A rival outside the factor grid.

    Attributes:
        name: for people.
        overrides: the configuration values that make it out of the centre.
        family: rivals of one family are tunings of one method.
        table: the table that it belongs to; None: the table of methods.
        digest: its configuration's, where the study wrote it; without it, runs are matched by the overrides.
        assignments: the values that make it out of the preset.
        nfe: network calls at no more than which it was the search's best.
    """

    name: str
    overrides: Mapping[str, Any]
    family: str | None = None
    table: str | None = None
    digest: str | None = None
    assignments: Mapping[str, Any] | None = None
    nfe: int | None = None


@dataclass(frozen=True)
class Design:
    """What study.json says was to be compared.

    Attributes:
        factors: what is varied around the centre.
        grid: the paths of the two or three factors that are crossed in full; empty without such.
        arms: rivals outside the grid.
        baseline: configuration values that turn a setting into the one it is compared with.
        centre: the centre's configuration by path; empty before one was chosen.
        centre_arm: the centre as a rival: its name, family, table and digest.
        cells: every place of the factor design, the centre first; empty in studies that do not list them.
    """

    factors: tuple[Factor, ...]
    grid: tuple[str, ...]
    arms: tuple[Arm, ...]
    baseline: Mapping[str, Any]
    centre: Mapping[str, Any]
    centre_arm: Arm = Arm("centre", {})
    cells: tuple[Cell, ...] = ()

    @property
    def baseline_label(self) -> str:
        """The baseline in words: "coupling = independent"."""
        names = {factor.path: factor.label for factor in self.factors}
        parts = [f"{names.get(path, path)} = {formats.level(value)}" for path, value in self.baseline.items()]
        return ", ".join(parts) or "none named"

    def factor(self, path: str) -> Factor | None:
        """The factor at a path."""
        return next((factor for factor in self.factors if factor.path == path), None)

    def label(self, path: str) -> str:
        """A factor's name for people, its path where it is none."""
        factor = self.factor(path)
        return factor.label if factor else path

    def told(self, changed: frozenset[str]) -> frozenset[str]:
        """The factors that tell a cell from the centre: what was changed, and what is crossed where it has none."""
        return changed | {path for path in self.grid if self.cells and self.cells[0].levels.get(path) is None}

    @property
    def can_run_alone(self) -> bool:
        """Whether it says how to run a configuration alone."""
        said = [arm.assignments for arm in (*self.arms, self.centre_arm)] + [cell.assignments for cell in self.cells]
        return any(one is not None for one in said)


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
        cells: every place that it has in the factor design, where the study lists them.
        cell: the one of them that it is looked at in.
    """

    digest: str
    label: str
    method: str
    leaves: Mapping[str, Any]
    arm: str | None
    changed: frozenset[str]
    is_baseline: bool = False
    arms: tuple[Arm, ...] = ()
    cells: tuple[Cell, ...] = ()
    cell: Cell | None = None

    def level(self, path: str) -> Any:
        """Its level of a factor; of several places that of the one it is looked at in, else of the nearest."""
        return self.held.get(path)

    @cached_property
    def held(self) -> Mapping[str, Any]:
        """Its configuration by path, with its levels of the factors where the study says them."""
        cell = self.cell or nearest(self.cells)
        return {**self.leaves, **cell.levels} if cell is not None else self.leaves

    def places(self) -> list["Setting"]:
        """Itself in each of its places; as it is where the study lists none."""
        return [replace(self, cell=cell, changed=cell.changed) for cell in self.cells] or [self]

    @property
    def place(self) -> tuple[str, int]:
        """What tells it from every other setting and place."""
        return self.digest, -1 if self.cell is None else self.cell.place

    @property
    def assignments(self) -> Mapping[str, Any] | None:
        """The values that make its configuration out of the preset, None where they were not recorded."""
        said = [cell.assignments for cell in self.cells] + [arm.assignments for arm in self.arms]
        return next((one for one in said if one is not None), None)

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
        Factor(item["path"], item.get("label") or item["path"], tuple(item.get("values") or ()),
               item.get("multiple_of"))
        for item in design.get("factors") or ()
    )  # fmt: skip
    arms = tuple(
        Arm(item["name"], flatten_config(item.get("overrides") or {}), *(item.get(name) for name in _OF_ARMS))
        for item in design.get("arms") or ()
    )
    chosen = study.get("centre") or {}
    centre = chosen.get("config") or study.get("base") or {}
    family = design.get("centre_family")
    name = design.get("centre_name") or (f"{family} (centre)" if family else "centre")
    centre_arm = Arm(name, {}, family, design.get("centre_table"), chosen.get("digest"), chosen.get("set"))
    baseline = flatten_config(design.get("baseline") or {})
    grid, cells = tuple(design.get("grid") or ()), _read_cells(design)
    return Design(factors, grid, arms, baseline, flatten_config(centre), centre_arm, cells)


def _read_cells(design: Mapping[str, Any]) -> tuple[Cell, ...]:
    listed = design.get("cells") or ()
    centre = listed[0] if listed else {}
    return tuple(
        Cell(str(item["digest"]), item["levels"], item.get("set"), _changed(centre, item), place)
        for place, item in enumerate(listed)
    )


def _changed(centre: Mapping[str, Any], cell: Mapping[str, Any]) -> frozenset[str]:
    """Where levels depart from the centre's.

    Not where a factor does nothing on either side, unless nothing else tells the two apart; and always of the path of
    its own: there a centre without a level is none of those that are compared.
    """
    apart = {path for path, level in cell["levels"].items() if not same(level, centre["levels"].get(path))}
    both = {
        path for path in apart
        if path == OWN_PATH or (cell["levels"][path] is not None and centre["levels"].get(path) is not None)
    }  # fmt: skip
    return frozenset(both or (apart if cell["digest"] != centre["digest"] else ()))


def nearest(cells: Sequence[Cell]) -> Cell | None:
    """The place that is nearest to the centre."""
    return min(cells, key=lambda cell: len(cell.changed), default=None)


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

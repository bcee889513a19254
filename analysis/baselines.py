"""Which setting a setting is compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.design import Arm, Design, Setting, matches, same


class Baselines:
    """Finds the setting that a setting is compared with."""

    def __init__(self, design: Design, settings: Sequence[Setting]) -> None:
        self.design, self.settings = design, settings
        self._paths = tuple(dict.fromkeys([*(factor.path for factor in design.factors), *design.baseline]))
        self._named = next((other for other in settings if any(_is_baseline(design, arm) for arm in other.arms)), None)
        levels = [place for other in settings if other.arm is None for place in other.places()]
        levels = levels if design.baseline else []
        self._centre = {**design.centre, **(design.cells[0].levels if design.cells else {})}
        # Nearest to the centre first. Those without a level of some factor may stand for any of it: they are few.
        self._levels: dict[tuple[str | None, ...], tuple[int, Setting]] = {}
        self._open: list[tuple[tuple[str | None, ...], int, Setting]] = []
        for rank, other in enumerate(sorted(levels, key=lambda other: len(other.changed))):
            if matches(other.held, design.baseline, strict=True):
                key = self._key(other.held)
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
        for levels in (setting.held if setting.arm is None else {}, self._centre):
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

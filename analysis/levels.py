"""The parameters of a study: the level of each that a configuration has, or that a trial of the search proposed."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import formats

OWN_PATH, _WITHOUT, _WITH = "method.kind", "asbm", "ldsb"
_FIELD = "method.denoiser."


@dataclass(frozen=True)
class Parameter:
    """Something that is searched.

    Attributes:
        path: in the configuration.
        label: for people.
        values: its levels, in order.
        only_if: {path: levels} that it is active beside; one of these has to hold, none is always.
        multiple_of: levels are multiples of the value at this path, rounded up.
    """

    path: str
    label: str
    values: tuple[Any, ...] = ()
    only_if: tuple[Mapping[str, Sequence[Any]], ...] = ()
    multiple_of: str | None = None

    def level(self, leaves: Mapping[str, Any]) -> Any:
        """A configuration's level, as it would have been proposed; None where the parameter is absent or inactive."""
        value = leaf(leaves, self.path)
        active = not self.only_if or any(
            all(leaf(leaves, path) in levels for path, levels in when.items()) for when in self.only_if
        )
        if value is None or not active:
            return None
        return value if self.multiple_of is None else multiple(value, leaf(leaves, self.multiple_of), self.values)

    def text(self, level: Any) -> str:
        """A level for people."""
        if self.path == OWN_PATH and set(self.values) <= {_WITHOUT, _WITH} and level is not None:
            return {_WITHOUT: "no", _WITH: "yes"}.get(str(level), formats.level(level))
        return formats.level(level)


def parameters(study: Mapping[str, Any]) -> dict[str, Parameter]:
    """{path: parameter} of the searched space."""
    return {
        str(item["path"]): Parameter(
            str(item["path"]), str(item.get("label") or item["path"]), tuple(item.get("values") or ()),
            tuple(_conditions(item.get("only_if"))), item.get("multiple_of"),
        )
        for item in study.get("space") or []
    }  # fmt: skip


def leaf(leaves: Mapping[str, Any], path: str) -> Any:
    """The value at a path; of a path of its own, for want of one, that of the field that it is fitted for."""
    value = leaves.get(path)
    return leaves.get(f"{_FIELD}{path}") if value is None and leaves.get(OWN_PATH) == _WITH else value


def multiple(value: Any, unit: Any, levels: Sequence[Any]) -> Any:
    """The multiple that makes a value, rounded up; their ratio where it is none of the levels."""
    if not unit:
        return None
    return next((level for level in levels if math.ceil(level * unit) == value), value / unit)


def proposed(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial of the search proposed: only the parameters that were active; empty where it was not recorded."""
    return dict(json.loads(run["optuna_choices"])) if run.get("optuna_choices") else {}


def _conditions(said: Any) -> list[Mapping[str, Sequence[Any]]]:
    return [when for when in said or () if isinstance(when, Mapping)]

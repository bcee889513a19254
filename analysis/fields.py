"""What a table's rows and columns may be: parts of the configuration, names of a run, and how it was sampled."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from analysis import formats
from analysis.errors import InputError, unknown
from analysis.results import Results
from sbbridge.records import flatten_config

SAMPLED = ("sampler", "grid")
MEASURED = ("nfe", *SAMPLED, "seed")
_OF_RUNS = ("setting", "method", "dataset")


class Fields:
    """The fields of one phase of one data set: their names, and the level that a configuration has of each."""

    def __init__(self, results: Results, phase: str) -> None:
        self.results = results
        self.phase = phase

    @cached_property
    def leaves(self) -> dict[str, dict[str, Any]]:
        """{digest: its configuration by path}."""
        texts = {str(run["digest"]): str(run["config_json"]) for run in self.results.runs[self.phase]}
        return {digest: flatten_config(json.loads(text)) for digest, text in texts.items()}

    @cached_property
    def names(self) -> list[str]:
        """Every name that is understood."""
        paths = {path for leaves in self.leaves.values() for path in leaves}
        return [*MEASURED, *_OF_RUNS, *sorted(paths)]

    def resolve(self, name: str) -> str:
        """The field that is meant: its name, a factor's label, or the end of one path alone.

        Raises:
            InputError: there is none, or there are several.
        """
        labels = {factor.label: factor.path for factor in self.results.design.factors}
        labels |= {item.get("label"): item["path"] for item in self.results.study.get("space") or [] if "path" in item}
        if name in self.names:
            return name
        if labels.get(name) in self.names:
            return labels[name]
        ends = [path for path in self.names if path.endswith(f".{name}")]
        if len(ends) > 1:
            raise InputError(f"{name!r} may be any of {', '.join(ends[:6])}{', …' if len(ends) > 6 else ''}")
        if not ends:
            raise unknown("column", name, [*self.names, *(str(label) for label in labels if label)])
        return ends[0]

    def label(self, field: str) -> str:
        """A field's name in a table's head."""
        factor = self.results.design.factor(field)
        return factor.label if factor else "NFE" if field == "nfe" else field

    def level(self, digest: str, field: str) -> str:
        """A configuration's level, for people; a dash where it has none."""
        if field == "setting":
            return self._settings.get(digest) or self._described(digest)
        if field == "method":
            return formats.level(self._methods.get(digest))
        if field == "dataset":
            return formats.level(self.results.dataset)
        return formats.level(self.leaves[digest].get(field))

    def matches(self, digest: str, field: str, wanted: str) -> bool:
        """Whether a configuration's level is the one that was asked for, written for people or as in the records."""
        raw = self.leaves[digest].get(field)
        equal = math.isfinite(_number(wanted)) and _number(wanted) == _number(raw)
        return equal or wanted in (self.level(digest, field), str(raw), json.dumps(raw))

    def order(self, field: str, levels: Sequence[str]) -> list[str]:
        """Levels in the order of the design, then of numbers, then of the alphabet; settings as in the tables."""
        if field == "setting":
            named = [setting.label for setting in self.results.settings]
        else:
            factor = self.results.design.factor(field)
            named = [formats.level(value) for value in factor.values] if factor else []
        ranks = {name: rank for rank, name in enumerate(named)}
        return sorted(levels, key=lambda level: (ranks.get(level, len(ranks)), _number(level), level))

    @cached_property
    def _settings(self) -> Mapping[str, str]:
        return {setting.digest: setting.label for setting in self.results.settings} if self.phase == "ablation" else {}

    @cached_property
    def _methods(self) -> Mapping[str, str]:
        return {str(run["digest"]): str(run["method"]) for run in self.results.runs[self.phase]}

    def _described(self, digest: str) -> str:
        space = self.results.study.get("space") or []
        parts = [
            f"{item.get('label') or item['path']} = {formats.level(self.leaves[digest].get(item['path']))}"
            for item in space if self.leaves[digest].get(item["path"]) is not None
        ]  # fmt: skip
        return ", ".join(parts) or digest


def _number(level: object) -> float:
    """The number that a level is, infinite for text, which comes after numbers."""
    try:
        return float(str(level))
    except ValueError:
        return math.inf

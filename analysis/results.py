"""What a study found: settings, scores, floor and cost in one object, which tables, figures and words are made from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from analysis import formats, members
from analysis.baselines import Baselines
from analysis.collect import Collected
from analysis.design import Design, Setting, read_design
from analysis.levels import Parameter, parameters, proposed
from analysis.placing import place_settings
from analysis.quality import (
    HEADLINE_NFE,
    Metric,
    PhaseScores,
    Sampler,
    Score,
    Scores,
    budgets_of,
    completed_runs,
    floor_of,
    metric_rows,
    read_scores,
)  # fmt: skip
from analysis.rows import runs_of_phase
from analysis.spent import Cost, cost_of
from analysis.statistics import Interval, mean_interval
from sbbridge.records import flatten_config

CHOICES = ("sampler", "nfe")  # parameters of the search that pick an entry of a training's evaluation
_ALWAYS_NAMED = {
    "reference.beta_max": "noise β_max", "reference.sigma": "noise σ", "method.coupling": "coupling",
    "network.grid_size": "KAN grid",
}  # fmt: skip


@dataclass
class Results:
    """A study's records, arranged by setting.

    Attributes:
        collected: the records.
        design: what was to be compared.
        metric: the primary metric.
        settings: the ablation's settings, in the order of the tables.
        runs: {phase: its rows of `trials`}.
        scores: {phase: scores}, each read when it is first asked for; the phases are never mixed.
        nulls: scores of the rows that the ablation recorded under the role "null".
        floor: real against real.
        headline: the NFE at which settings are compared.
    """

    collected: Collected
    design: Design
    metric: Metric
    settings: list[Setting]
    runs: dict[str, list[dict[str, Any]]]
    scores: Mapping[str, Scores]
    nulls: Scores
    floor: Interval
    headline: int

    @property
    def study(self) -> dict[str, Any]:
        """study.json."""
        return self.collected.study

    @property
    def preferred(self) -> list[Sampler]:
        """Samplers and time grids in the order that the study names them."""
        return _preferred(self.study)

    @property
    def budgets(self) -> tuple[int, ...]:
        """The NFE at which quality is reported."""
        return self.scores["ablation"].budgets

    @property
    def seeds(self) -> list[int]:
        """The seeds of the ablation's completed runs."""
        return sorted({int(run["seed"]) for run in self.runs["ablation"] if run["status"] == "completed"})

    def score(self, setting: Setting, budget: int | None = None) -> Score | None:
        """A setting's score at a budget (by default the headline's)."""
        return self.scores["ablation"].get(setting.digest, self.headline if budget is None else budget)

    def interval(self, setting: Setting, budget: int | None = None) -> Interval:
        """A setting's mean on the test split; n = 0 where it has none."""
        score = self.score(setting, budget)
        return score.interval if score else mean_interval([])

    def baseline(self, setting: Setting) -> Setting | None:
        """The setting that this one is compared with, itself for the baseline."""
        if setting.place not in self._baselines:
            self._baselines[setting.place] = self._finder.of(setting)
        return self._baselines[setting.place]

    @cached_property
    def _finder(self) -> Baselines:
        return Baselines(self.design, self.settings)

    @cached_property
    def _baselines(self) -> dict[tuple[str, int], Setting | None]:
        return {}

    def null(self, setting: Setting, budget: int | None = None) -> Interval:
        """The score without what is studied: its own null rows if there are some, else its baseline's score."""
        own = self.nulls.get(setting.digest, self.headline if budget is None else budget)
        if own is not None and own.test:
            return own.interval
        baseline = self.baseline(setting)
        return self.interval(baseline, budget) if baseline else mean_interval([])

    def leaves_of(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """A run's configuration by path; runs of one configuration share it."""
        digest = str(run["digest"])
        if digest not in self._leaves:
            self._leaves[digest] = flatten_config(json.loads(run["config_json"]))
        return self._leaves[digest]

    @cached_property
    def _leaves(self) -> dict[str, Mapping[str, Any]]:
        return {setting.digest: setting.leaves for setting in self.settings}

    def setting_runs(self, setting: Setting) -> list[dict[str, Any]]:
        """The ablation's runs of a setting."""
        return self.runs_of(setting.digest, "ablation")

    def runs_of(self, digest: str, phase: str) -> list[dict[str, Any]]:
        """The runs of a configuration in one phase."""
        return self._by_digest[phase].get(digest, [])

    @cached_property
    def _by_digest(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        found: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for phase, runs in self.runs.items():
            held = found.setdefault(phase, {})
            for run in runs:
                held.setdefault(str(run["digest"]), []).append(run)
        return found

    def failed(self, setting: Setting, budget: int | None = None) -> int:
        """Runs that failed, and runs whose score is not finite."""
        score = self.score(setting, budget)
        failed = len([run for run in self.setting_runs(setting) if run["status"] == "failed"])
        return failed + (score.not_finite if score else 0)

    def cost(self, setting: Setting) -> Cost:
        """Training cost of a setting."""
        runs = [run for run in self.setting_runs(setting) if run["status"] == "completed"]
        return cost_of(runs)

    def samplers_of(self, setting: Setting) -> list[Sampler]:
        """(sampler, time grid) of a setting's scores, in the order of the study."""
        rows = metric_rows(self.collected.select([self.metric.name]), self.metric, "ablation", "model")
        rows = rows[(rows["digest"] == setting.digest) & rows["sampler"].notna()]
        found = {(str(row[0]), "" if pd.isna(row[1]) else str(row[1])) for row in rows[["sampler", "grid"]].to_numpy()}
        order = {item: rank for rank, item in enumerate(self.preferred)}
        return sorted(found, key=lambda item: (order.get(item, len(order)), item))

    def scores_with(self, budgets: Sequence[int], sampler: str | None = None, grid: str | None = None) -> Scores:
        """The ablation's scores at any budgets, with one sampler or time grid alone where it is named."""
        rows = metric_rows(self.collected.select([self.metric.name]), self.metric, "ablation", "model")
        for name, value in (("sampler", sampler), ("grid", grid)):
            rows = rows if value is None else rows[rows[name] == value]
        return read_scores(rows, completed_runs(self.runs["ablation"]), budgets, self.preferred)

    def factor_settings(self, path: str) -> list[Setting]:
        """The levels of one factor, all others at the centre, in the order of the design."""
        return members.of_factor(self.design, self.settings, path)

    def grid_settings(self) -> list[Setting]:
        """The settings of the grid in which two or three factors are crossed, each in its place there."""
        return members.of_grid(self.design, self.settings)

    def arm_settings(self) -> list[Setting]:
        """The arms without a table of their own, after the centre and its baseline."""
        arms = [
            setting for setting in self.settings
            if setting.arm is not None and not any(arm.table for arm in setting.arms)
        ]  # fmt: skip
        if not arms:
            return []
        centre = [setting for setting in self.settings if setting.is_centre]
        baseline = self.baseline(centre[0]) if centre else None
        first = [*centre, *([baseline] if baseline and baseline not in centre else [])]
        return [*first, *(arm for arm in arms if arm not in first)]

    def tables(self) -> list[str]:
        """Names of the tables that arms are grouped into, in the order of the design."""
        arms = [*self.design.arms, self.design.centre_arm]
        return list(dict.fromkeys(arm.table for arm in arms if arm.table))

    def in_table(self, table: str) -> list[Setting]:
        """The settings of one of these tables, in the order of the design."""
        order = [arm.name for arm in (self.design.centre_arm, *self.design.arms) if arm.table == table]
        named = [(name, setting) for setting in self.settings if (name := setting.name_in(table)) is not None]
        return [setting for _, setting in sorted(named, key=lambda item: order.index(item[0]))]

    @property
    def dataset(self) -> str:
        """The data set."""
        return str(self.study.get("dataset") or "study")

    @property
    def several(self) -> bool:
        """Whether this is one data set of a study of several."""
        return len(self.study.get("problems") or {}) > 1

    @property
    def place(self) -> dict[str, str]:
        """What filters know about anything of this data set."""
        return {"data set": formats.level(self.dataset)} if self.several else {}

    def facets(self, setting: Setting) -> dict[str, str]:
        """What the report's filters know about a setting, in the place that it is looked at in."""
        method = setting.family or setting.arm or formats.level(setting.method)
        found = {"method": method, "phase": "ablation", **self.place, **self.levels(setting.leaves)}
        if setting.cells:
            found = {**found, **self._in_cells(setting)}
        tables = [arm.table for arm in setting.arms if arm.table]
        return {**found, "table": tables[0]} if tables else found

    def _in_cells(self, setting: Setting) -> dict[str, str]:
        """Its levels of the factors; of one that does nothing, unless it is looked at in one place, all of them."""
        cells = [setting.cell] if setting.cell is not None else setting.cells
        held = {
            factor.label: {formats.level(cell.levels[factor.path]) for cell in cells if factor.path in cell.levels}
            for factor in self.design.factors
        }  # fmt: skip
        return {label: next(iter(levels)) for label, levels in held.items() if len(levels) == 1}

    def levels(self, leaves: Mapping[str, Any]) -> dict[str, str]:
        """A configuration's levels by the names of the factors; noise, coupling and KAN grid where they are none."""
        found = {}
        for path, name in self.level_names.items():
            known = self.parameters.get(path) or self._factors.get(path)
            level = known.level(leaves) if known is not None else leaves.get(path)
            if level is not None:
                found[name] = known.text(level) if known is not None else formats.level(level)
        return found

    def proposed(self, run: Mapping[str, Any]) -> dict[str, Any]:
        """{path: level} of a run's parameters of the search, as proposed; of those that were active."""
        leaves, said = self.leaves_of(run), proposed(run)
        if said:
            return {path: said[path] for path in self.parameters if path in said and path not in CHOICES}
        found = {path: known.level(leaves) for path, known in self.parameters.items() if path not in CHOICES}
        return {path: level for path, level in found.items() if level is not None}

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """{path: parameter} of the searched space."""
        return parameters(self.study)

    @cached_property
    def _factors(self) -> dict[str, Parameter]:
        return {
            factor.path: Parameter(factor.path, factor.label, factor.values, (), factor.multiple_of)
            for factor in self.design.factors
        }  # fmt: skip

    @cached_property
    def level_names(self) -> dict[str, str]:
        """{path: name} of what filters look at in a configuration."""
        space = {path: known.label for path, known in self.parameters.items() if path not in CHOICES}
        return {**_ALWAYS_NAMED, **space, **{factor.path: factor.label for factor in self.design.factors}}


def build_results(collected: Collected) -> Results:
    """Arranges a study's records; whatever is absent gives empty parts, not errors."""
    study = collected.study
    design = read_design(study)
    primary = study.get("primary_metric") or {}
    metric = Metric(primary.get("metric") or "frechet_distance", primary.get("features"))
    runs = {phase: runs_of_phase(collected.trials, phase) for phase in ("ablation", "search")}
    preferred = _preferred(study)
    metrics = collected.select([metric.name])
    rows = {phase: metric_rows(metrics, metric, phase, "model") for phase in runs}
    budgets = budgets_of(study, pd.concat(list(rows.values())))
    scores = PhaseScores(runs, lambda phase: read_scores(rows[phase], completed_runs(runs[phase]), budgets, preferred))
    null_rows = metric_rows(metrics, metric, "ablation", "null")
    nulls = read_scores(null_rows, completed_runs(runs["ablation"]), budgets, preferred)
    named = study.get("headline_nfe")
    headline = HEADLINE_NFE if HEADLINE_NFE in budgets else budgets[len(budgets) // 2]
    headline = int(named) if named in budgets else headline
    settings = place_settings(design, runs["ablation"])
    floor = floor_of(metrics, metric)
    return Results(collected, design, metric, settings, runs, scores, nulls, floor, headline)


def _preferred(study: Mapping[str, Any]) -> list[Sampler]:
    """Samplers and time grids in the order that the study names them."""
    evaluation = (study.get("base") or {}).get("evaluation") or {}
    return [(sampler, grid) for sampler in evaluation.get("samplers") or () for grid in evaluation.get("grids") or ()]

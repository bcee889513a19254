"""Measurements arranged in cells: which values of which seeds stand where a row and a column of a table meet."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis import formats
from analysis.errors import InputError, unknown
from analysis.fields import SAMPLED, Fields
from analysis.quality import Metric, Score, budgets_of, completed_runs, metric_rows, read_scores
from analysis.results import Results

Key = tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """What a table should hold; fields are resolved already.

    Attributes:
        rows: fields whose levels are the rows.
        columns: fields whose levels are the columns.
        metric: what is measured.
        phase: search or ablation, never both.
        split: test or validation.
        where: {field: the levels that are wanted}.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metric: Metric
    phase: str = "ablation"
    split: str = "test"
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        """Rows and columns."""
        return (*self.rows, *self.columns)


@dataclass
class Cell:
    """Where a row and a column meet.

    Attributes:
        values: {configuration, as its digest and how it was sampled: {seed: value}}.
    """

    values: dict[tuple[str, ...], dict[int, float]] = field(default_factory=dict)

    @property
    def digests(self) -> list[str]:
        """The configurations in it."""
        return list(dict.fromkeys(key[0] for key in self.values))

    @property
    def by_seed(self) -> dict[int, float]:
        """{seed: mean over its configurations}, of the seeds that all of them have: others would shift the mean."""
        common = set.intersection(*(set(seeds) for seeds in self.values.values())) if self.values else set()
        return {seed: statistics.fmean(own[seed] for own in self.values.values()) for seed in sorted(common)}


def choose_metric(results: Results, name: str | None, features: str | None) -> Metric:
    """The metric that is asked for, the study's own by default.

    Raises:
        InputError: nothing of that name was recorded, or with several features, none of which was named.
    """
    if name is None:
        name, features = results.metric.name, features or results.metric.features
    names = results.collected.metric_names
    if name not in names:
        raise unknown("metric", name, names)
    held = sorted(str(value) for value in results.collected.select([name])["features"].dropna().unique())
    if features is None and name == results.metric.name:
        features = results.metric.features
    if features is None and len(held) > 1:
        raise InputError(f"{name} was measured with the features {', '.join(held)}: choose with --features")
    if features is not None and features not in held:
        raise unknown("kind of features", features, held)
    return Metric(name, features)


def arrange(results: Results, fields: Fields, query: Query) -> dict[tuple[Key, Key], Cell]:
    """{(row, column): cell} of everything that the query asks for."""
    cells: dict[tuple[Key, Key], Cell] = {}
    for place, (digest, budget), score in _scores(results, fields, query):
        values = score.test if query.split == "test" else score.validation
        for seed, value in values.items():
            levels = {**place, "nfe": f"{budget:g}", "seed": str(seed)}
            if not _wanted(fields, query, digest, levels):
                continue
            key = tuple(levels.get(name) or fields.level(digest, name) for name in query.fields)
            row, column = key[: len(query.rows)], key[len(query.rows) :]
            cell = cells.setdefault((row, column), Cell())
            inner = (digest, *(levels[name] for name in ("nfe", *place) if name in levels))
            cell.values.setdefault(inner, {})[seed] = value
    return cells


def _wanted(fields: Fields, query: Query, digest: str, levels: Mapping[str, str]) -> bool:
    return all(
        any(levels[name] in (level, formats.level(level)) for level in wanted) if name in levels
        else any(fields.matches(digest, name, level) for level in wanted)
        for name, wanted in query.where.items()
    )  # fmt: skip


def _scores(results: Results, fields: Fields,
            query: Query) -> list[tuple[dict[str, str], tuple[str, int], Score]]:  # fmt: skip
    """(how it was sampled, (digest, budget), score); the sampler is chosen where it is no field of the table."""
    rows = metric_rows(results.collected.select([query.metric.name]), query.metric, query.phase, "model")
    completed = completed_runs(results.runs[query.phase])
    budgets = _budgets(results, query, rows)
    named = [name for name in SAMPLED if name in query.fields or name in query.where]
    if named:
        found = []
        for levels, own in rows.fillna(dict.fromkeys(named, "")).groupby(named):
            place = {name: formats.level(level or None) for name, level in zip(named, levels, strict=True)}
            scores = read_scores(own, completed, budgets, results.preferred)
            found += [(place, key, score) for key, score in scores.by_key.items()]
        return found
    if query.metric == results.metric and set(budgets) <= set(results.budgets):
        known = results.scores[query.phase].by_key
        return [({}, key, score) for key, score in known.items() if key[1] in budgets]
    if query.metric != results.metric:
        rows = _as_primary(results, query, rows, budgets)
    scores = read_scores(rows, completed, budgets, results.preferred)
    return [({}, key, score) for key, score in scores.by_key.items()]


def _budgets(results: Results, query: Query, rows: pd.DataFrame) -> tuple[int, ...]:
    """The NFE that are asked for: those named, all where NFE is a field, else the headline's."""
    known = budgets_of(results.study, rows)
    wanted = query.where.get("nfe")
    if wanted is not None:
        try:
            return tuple(int(level) for level in wanted)
        except ValueError as error:
            raise InputError(f"an NFE is a whole number, not {', '.join(wanted)}") from error
    if "nfe" in query.fields or results.headline not in known:
        return known
    return (results.headline,)


def _as_primary(results: Results, query: Query, rows: pd.DataFrame, budgets: Sequence[int]) -> pd.DataFrame:
    """Only what was sampled as the primary metric's choice on validation is, where the metric was measured so at all.

    Another metric is a further property of the same samples: chosen by itself it would describe others.
    """
    chosen = {
        (digest, *score.sampler, score.counted)
        for (digest, budget), score in results.scores[query.phase].by_key.items() if budget in budgets
    }  # fmt: skip
    keys = zip(rows["digest"], rows["sampler"].fillna(""), rows["grid"].fillna(""), rows["nfe"].fillna(0), strict=True)
    mask = np.array([(digest, sampler, grid, int(nfe)) in chosen for digest, sampler, grid, nfe in keys], dtype=bool)
    return rows[mask] if mask.any() else rows

"""Two studies side by side: what changed in their configuration, and which metrics changed by more than chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis import formats
from analysis.cells import choose_metric
from analysis.collect import Collected
from analysis.data_sets import build_all
from analysis.design import Setting, same
from analysis.errors import InputError, unknown
from analysis.quality import Metric, Score, budgets_of, completed_runs, metric_rows, read_scores
from analysis.results import Results
from analysis.statistics import Interval, PairedDifference, compare_seeds, holm, mean_interval
from analysis.tables import Column, Table
from analysis.tables_runs import is_outcome
from sbbridge.records import flatten_config

_LEVEL = 0.05
_OF_THE_STUDY = ("study", "dataset", "preset", "trials", "seeds", "commit", "schema_version")
_TREES = ("versions", "hardware")


@dataclass(frozen=True)
class Change:
    """One metric of one setting in both studies.

    Attributes:
        dataset: the data set.
        setting: its name in both.
        metric: with its features.
        budget: network calls a sample, at most.
        left: the first study's score.
        right: the second's.
        pair: second − first.
        corrected: its p value, corrected over everything that was compared.
        identical: whether both studies ran the same configuration there.
    """

    dataset: str
    setting: str
    metric: Metric
    budget: int
    left: Score
    right: Score
    pair: PairedDifference
    corrected: float
    identical: bool

    @property
    def verdict(self) -> str:
        """What may be said."""
        if math.isnan(self.corrected):
            return "cannot be tested: too few seeds, or no spread"
        if self.corrected >= _LEVEL:
            return "cannot be told from none"
        higher = self.pair.ratio.mean > 1 if self.pair.ratio is not None else self.pair.difference.mean > 0
        return "better" if higher == self.metric.higher_is_better else "worse"


def compare_tables(left: Collected, right: Collected, metric: str | None = None, every: bool = False) -> list[Table]:
    """What changed in the configuration, and in the metrics: all of them, or those that changed.

    Args:
        left: the first study.
        right: the second one; differences are second − first.
        metric: one metric alone.
        every: rows that did not change are listed, too.

    Raises:
        InputError: the studies have no setting with scores in common, or not the metric.
    """
    pairs = _pairs(build_all(left), build_all(right))
    changes = _changes(pairs, metric)
    if not changes:
        raise InputError(f"{left.folder} and {right.folder} have no setting in common that both have scores of")
    return [_configuration_table(pairs), _metrics_table(left, right, changes, every)]


def _pairs(left: Sequence[Results], right: Sequence[Results]) -> list[tuple[Results, Results]]:
    """The data sets that both have; of one data set each, these whatever they are."""
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    others = {results.dataset: results for results in right}
    found = [(results, others[results.dataset]) for results in left if results.dataset in others]
    if not found:
        names = (", ".join(results.dataset for results in side) for side in (left, right))
        raise InputError(f"the studies have no data set in common ({' against '.join(names)})")
    return found


def _changes(pairs: Sequence[tuple[Results, Results]], name: str | None) -> list[Change]:
    found = []
    for left, right in pairs:
        for metric in _metrics(left, right, name):
            found += _of_metric(left, right, metric)
    corrected = holm([change[-2].p_value for change in found])
    return [Change(*change[:-1], p, change[-1]) for change, p in zip(found, corrected, strict=True)]


def _metrics(left: Results, right: Results, name: str | None) -> list[Metric]:
    """The metrics that both measured, each with its features."""
    common = [known for known in left.collected.metric_names if known in set(right.collected.metric_names)]
    if name is not None:
        if name not in common:
            raise unknown("metric of both studies", name, common)
        return [choose_metric(left, name, None)]
    found = [metric for metric in (left.metric,) if metric.name in common]
    for other in common:
        if other != left.metric.name and is_outcome(other):
            held = left.collected.select([other])["features"].dropna().unique()
            found += [Metric(other, str(features)) for features in held] or [Metric(other, None)]
    return found


def _of_metric(left: Results, right: Results,
               metric: Metric) -> list[tuple[str, str, Metric, int, Score, Score, PairedDifference, bool]]:  # fmt: skip
    ours, theirs = _scores(left, metric), _scores(right, metric)
    found = []
    for setting, other in _settings(left, right):
        for (digest, budget), score in ours.items():
            against = theirs.get((other.digest, budget))
            if digest == setting.digest and against is not None and score.test and against.test:
                pair = compare_seeds(against.test, score.test)
                same_configuration = setting.digest == other.digest
                place = (left.dataset, setting.label, metric, budget)
                found.append((*place, score, against, pair, same_configuration))
    return found


def _scores(results: Results, metric: Metric) -> Mapping[tuple[str, int], Score]:
    if metric == results.metric:
        return results.scores["ablation"].by_key
    rows = metric_rows(results.collected.select([metric.name]), metric, "ablation", "model")
    # A further metric is compared at the headline alone: at every NFE it would drown the rest.
    budgets = budgets_of(results.study, rows)
    budgets = (results.headline,) if results.headline in budgets else budgets[-1:]
    return read_scores(rows, completed_runs(results.runs["ablation"]), budgets, results.preferred).by_key


def _settings(left: Results, right: Results) -> list[tuple[Setting, Setting]]:
    """Settings of one configuration, else of one name."""
    digests = {setting.digest: setting for setting in right.settings}
    names = {setting.label: setting for setting in right.settings}
    found = [(setting, digests.get(setting.digest) or names.get(setting.label)) for setting in left.settings]
    return [(setting, other) for setting, other in found if other is not None]


def _configuration_table(pairs: Sequence[tuple[Results, Results]]) -> Table:
    left, right = pairs[0]
    columns = [Column("path", "entry"), Column("left", f"A: {left.collected.folder.name}"),
               Column("right", f"B: {right.collected.folder.name}")]  # fmt: skip
    table = Table("configuration", "What changed in the configuration", "", columns)
    found = _differences(_of_study(left.study), _of_study(right.study))
    for ours, theirs in pairs:
        prefix = f"{ours.dataset}: " if len(pairs) > 1 else ""
        found |= {f"{prefix}{path}": values for path, values in _of_data_set(ours.study, theirs.study).items()}
    for path, (first, second) in found.items():
        table.add({"path": path, "left": _shown(first), "right": _shown(second)})
    table.caption = (
        "Entries of study.json that differ; a dash: there is none. Of the centre, only what does not "
        "differ in the base in the same way."
        if table.rows
        else "No entry of study.json differs: configuration, design, versions, commit and hardware are the same."
    )
    return table


def _of_study(study: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: study.get(name) for name in _OF_THE_STUDY}
    for tree in _TREES:
        found |= flatten_config(study.get(tree) or {}, f"{tree}.")
    return found


def _of_data_set(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    bases = [flatten_config(study.get("base") or {}) for study in (left, right)]
    centres = [flatten_config((study.get("centre") or {}).get("config") or {}) for study in (left, right)]
    base, centre = _differences(*bases), _differences(*centres)
    found = base | {f"centre: {path}": values for path, values in centre.items() if base.get(path) != values}
    return found | _differences(_design(left), _design(right))


def _design(study: Mapping[str, Any]) -> dict[str, Any]:
    design = study.get("design") or {}
    found = {f"levels of {item['path']}": item.get("values") for item in design.get("factors") or []}
    return {**found, "arms": [item["name"] for item in design.get("arms") or []] or None}


def _differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    paths = [*left, *(path for path in right if path not in left)]
    pairs = {path: (left.get(path), right.get(path)) for path in paths}
    return {path: pair for path, pair in pairs.items() if not same(*pair)}


def _metrics_table(left: Collected, right: Collected, changes: Sequence[Change], every: bool) -> Table:
    columns = [
        Column("dataset", "data set"), Column("setting", "setting"), Column("metric", "metric"),
        Column("nfe", "NFE", "count"), Column("left", f"A: {left.folder.name}", "interval"),
        Column("right", f"B: {right.folder.name}", "interval"), Column("difference", "B − A", "interval"),
        Column("ratio", "B / A", "limits"), Column("p", "p (Holm)", "p"), Column("n", "n (seeds)", "count"),
        Column("test", "test"), Column("verdict", "B is"), Column("configuration", "configuration"),
    ]  # fmt: skip
    if len({change.dataset for change in changes}) == 1:
        columns = columns[1:]
    changed = [change for change in changes if change.corrected < _LEVEL]
    caption = (
        f"{len(changed)} of {formats.plural(len(changes), 'score')} changed by more than chance explains, test split, "
        f"ablation: mean ± half of the 95 % t interval over seeds; differences are paired by seed where two seeds or "
        f"more are shared, Welch's otherwise; p is of the log ratio where values are positive, Holm-corrected over all "
        f"{len(changes)}. Settings are matched by configuration, else by name. Further metrics are compared at the NFE "
        f"at which studies compare quality."
    )
    if all(change.pair.n < 2 for change in changes):
        caption += " One seed: no interval, and nothing can be told from chance."
    table = Table("changes", "Which metrics changed", caption, columns)
    for change in changes if every else changed:
        table.add({
            "dataset": formats.level(change.dataset), "setting": change.setting, "metric": change.metric.label,
            "nfe": change.budget, "left": _mean(change.left), "right": _mean(change.right),
            "difference": change.pair.difference, "ratio": change.pair.ratio, "p": change.corrected,
            "n": change.pair.n, "test": change.pair.method, "verdict": change.verdict,
            "configuration": "the same" if change.identical else "differs",
        })  # fmt: skip
    return table


def _mean(score: Score) -> Interval:
    return mean_interval(list(score.test.values()))


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return formats.ABSENT if value is None else str(value)

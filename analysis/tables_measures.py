"""Tables of what samples cover and of how paths look: measures beside the primary metric."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.design import Setting
from analysis.path_samplers import APART, path_samplers
from analysis.quality import TRAINING, Score, completed_runs
from analysis.results import Results
from analysis.stages import stage_order
from analysis.statistics import Interval, mean_interval
from analysis.tables import Column, Table, at, budget_label

VARIETY = {
    "precision": "precision ↑", "recall": "recall ↑", "density": "density ↑", "coverage": "coverage ↑",
    "class_histogram_distance": "class histogram distance ↓", "classes_covered": "classes covered ↑",
    "kernel_distance": "kernel distance ↓", "frechet_distance_to_training": "FD to training images ↓",
}  # fmt: skip
PATHS = {
    "straightness": "straightness ↓", "trajectory_variance": "trajectory variance ↓",
    "transport_cost": "transport cost ↓", "accumulated_drift": "accumulated drift (nats)",
}  # fmt: skip
LOCALISED = "localised_distance_t"
_FLOOR, _NULL = "floor (real against real)", "null (recorded)"


def measure_tables(results: Results) -> list[Table]:
    """Both tables; without rows where nothing was recorded."""
    return [variety_table(results), paths_table(results)]


def variety_table(results: Results) -> Table:
    """Precision, recall, density, coverage and their kin, with the sampler that validation chose."""
    rows = measure_rows(results, list(VARIETY))
    names = [name for name in VARIETY if (rows["metric"] == name).any()]
    columns = [
        Column("setting", "setting"), Column("n", "n (seeds)", "count"),
        *(Column(name, VARIETY[name], "interval", at(results.headline)) for name in names),
    ]  # fmt: skip
    caption = (
        f"Test split {budget_label(results.headline)}, each setting with the sampler and time grid that validation "
        f"chose for {results.metric.label}; mean ± half of the 95 % t interval over seeds ({_seeds(results)}); "
        f"arrows point to better. The row “{_FLOOR}” scores real training samples in place of generated ones; the "
        f"null is {_null_words(results)}. Class histogram distance compares the shares of the classes that a "
        f"classifier sees in both. Kernel distance is KID on Inception's features, and the same with standardised "
        f"features on those of other networks: KID as published compares with the former alone. The Fréchet "
        f"distance to training images is of all draws together to train and validation, its floor of the test split."
    )
    table = Table("variety", "Precision, recall, density, coverage", caption, columns)
    for label, role in ((_FLOOR, "floor"), (_NULL, "null")):
        reference = measure_rows(results, names, role)
        found = {name: over_seeds(reference[reference["metric"] == name]) for name in names}
        if any(interval.n for interval in found.values()):
            table.add({"setting": label, "n": max(i.n for i in found.values()), **found}, results.place)
    by_digest = of_digests(rows)
    for setting in results.settings:
        own = by_digest(setting.digest)
        found = {name: at_headline(results, setting, own[own["metric"] == name]) for name in names}
        n = max((interval.n for interval in found.values()), default=0)
        if n:
            table.add({"setting": _label(setting), "n": n, **found}, results.facets(setting), setting.digest)
    if not len(rows):
        table.rows, table.facets, table.runs = [], [], []
    return table


def paths_table(results: Results) -> Table:
    """Straightness, variance, cost of the paths, the drift spent on them, and how local the coupling is."""
    times = sorted((name for name in results.collected.metric_names if name.startswith(LOCALISED)), key=localised_time)
    rows = measure_rows(results, [*PATHS, *times])
    labels = {**PATHS, **{name: f"localised distance, t = {localised_time(name):g}" for name in times}}
    names = [name for name in labels if (rows["metric"] == name).any()]
    columns = [
        Column("setting", "setting"), Column("paths_of", "paths of"), Column("n", "n (seeds)", "count"),
        *(Column(name, labels[name], "interval") for name in names),
    ]  # fmt: skip
    caption = (
        f"Mean ± half of the 95 % t interval over seeds ({_seeds(results)}). {APART}. Straightness is "
        f"∫ E|(x_end − x_start) − dx/dt|² dt and trajectory variance ∫ E|x_t − line_t|² dt, both over "
        f"E|x_end − x_start|²: their floor is 0, a straight line at constant speed. Transport cost is "
        f"E|x_end − x_start|². Localised distance is the mean squared distance of a real sample that was carried to t "
        f"and back, over that of two different real samples (the null is 1: nothing of it is left). The null of the "
        f"rest is {_null_words(results)}."
    )
    table = Table("paths", "Paths and localised coupling", caption, columns)
    means, sampler_of = all_over_seeds(results, rows), path_samplers(rows)
    for setting in results.settings:
        found = {name: means(setting, name) for name in names}
        n = max((interval.n for interval in found.values()), default=0)
        if n:
            row = {"setting": _label(setting), "paths_of": sampler_of(setting).words or None, "n": n, **found}
            table.add(row, results.facets(setting), setting.digest)
    return table


def measure_rows(results: Results, names: Sequence[str], role: str = "model") -> pd.DataFrame:
    """The ablation's rows of some metrics in one role that belong to the test split or to none."""
    metrics = results.collected.select(names)
    chosen = metrics[(metrics["role"] == role) & metrics["value"].notna()]
    chosen = chosen[(chosen["phase"] == "ablation") & (chosen["stage"].fillna("") != TRAINING)]
    chosen = chosen[chosen["split"].isna() | (chosen["split"] == "test")]
    averaged = (chosen["weights"] == "ema").any()
    return chosen[(chosen["weights"] == "ema") | chosen["weights"].isna()] if averaged else chosen


def at_headline(results: Results, setting: Setting, rows: pd.DataFrame) -> Interval:
    """Over seeds, at exactly the sampler, grid and calls that the setting's headline score was measured with."""
    score = results.score(setting)
    return at_score(results, setting, score, rows) if score is not None else mean_interval([])


def at_score(results: Results, setting: Setting, score: Score, rows: pd.DataFrame) -> Interval:
    """Over seeds, at exactly the sampler, grid and calls of one of the setting's scores."""
    sampler, grid = score.sampler
    same = (rows["sampler"].fillna("") == sampler) & (rows["grid"].fillna("") == grid)
    same &= (rows["nfe"].fillna(0) == score.counted) & (rows["num_steps"].fillna(score.num_steps) == score.num_steps)
    return over_seeds(completed(results, setting, rows[same]))


def of_digests(rows: pd.DataFrame) -> Callable[[str], pd.DataFrame]:
    """Which rows belong to a configuration: all are sorted once, where a mask for each would look at all of them."""
    held: dict[Any, pd.DataFrame] = dict(list(rows.groupby("digest", sort=False, observed=True)))
    none = rows.iloc[:0]
    return lambda digest: held.get(digest, none)


def all_over_seeds(results: Results, rows: pd.DataFrame, last: bool = False) -> Callable[[Setting, str], Interval]:
    """`over_seeds` of the completed runs of any setting and metric, at once for all; or of the last step of each."""
    runs = completed_runs(results.runs["ablation"])
    rows = rows[np.fromiter((key in runs for key in zip(rows["digest"], rows["seed"], strict=True)), dtype=bool)]
    if last:
        rows = rows.assign(stage=rows["stage"].map(stage_order, na_action="ignore"))
        rows = rows.sort_values(["step", "stage"], na_position="first")
    groups = rows.groupby(["digest", "metric", "seed"], observed=True)["value"]
    values = (groups.last() if last else groups.mean()).reset_index()
    found: dict[tuple[str, str], dict[int, float]] = {}
    for digest, metric, seed, value in zip(*(values[name].tolist() for name in values.columns), strict=True):
        if math.isfinite(value):
            found.setdefault((digest, metric), {})[seed] = value
    return lambda setting, name: mean_interval(found.get((setting.digest, name), []))


def over_seeds(rows: pd.DataFrame) -> Interval:
    """Mean over seeds of finite values."""
    means = rows.groupby("seed")["value"].mean()
    return mean_interval({int(str(seed)): float(value) for seed, value in means.items() if math.isfinite(value)})


def completed(results: Results, setting: Setting, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a setting's completed runs."""
    seeds = [int(run["seed"]) for run in results.setting_runs(setting) if run["status"] == "completed"]
    return rows[(rows["digest"] == setting.digest) & rows["seed"].isin(seeds)]


def localised_time(name: str) -> float:
    """t of "localised_distance_t0.2"."""
    return float(name.removeprefix(LOCALISED))


def _label(setting: Setting) -> str:
    return f"{setting.label} (baseline)" if setting.is_baseline and not setting.is_centre else setting.label


def _null_words(results: Results) -> str:
    return f"the baseline's row ({results.design.baseline_label})" if results.design.baseline else "not recorded"


def _seeds(results: Results) -> str:
    return ", ".join(str(seed) for seed in results.seeds) or "none"

"""The table of controls: random paths, half of the procedure, an exact denoiser; and what the candidates scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.design import Setting
from analysis.ldsb.names import ON_REPORTED, ORIGINAL, RANDOM, chosen_on_reported, procedure_name
from analysis.ldsb.ways import Denoiser, Way, context, facets
from analysis.results import Results
from analysis.statistics import Interval, mean_interval
from analysis.tables import Column, Table

_SELECTION = "selection_validation"
START = "original"
"""The stage whose one candidate is the original path."""


@dataclass(frozen=True)
class Candidates:
    """What the candidates of a setting scored on validation, relative to the original path of the same run.

    Attributes:
        ratios: {seed: score of each candidate / score of the original}.
    """

    ratios: dict[int, np.ndarray]

    @property
    def count(self) -> int:
        """Candidates of a run, the original not counted."""
        return max((len(values) for values in self.ratios.values()), default=0)

    @property
    def improving(self) -> Interval:
        """Per cent of a run's candidates that score below its original, over seeds."""
        return mean_interval({seed: 100 * float((values < 1).mean()) for seed, values in self.ratios.items()})

    @property
    def best(self) -> Interval:
        """By how many per cent the best candidate of a run, the original included, lies below the original."""
        return mean_interval({
            seed: 100 * (1 - min(1.0, float(values.min()))) for seed, values in self.ratios.items()
        })  # fmt: skip


def candidates(results: Results, setting: Setting) -> Candidates:
    """The candidates of a setting's completed runs; of runs that scored an original path, too."""
    metrics = results.collected.select([_SELECTION])
    rows = metrics[metrics["digest"] == setting.digest]
    rows = rows[(rows["phase"] == "ablation") & (rows["role"] == "model")]
    completed = [int(run["seed"]) for run in results.setting_runs(setting) if run["status"] == "completed"]
    found = {}
    for seed, own in rows[rows["seed"].isin(completed)].groupby("seed"):
        start = own["stage"] == START
        original, others = _finite(own[start]["value"]), _finite(own[~start]["value"])
        if len(original) and len(others) and original[-1] > 0:
            found[int(str(seed))] = others / original[-1]
    return Candidates(found)


def controls_table(denoisers: Sequence[Denoiser]) -> Table:
    """Fig. 1 and what it asks for: chance, half of the procedure, a denoiser without error."""
    results = denoisers[0].results
    columns = [
        Column("control", "control"), Column("denoiser", "denoiser"), Column("nfe", "NFE", "count"),
        Column("way", "way"), Column("scale", "scale of changes", "number"),
        Column("candidates", "candidates a run", "count"),
        Column("improving", "candidates better than the original on validation, %", "interval"),
        Column("best", "best candidate below the original on validation, %", "interval"),
        Column("n", "n (seeds)", "count"), Column("value", f"{results.metric.short}, test", "interval"),
        Column("reduction", "reduction against the original, test, %", "limits"),
        Column("floor", "floor", "number"), Column("failed", "failed runs", "count"),
    ]  # fmt: skip
    caption = (
        f"Random paths multiply the original's ratios by exp(scale × normal); the best of them on validation, the "
        f"original included, is what is tested. Reverse only and forward only leave out the other half of each "
        f"iteration; the whole procedure stands beside them. With an exact denoiser the reverse half has nothing to "
        f"correct. Candidates are scored on the validation split, where the least of many is optimistic; "
        f"{results.metric.label} and its reduction are of the test split, mean ± half of the 95 % t interval over "
        f"seeds, the reduction paired by seed against the path without a fit on the same grid."
    )
    table = Table("ldsb_controls", "LDSB: controls", caption, columns)
    shown = []
    for denoiser in denoisers:
        chosen = [(name, way) for way in denoiser.ways if (name := _control(denoiser, way))]
        controlled = {n for _, way in chosen for n in way.settings}
        published = denoiser.published_way
        if published is not None and published not in [way for _, way in chosen] and not denoiser.exact:
            chosen.append((procedure_name(published.leaves), published))
        for name, way in chosen:
            for n in sorted(set(way.settings) & controlled):
                shown.append(denoiser.score(way, n))
                table.add(_row(denoiser, name, way, n), facets(results, way.settings[n], n), way.settings[n].digest)
    table.caption += f" {context(results, shown)}"
    return table


def _control(denoiser: Denoiser, way: Way) -> str:
    if way.fit == RANDOM:
        return "random paths"
    halves = way.leaves.get("method.fit.halves")
    if halves in ("reverse", "forward"):
        return f"{halves} only"
    if chosen_on_reported(way.leaves):
        return ON_REPORTED
    return "exact denoiser" if denoiser.exact and way.fit != ORIGINAL else ""


def _row(denoiser: Denoiser, name: str, way: Way, n: int) -> dict[str, Any]:
    setting, score = way.settings[n], denoiser.score(way, n)
    tried = candidates(denoiser.results, setting)
    failed = sum(run["status"] == "failed" for run in denoiser.results.setting_runs(setting))
    return {
        "control": name, "denoiser": denoiser.label, "nfe": n, "way": way.label,
        "scale": setting.leaves.get("method.fit.scale") if way.fit == RANDOM else None,
        "candidates": tried.count or None, "improving": tried.improving, "best": tried.best,
        "n": score.interval.n if score else 0, "value": denoiser.interval(way, n),
        "reduction": denoiser.reduction(setting, score, denoiser.original(way, n)),
        "floor": denoiser.results.floor.mean, "failed": failed + (score.not_finite if score else 0),
    }  # fmt: skip


def _finite(values: "pd.Series[float]") -> np.ndarray:
    found = values.to_numpy(dtype=float)
    return found[np.isfinite(found)]


def scales(denoisers: Sequence[Denoiser]) -> list[tuple[Denoiser, int, list[tuple[float, Way, Candidates]]]]:
    """For each denoiser and NFE the scales of its random paths, rising, with what their candidates scored."""
    found = []
    for denoiser in denoisers:
        for n in denoiser.steps:
            tried = []
            for way in denoiser.ways:
                setting = way.settings.get(n) if way.fit == RANDOM else None
                scale = setting.leaves.get("method.fit.scale") if setting is not None else None
                if setting is not None and isinstance(scale, int | float):
                    tried.append((float(scale), way, candidates(denoiser.results, setting)))
            tried = [item for item in tried if item[2].ratios]
            if tried:
                found.append((denoiser, n, sorted(tried, key=lambda item: item[0])))
    return found

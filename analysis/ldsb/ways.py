"""LDSB's runs by denoiser and way of fitting, each with the original path that it is to be compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import formats
from analysis.artifacts import Artifacts
from analysis.design import Setting, matches
from analysis.families import table_slug
from analysis.ldsb.names import (
    BROUGHT,
    DDIM,
    FITS,
    FLOW,
    ON_REPORTED,
    ORIGINAL,
    chosen_on_reported,
    denoiser_family,
    fit_of,
    is_alternating,
    is_published,
    way_name,
)
from analysis.quality import Score, Scores
from analysis.results import Results
from analysis.statistics import Interval, PairedDifference, mean_interval, paired_difference, reduction
from analysis.tables import at, counts_and_floor
from analysis.tables_measures import at_score, measure_rows

METHOD = "ldsb"
PATH_FILE = "ratio_path.npz"
_STEPS = "method.num_steps"
_DENOISER = "method.denoiser."
REDUCTION = (
    "Reductions are 100 (1 − ratio) in per cent, paired by seed, with the 95 % t interval of the mean log ratio: below "
    "zero a fit did harm, and where the interval holds zero it cannot be told from none; the intervals of many ways "
    "are not corrected for their number."
)


@dataclass
class Way:
    """One way of fitting: the settings that differ in N alone.

    Attributes:
        label: for people.
        fit: the kind of fit.
        grid: where the nodes are.
        settings: by N, which is the NFE.
    """

    label: str
    fit: str
    grid: str
    settings: dict[int, Setting] = field(default_factory=dict)

    @property
    def leaves(self) -> Mapping[str, Any]:
        """The configuration, of its first setting."""
        return next(iter(self.settings.values())).leaves


@dataclass(frozen=True)
class Original:
    """The path that a fit starts from, at one NFE.

    Attributes:
        setting: whose score it is.
        score: its score.
        recorded: a run of its own; otherwise DDIM on the same grid, in the denoiser's own run.
    """

    setting: Setting
    score: Score
    recorded: bool


@dataclass
class Denoiser:
    """A denoiser with every way that a path was fitted for it.

    Attributes:
        results: the study's data set.
        family: the paper's name for its family.
        label: the family, and what sets it apart from others of the family.
        ways: the original first, then by kind of fit in the order of the design.
        own: its own run with other samplers, where the ablation has one.
    """

    results: Results
    family: str
    label: str
    ways: list[Way]
    own: Setting | None
    _scores: dict[tuple[str | None, str | None], Scores] = field(default_factory=dict, repr=False)
    _distances: pd.DataFrame | None = field(default=None, repr=False)

    @property
    def steps(self) -> list[int]:
        """Every N of its paths."""
        return sorted({n for way in self.ways for n in way.settings})

    @property
    def slug(self) -> str:
        """Its label as part of a file's name."""
        return table_slug(self.label)

    @property
    def exact(self) -> bool:
        """Whether it is the posterior mean itself, for which the reverse half has nothing to do."""
        return self.ways[0].leaves.get(f"{_DENOISER}kind") == "exact"

    @property
    def published_way(self) -> Way | None:
        """The paper's procedure, or what is nearest to it; of several the one at most NFE, then the plainest."""
        found = [way for way in self.ways if is_alternating(way.leaves)]
        return max(found, key=lambda way: (
            not chosen_on_reported(way.leaves), is_published(way.leaves), len(way.settings), -len(way.label)
        ), default=None)  # fmt: skip

    @property
    def scores(self) -> list[Score | None]:
        """The scores of its ways at every N, None where there is none."""
        return [self.score(way, n) for way in self.ways for n in way.settings]

    def score(self, way: Way, n: int) -> Score | None:
        """A way's score at N calls."""
        return self._with(None, None).get(way.settings[n].digest, n) if n in way.settings else None

    def interval(self, way: Way, n: int) -> Interval:
        """A way's mean on the test split; n = 0 where it has none."""
        score = self.score(way, n)
        return score.interval if score is not None else mean_interval([])

    def samplers(self) -> list[str]:
        """The samplers of its own run."""
        found = [] if self.own is None else [sampler for sampler, _ in self.results.samplers_of(self.own)]
        return list(dict.fromkeys(found))

    def sampled(self, sampler: str, n: int, grid: str | None = None) -> Score | None:
        """The score of its own run with a sampler at N calls, on the grid that validation chose or on a named one."""
        return self._with(sampler, grid).get(self.own.digest, n) if self.own is not None else None

    def distance(self, setting: Setting, score: Score | None) -> Interval:
        """How far the samples of a score are from where the converged flow takes the same noise."""
        if score is None:
            return mean_interval([])
        if self._distances is None:
            self._distances = measure_rows(self.results, ["teacher_distance"])
        return at_score(self.results, setting, score, self._distances)

    def original(self, way: Way, n: int) -> Original | None:
        """The original path on the way's own grid: a run without a fit, else DDIM with the denoiser."""
        found = [other for other in self.ways if other.fit == ORIGINAL and other.grid == way.grid]
        scored = [(other, score) for other in found if (score := self.score(other, n)) is not None and score.test]
        if scored:
            nearest, score = min(scored, key=lambda item: _unlike(item[0], way))
            return Original(nearest.settings[n], score, True)
        score = self.sampled("ddim", n, way.grid)
        # Fewer calls than N would be another path.
        if self.own is None or score is None or score.num_steps != n or not score.test:
            return None
        return Original(self.own, score, False)

    def best_original(self, n: int) -> Original | None:
        """The original path on the fixed grid that validation chose."""
        ways = [way for way in self.ways if way.fit == ORIGINAL and n in way.settings]
        found = [original for way in ways if (original := self.original(way, n)) is not None]
        grids = {way.grid for way in ways}
        for sampler, grid in self.results.samplers_of(self.own) if self.own is not None else []:
            if sampler == "ddim" and grid not in grids:
                original = self.original(Way("", ORIGINAL, grid), n)
                found += [original] if original is not None else []
        return min(found, key=lambda item: validation_rank(item.score), default=None)

    def reduction(self, setting: Setting, score: Score | None, original: Original | None) -> Interval | None:
        """By how many per cent a score lies below the original's, paired by seed; None for the original itself."""
        if score is None or original is None:
            return None
        if (setting.digest, score.sampler) == (original.setting.digest, original.score.sampler):
            return None
        return reduction(score.test, original.score.test)

    def failed(self, way: Way) -> int:
        """Runs of a way that failed, and runs whose score is not finite."""
        runs = [run for setting in way.settings.values() for run in self.results.setting_runs(setting)]
        scores = [score for n in way.settings if (score := self.score(way, n)) is not None]
        return sum(run["status"] == "failed" for run in runs) + sum(score.not_finite for score in scores)

    def _with(self, sampler: str | None, grid: str | None) -> Scores:
        if (sampler, grid) not in self._scores:
            self._scores[sampler, grid] = self.results.scores_with(self.steps, sampler, grid)
        return self._scores[sampler, grid]


def read_denoisers(results: Results) -> list[Denoiser]:
    """Every denoiser that the ablation fitted paths for, in the order of the design."""
    groups: dict[tuple[tuple[str, str], ...], list[Setting]] = {}
    for setting in results.settings:
        if setting.method == METHOD and isinstance(setting.leaves.get(_STEPS), int):
            groups.setdefault(_identity(setting), []).append(setting)
    families = [_family(results, settings) for settings in groups.values()]
    names = [
        f"{BROUGHT} {family}" if settings[0].leaves.get(f"{_DENOISER}kind") == BROUGHT else family
        for settings, family in zip(groups.values(), families, strict=True)
    ]
    found = []
    for (identity, settings), family, name in zip(groups.items(), families, names, strict=True):
        alike = [dict(other) for other, same in zip(groups, names, strict=True) if same == name]
        apart = [
            f"{path.rsplit('.', 1)[-1].replace('_', ' ')} {value}" for path, value in identity
            if any(other.get(path) != value for other in alike)
        ]  # fmt: skip
        label = ", ".join([name, *apart])
        found.append(Denoiser(results, family, label, _ways(results, settings), _own(results, settings[0])))
    return found


def validation_rank(score: Score) -> tuple[int, float, float]:
    """Most seeds first, then the least mean on validation; the values on test only where there is none at all."""
    return (-len(score.validation), score.validation_mean, 0.0 if score.validation else score.interval.mean)


def compare(score: Score | None, other: Score | None) -> PairedDifference:
    """Two scores seed by seed."""
    return paired_difference(score.test if score else {}, other.test if other else {})


def context(results: Results, scores: Sequence[Score | None]) -> str:
    """n, seeds, floor and null of some scores, in one sentence."""
    counts = [score.interval.n for score in scores if score is not None]
    return f"{counts_and_floor(results, counts)}; the null is the original path, without a fit."


def facets(results: Results, setting: Setting, n: int | None = None) -> dict[str, str]:
    """What filters know of a way: nothing of a table of arms nor of N, unless it is about one N."""
    unknown = ("table", results.level_names.get(_STEPS) if n is None else None)
    known = {name: value for name, value in results.facets(setting).items() if name not in unknown}
    return {**known, **(at(n) if n is not None else {})}


def _identity(setting: Setting) -> tuple[tuple[str, str], ...]:
    """What makes a denoiser: its configuration, and the reference that it was trained on."""
    leaves = setting.leaves.items()
    return tuple(sorted(
        (path, formats.level(value)) for path, value in leaves
        if value is not None and path.startswith((_DENOISER, "reference."))
    ))  # fmt: skip


def _family(results: Results, settings: Sequence[Setting]) -> str:
    """Of a denoiser that the user brought, by its own path as a run kept it: a + b = 1 is a flow's."""
    family = denoiser_family(settings[0].leaves)
    if family is not None:
        return family
    artifacts = Artifacts(results.collected)
    for setting in settings:
        for seed in sorted(int(run["seed"]) for run in results.setting_runs(setting)):
            kept = artifacts.arrays(setting.digest, seed, PATH_FILE)
            if all(name in kept and kept[name].size for name in ("original_image", "original_noise")):
                straight = np.allclose(kept["original_image"] + kept["original_noise"], 1.0, rtol=0, atol=1e-6)
                return FLOW if straight else DDIM
    said = settings[0].leaves
    return FLOW if said.get("method.sum_to_one") or said.get(f"{_DENOISER}prediction") == "velocity" else "denoiser"


def _ways(results: Results, settings: Sequence[Setting]) -> list[Way]:
    found: dict[tuple[str, str], Way] = {}
    for setting in sorted(settings, key=lambda setting: _fit_rank(setting)):
        n, grid = int(setting.leaves[_STEPS]), str(setting.leaves.get("method.grid") or "leading_uniform")
        name = way_name(results.design, setting)
        name += f" ({ON_REPORTED})" if chosen_on_reported(setting.leaves) else ""
        way = found.setdefault((name, grid), Way(name, fit_of(setting.leaves), grid))
        if n in way.settings:  # two settings that nothing but their digests tells apart
            name = f"{name} ({setting.digest[:6]})"
            way = found.setdefault((name, grid), Way(name, way.fit, grid))
        way.settings[n] = setting
    ways = list(found.values())
    labels = [way.label for way in ways]
    for way in ways:
        if labels.count(way.label) > 1:
            way.label = f"{way.label}, {formats.level(way.grid)}"
    return ways


def _fit_rank(setting: Setting) -> int:
    kind = fit_of(setting.leaves)
    return FITS.index(kind) if kind in FITS else len(FITS)


def _own(results: Results, setting: Setting) -> Setting | None:
    """The run of the training that a setting's denoiser comes from, with other samplers."""
    if setting.leaves.get(f"{_DENOISER}kind", "trained") != "trained":
        return None
    wanted = {
        path.removeprefix(_DENOISER): value for path, value in setting.leaves.items()
        if path.startswith((f"{_DENOISER}method.", f"{_DENOISER}network.", f"{_DENOISER}training."))
    }  # fmt: skip
    wanted |= {path: value for path, value in setting.leaves.items() if path.startswith("reference.")}
    if wanted.get("method.kind") is None:
        return None
    found = [other for other in results.settings if other.leaves.get("method.kind") == wanted["method.kind"]]
    return next((other for other in found if matches(other.leaves, wanted, strict=False)), None)


def _unlike(original: Way, way: Way) -> tuple[int, int]:
    """How much an original path is not the one that a way started from."""
    paths = ("method.boundary", "method.sum_to_one")
    apart = sum(original.leaves.get(path) != way.leaves.get(path) for path in paths) if way.settings else 0
    return (apart, int(original is not way))

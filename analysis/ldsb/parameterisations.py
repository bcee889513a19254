"""Tab. 2 and 3: what says a path's ratios, how large it is, and whether it differs from a table of logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis import formats
from analysis.design import Setting
from analysis.ldsb import published
from analysis.ldsb.names import KANS, ORIGINAL, PUBLISHED_FIT, TABLE, network_name
from analysis.ldsb.ways import REDUCTION, Denoiser, Original, Way, compare, context, facets
from analysis.quality import Score
from analysis.results import Results
from analysis.statistics import Interval, PairedDifference, holm
from analysis.tables import Column, Table
from analysis.tables_measures import completed, measure_rows, over_seeds

_NOT_THE_WAY = ("network.", "evaluation.", "method.fit.learning_rate", "method.prefit")


@dataclass(frozen=True)
class NetworkComparison:
    """A parameterisation against a table of logits, all else (but the learning rate) equal.

    Attributes:
        paired: value − the table's.
        corrected: its p value, corrected within the table of parameterisations.
    """

    denoiser: Denoiser
    n: int
    way: Way
    table: Way
    paired: PairedDifference
    corrected: float


def parameterisation_groups(denoiser: Denoiser, n: int) -> list[list[Way]]:
    """Ways at N calls that differ in their networks alone, two kinds of network or sizes at least."""
    groups: dict[tuple[tuple[str, str], ...], list[Way]] = {}
    for way in denoiser.ways:
        if n in way.settings and way.fit != ORIGINAL:
            groups.setdefault(_without_network(way.settings[n]), []).append(way)
    return [ways for ways in groups.values() if len({network_name(way.settings[n].leaves) for way in ways}) > 1]


def network_comparisons(denoisers: Sequence[Denoiser]) -> list[NetworkComparison]:
    """Every parameterisation against the table of its group, p values corrected together."""
    found: list[tuple[Denoiser, int, Way, Way, PairedDifference]] = []
    for denoiser in denoisers:
        for n in denoiser.steps:
            for ways in parameterisation_groups(denoiser, n):
                reference = next((way for way in ways if _kind(way, n) == TABLE), None)
                for way in ways:
                    if reference is not None and way is not reference:
                        paired = compare(denoiser.score(way, n), denoiser.score(reference, n))
                        found.append((denoiser, n, way, reference, paired))
    corrected = holm([item[-1].p_value for item in found])
    return [NetworkComparison(*item, p) for item, p in zip(found, corrected, strict=True)]


def parameterisations_table(denoisers: Sequence[Denoiser]) -> Table:
    """Tab. 2 and 3: what says the ratios, how large it is, and whether it differs from a table of logits."""
    results = denoisers[0].results
    short = results.metric.short
    columns = [
        Column("denoiser", "denoiser"), Column("nfe", "NFE", "count"), Column("way", "way"),
        Column("network", "parameterisation"), Column("n", "n (seeds)", "count"), Column("value", short, "interval"),
        Column("reduction", "reduction against the original, %", "limits"),
        Column("difference", "difference from the table", "interval"),
        Column("ratio", "ratio to the table", "limits"), Column("p", "p (Holm)", "p"),
        Column("parameters", "trainable parameters", "count"), Column("bytes", "bytes of weights", "count"),
        Column("scalars", "scalars of the path", "count"), Column("published", "published size of a file"),
        Column("rate", "learning rate", "number"), Column("floor", "floor", "number"),
        Column("failed", "failed runs", "count"),
    ]  # fmt: skip
    table = Table("ldsb_parameterisations", "LDSB: parameterisations", "", columns)
    comparisons = {
        (id(item.denoiser), item.n, item.way.label): item for item in network_comparisons(denoisers)
    }  # fmt: skip
    scores: list[Score | None] = []
    fits: set[str] = set()
    for denoiser in denoisers:
        for n in denoiser.steps:
            for ways in parameterisation_groups(denoiser, n):
                original = denoiser.original(ways[0], n)
                if original is not None:
                    _add_original(table, denoiser, n, original)
                for way in ways:
                    scores.append(denoiser.score(way, n))
                    fits.add(way.fit)
                    row = _network_row(denoiser, way, n)
                    item = comparisons.get((id(denoiser), n, way.label))
                    if item is not None:
                        row |= {"difference": item.paired.difference, "ratio": item.paired.ratio, "p": item.corrected}
                    table.add(row, facets(results, way.settings[n], n), way.settings[n].digest)
    table.caption = _network_caption(results, scores, fits, len(comparisons))
    return table


def _network_row(denoiser: Denoiser, way: Way, n: int) -> dict[str, Any]:
    setting, score = way.settings[n], denoiser.score(way, n)
    results = denoiser.results
    runs = [run for run in results.setting_runs(setting) if run["status"] == "completed"]
    parameters = next((run["network_parameters"] for run in runs if run["network_parameters"] is not None), None)
    published_size = _kind(way, n) in KANS and setting.leaves.get("network.grid_size") == 2 * n
    failed = sum(run["status"] == "failed" for run in results.setting_runs(setting))
    return {
        "denoiser": denoiser.label, "nfe": n, "way": way.label, "network": network_name(setting.leaves),
        "n": score.interval.n if score else 0, "value": denoiser.interval(way, n),
        "reduction": denoiser.reduction(setting, score, denoiser.original(way, n)),
        "parameters": parameters, "bytes": None if parameters is None else 4 * parameters,
        "scalars": _scalars(results, setting).mean,
        "published": f"{published.FILE_SIZES[n]}, published" if published_size and n in published.FILE_SIZES else None,
        "rate": setting.leaves.get("method.fit.learning_rate"), "floor": results.floor.mean,
        "failed": failed + (score.not_finite if score else 0),
    }  # fmt: skip


def _add_original(table: Table, denoiser: Denoiser, n: int, original: Original) -> None:
    row = {
        "denoiser": denoiser.label, "nfe": n, "way": "original", "network": "none",
        "n": original.score.interval.n, "value": original.score.interval, "parameters": 0, "bytes": 0,
        "scalars": _scalars(denoiser.results, original.setting).mean if original.recorded else None,
        "floor": denoiser.results.floor.mean,
    }  # fmt: skip
    table.add(row, facets(denoiser.results, original.setting))


def _scalars(results: Results, setting: Setting) -> Interval:
    return over_seeds(completed(results, setting, measure_rows(results, ["path_scalars"])))


def _network_caption(results: Results, scores: Sequence[Score | None], fits: set[str], comparisons: int) -> str:
    text = [
        f"{results.metric.label} on the test split, mean ± half of the 95 % t interval over seeds. Rows of one way "
        f"differ in what says the ratios, and in the learning rate that it needs. {REDUCTION}",
        f"Difference and ratio are paired by seed against the table of logits of the same way, NFE and denoiser; p is "
        f"the paired t test on log ratios, Holm-corrected over the {formats.plural(comparisons, 'comparison')} of this "
        f"table." if comparisons else "",
        "Trainable parameters are those of both networks, image and noise; at four bytes each they are the bytes of "
        "weights. All that sampling needs are the scalars of the path. The published sizes are Tab. 3's, of one "
        "network's checkpoint file with the optimiser's state: its KiB over 1000.",
        published.PARAMETERISATIONS if PUBLISHED_FIT in fits else "",
        context(results, scores),
    ]  # fmt: skip
    return " ".join(part for part in text if part)


def _without_network(setting: Setting) -> tuple[tuple[str, str], ...]:
    leaves = setting.leaves.items()
    return tuple(sorted(
        (path, formats.level(value)) for path, value in leaves
        if value is not None and not path.startswith(_NOT_THE_WAY)
    ))  # fmt: skip


def _kind(way: Way, n: int) -> str:
    return str(way.settings[n].leaves.get("network.kind"))

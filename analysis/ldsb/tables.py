"""Tables of LDSB, and the first of them: each denoiser with every way of fitting beside its other samplers."""

from collections.abc import Sequence
from typing import Any

from analysis import formats
from analysis.ldsb import published
from analysis.ldsb.controls import controls_table
from analysis.ldsb.names import PUBLISHED_FIT
from analysis.ldsb.parameterisations import parameterisations_table
from analysis.ldsb.paths import paths_table
from analysis.ldsb.ways import REDUCTION, Denoiser, Original, Way, context, facets, read_denoisers
from analysis.results import Results
from analysis.statistics import mean_interval
from analysis.tables import Column, Table, at

_DISTANCE = (
    "Teacher distance: root mean square between a sampler's images and those that 100 Heun steps of the same "
    "denoiser's probability flow make of the same noise; a Fréchet distance may reward images that no flow makes."
)


def ldsb_tables(results: Results, denoisers: Sequence[Denoiser] | None = None) -> list[Table]:
    """Every table that the ablation's runs of LDSB can fill; none without such runs."""
    denoisers = read_denoisers(results) if denoisers is None else denoisers
    found = [against_table(denoiser) for denoiser in denoisers]
    if denoisers:
        found += [parameterisations_table(denoisers), controls_table(denoisers), paths_table(denoisers)]
    return [table for table in found if table.rows]


def against_table(denoiser: Denoiser) -> Table:
    """Tab. 4 and 5: every way at every NFE beside the original path and the other samplers of one denoiser."""
    short = denoiser.results.metric.short
    columns = [Column("way", "way"), Column("grid", "node grid"), Column("n", "n (seeds)")]
    for n in denoiser.steps:
        columns += [
            Column(f"nfe_{n}", f"{short}, NFE {n}", "interval", at(n)),
            Column(f"reduction_{n}", f"reduction against the original, NFE {n}, %", "limits", at(n)),
            Column(f"best_{n}", f"against its best fixed grid, NFE {n}, %", "limits", at(n)),
            Column(f"teacher_{n}", f"teacher distance, NFE {n}", "interval", at(n)),
        ]
    columns += [Column("floor", "floor", "number"), Column("failed", "failed runs", "count")]
    title = f"LDSB against its denoiser: {denoiser.label}"
    table = Table(f"ldsb_against_{denoiser.slug}", title, _against_caption(denoiser), columns)
    originals = {n: denoiser.best_original(n) for n in denoiser.steps}
    beside = denoiser.published_way or next((way for way in denoiser.ways if way.fit == PUBLISHED_FIT), None)
    for way in denoiser.ways:
        _add_way(table, denoiser, way, originals)
        if way is beside:
            _add_published(table, denoiser)
    for sampler in denoiser.samplers():
        _add_sampler(table, denoiser, sampler, originals)
    return table


def _add_way(table: Table, denoiser: Denoiser, way: Way, originals: dict[int, Original | None]) -> None:
    row: dict[str, Any] = {"way": way.label, "grid": formats.level(way.grid)}
    for n, setting in way.settings.items():
        score = denoiser.score(way, n)
        row |= {
            f"nfe_{n}": denoiser.interval(way, n),
            f"reduction_{n}": denoiser.reduction(setting, score, denoiser.original(way, n)),
            f"best_{n}": denoiser.reduction(setting, score, originals[n]),
            f"teacher_{n}": denoiser.distance(setting, score),
        }
    row |= {"n": _counts(denoiser, row), "floor": denoiser.results.floor.mean, "failed": denoiser.failed(way)}
    first = next(iter(way.settings.values()))
    table.add(row, facets(denoiser.results, first), first.digest)


def _add_published(table: Table, denoiser: Denoiser) -> None:
    """The paper's reductions, in the column that means the same, and nothing else of it."""
    for row in published.reductions(denoiser.family, denoiser.results.dataset):
        values = {
            f"reduction_{n}": mean_interval([value])
            for n, value in zip(published.STEPS, row.reductions, strict=True) if n in denoiser.steps
        }  # fmt: skip
        if values:
            name = f"published: {row.name}, {row.source}"
            table.add({"way": name, "n": "1 run", **values}, denoiser.results.place)


def _add_sampler(table: Table, denoiser: Denoiser, sampler: str, originals: dict[int, Original | None]) -> None:
    assert denoiser.own is not None
    row: dict[str, Any] = {"way": f"other sampler: {formats.sampler(sampler)}"}
    grids = {}
    for n in denoiser.steps:
        score = denoiser.sampled(sampler, n)
        if score is None:
            continue
        grids[n] = formats.level(score.sampler[1])
        row |= {
            f"nfe_{n}": score.interval, f"best_{n}": denoiser.reduction(denoiser.own, score, originals[n]),
            f"teacher_{n}": denoiser.distance(denoiser.own, score),
        }  # fmt: skip
    if not grids:
        return  # its fewest calls are more than any path's
    each = [f"{n}: {grid}" for n, grid in grids.items()]
    row["grid"] = ", ".join(each) if len(set(grids.values())) > 1 else next(iter(grids.values()), "")
    failed = sum(run["status"] == "failed" for run in denoiser.results.setting_runs(denoiser.own))
    row |= {"n": _counts(denoiser, row), "floor": denoiser.results.floor.mean, "failed": failed}
    table.add(row, facets(denoiser.results, denoiser.own), denoiser.own.digest)


def _counts(denoiser: Denoiser, row: dict[str, Any]) -> str:
    """Seeds of a row: one number, or one for each NFE where they differ."""
    counts = [cell.n if (cell := row.get(f"nfe_{n}")) is not None else 0 for n in denoiser.steps]
    used = [count for count in counts if count]
    if len(set(used)) > 1:
        return ", ".join(str(count) if count else formats.ABSENT for count in counts)
    return str(used[0]) if used else "0"


def _against_caption(denoiser: Denoiser) -> str:
    results = denoiser.results
    best = {n: original for n in denoiser.steps if (original := denoiser.best_original(n)) is not None}
    grids = {n: formats.level(original.score.sampler[1]) for n, original in best.items()}
    named = ", ".join(f"{grid} at NFE {n}" for n, grid in grids.items())
    named = f"{named.split(' at ')[0]} at every NFE" if len(set(grids.values())) == 1 and len(grids) > 1 else named
    text = [
        f"{results.metric.label} on the test split, mean ± half of the 95 % t interval over seeds; a path of N nodes "
        f"takes N network calls. {REDUCTION} The original is the path without a fit on the way's own node grid.",
        f"Its best fixed grid was chosen on validation: {named}." if named else "",
        _stand_in(denoiser),
        _DISTANCE,
        "Other samplers run on the same denoiser with the time grid that validation chose at that NFE, and may take "
        "fewer calls than it." if denoiser.samplers() else "",
        "Rows marked published are the paper's reductions of FID, one run each on its data and denoisers; they enter "
        "no mean." if _shows_published(denoiser) else "",
        context(results, denoiser.scores),
    ]  # fmt: skip
    return " ".join(part for part in text if part)


def _stand_in(denoiser: Denoiser) -> str:
    """Where DDIM in the denoiser's own run takes the place of a run of the original path."""
    found = [(denoiser.original(way, n), n) for way in denoiser.ways for n in way.settings]
    found += [(denoiser.best_original(n), n) for n in denoiser.steps]
    used = {
        (formats.level(original.score.sampler[1]), n) for original, n in found
        if original is not None and not original.recorded
    }  # fmt: skip
    if not used:
        return ""
    named = ", ".join(f"{grid} at NFE {n}" for grid, n in sorted(used))
    return (
        f"Where no run of the original path was made ({named}), DDIM on the same grid in the denoiser's own run takes "
        f"its place: the same steps but for rounding of times and the last node."
    )


def _shows_published(denoiser: Denoiser) -> bool:
    rows = published.reductions(denoiser.family, denoiser.results.dataset)
    fitted = any(way.fit == PUBLISHED_FIT for way in denoiser.ways)
    return bool(rows) and fitted and bool(set(published.STEPS) & set(denoiser.steps))

"""Tab. 2 to 7 of the LDSB paper from a study's own runs, with what the paper prints in columns of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from analysis import formats
from analysis.artifacts import Artifacts
from analysis.errors import InputError
from analysis.ldsb.names import (
    KANS,
    ORIGINAL,
    PUBLISHED_FIT,
    has_published_ends,
    is_control,
    network_name,
    procedure_name,
)
from analysis.ldsb.paths import read_path
from analysis.ldsb.ways import REDUCTION, Denoiser, Way, read_denoisers
from analysis.published import SOURCES, Published, published
from analysis.results import Results
from analysis.tables import Column, Table

_DATA = {"cifar10": "CIFAR-10", "celeba": "CelebA", "celeba_hq": "CelebA-HQ"}
_KAN, _MLP = "KAN", "MLP"


def quality_tables(parts: Sequence[Results], table: str, family: str) -> list[Table]:
    """Tab. 4 and 5: the denoiser's own path, LDSB's, and the reduction, a row a data set and NFE."""
    denoisers = _denoisers(parts, family)
    printed = published("LDSB", table)
    columns = [
        Column("data", "data set"), Column("nfe", "NFE", "count"), Column("metric", "metric"),
        Column("original", "original", "interval"), Column("ldsb", "LDSB", "interval"),
        Column("reduction", "reduction, %", "limits"), Column("n", "n (seeds)", "count"),
        Column("floor", "floor", "number"), Column("published_original", "published: original, FID", "number"),
        Column("published_ldsb", "published: LDSB, FID", "number"),
        Column("published_reduction", "published: reduction, %", "number"),
    ]  # fmt: skip
    made = Table(f"preset_ldsb_{table[-1]}", f"LDSB, {table}: {family} denoisers", "", columns)
    shown: set[tuple[str, int]] = set()
    procedures: set[str] = set()
    for denoiser in denoisers:
        way, results = denoiser.published_way, denoiser.results
        data = _DATA.get(results.dataset, formats.level(results.dataset))
        alone = sum(other.results is results for other in denoisers) == 1
        for n, setting in sorted(way.settings.items()) if way else ():
            assert way is not None
            original, score = denoiser.original(way, n), denoiser.score(way, n)
            procedures.add(procedure_name(way.leaves))
            shown.add((data, n))
            made.add({
                "data": data if alone else f"{data}, {denoiser.label}", "nfe": n,
                "metric": results.metric.label, "original": original.score.interval if original else None,
                "ldsb": denoiser.interval(way, n), "reduction": denoiser.reduction(setting, score, original),
                "n": denoiser.interval(way, n).n, "floor": results.floor.mean, **_of_quality(printed, data, n),
            }, results.place)  # fmt: skip
    for data, n in dict.fromkeys((item.data, item.nfe) for item in printed):
        if (data, n) not in shown:
            made.add({"data": f"{data} (published only)", "nfe": n, **_of_quality(printed, data, n)})
    ours = f"Ours is {' and '.join(sorted(procedures))}, test split, mean ± half of the 95 % t interval. {REDUCTION} "
    made.caption = (ours if procedures else "") + _source(table)
    return [made]


def parameterisation_tables(parts: Sequence[Results]) -> list[Table]:
    """Tab. 2: the published fit with each parameterisation of the ratios."""
    denoisers = _denoisers(parts, "DDIM")
    printed = {(item.row, item.nfe): item for item in published("LDSB", "Tab. 2")}
    steps = sorted({n for denoiser in denoisers for n in denoiser.steps} | {item.nfe for item in printed.values()})
    columns = [Column("data", "data set"), Column("network", "parameterisation")]
    for n in steps:
        columns += [Column(f"value_{n}", f"ours, NFE {n}", "interval"),
                    Column(f"published_{n}", f"published (CIFAR-10), FID, NFE {n}", "number")]  # fmt: skip
    columns += [Column("n", "n (seeds)", "count"), Column("floor", "floor", "number")]
    table = Table("preset_ldsb_2", "LDSB, Tab. 2: what says the ratios", "", columns)
    shown: set[str] = set()
    for denoiser in denoisers:
        for name, row, cells in _parameterised(denoiser):
            beside = {f"published_{n}": printed[row, n].value for n in steps if (row, n) in printed}
            shown.add(row)
            table.add({
                "data": formats.level(denoiser.results.dataset), "network": name, **cells, **beside,
                "floor": denoiser.results.floor.mean,
            }, denoiser.results.place)  # fmt: skip
    for row in dict.fromkeys(row for row, _ in printed if row not in shown):
        beside = {f"published_{n}": printed[row, n].value for n in steps if (row, n) in printed}
        table.add({"data": "CIFAR-10 (published only)", "network": row, **beside})
    first = denoisers[0].results
    table.caption = f"Ours: {first.metric.label} on the test split, the published fit. {_source('Tab. 2')}"
    return [table]


def size_tables(parts: Sequence[Results]) -> list[Table]:
    """Tab. 3: how large the networks of the ratios are."""
    printed = {item.nfe: item.value for item in published("LDSB", "Tab. 3")}
    columns = [
        Column("network", "parameterisation"), Column("nfe", "NFE", "count"),
        Column("parameters", "trainable parameters, both networks", "count"),
        Column("bytes", "bytes of weights", "count"), Column("published", "published, MB", "number"),
    ]  # fmt: skip
    table = Table("preset_ldsb_3", "LDSB, Tab. 3: sizes", "", columns)
    rows: dict[tuple[str, int], Any] = {}
    for denoiser in _denoisers(parts, None):
        for way in denoiser.ways:
            for n, setting in way.settings.items() if way.fit != ORIGINAL else ():
                runs = [run["network_parameters"] for run in denoiser.results.setting_runs(setting)]
                found = next((count for count in runs if count is not None), None)
                published_size = str(setting.leaves.get("network.kind")) in KANS
                published_size = published_size and setting.leaves.get("network.grid_size") == 2 * n
                rows.setdefault((network_name(setting.leaves), n), (found, printed.get(n) if published_size else None))
    for (name, n), (parameters, size) in sorted(rows.items(), key=lambda item: (item[0][1], item[0][0])):
        held = None if parameters is None else 4 * parameters
        table.add({"network": name, "nfe": n, "parameters": parameters, "bytes": held, "published": size})
    table.caption = (
        f"Bytes of weights: four a parameter. What the paper calls MB is the size in KiB, over 1000, of one network's "
        f"checkpoint with the optimiser's moments. {_source('Tab. 3')}"
    )
    return [table]


def path_tables(parts: Sequence[Results], table: str, family: str) -> list[Table]:
    """Tab. 6 and 7: the nodes of the original path, of ours, and as printed."""
    printed = {(item.data, item.nfe, item.t, item.quantity): item.value
               for item in published("LDSB", table) if item.row == "LDSB"}  # fmt: skip
    names = list(dict.fromkeys(key[0] for key in printed))
    columns = [
        Column("data", "data set"), Column("nfe", "NFE", "count"), Column("t", "t", "decimal"),
        Column("original_a", "a, original", "decimal"), Column("original_b", "b, original", "decimal"),
        Column("a", "a, ours", "interval"), Column("b", "b, ours", "interval"), Column("n", "n (seeds)", "count"),
    ]  # fmt: skip
    for name in names:
        columns += [Column(f"{quantity} {name}", f"{quantity}, published, {name}", "decimal") for quantity in "ab"]
    made = Table(f"preset_ldsb_{table[-1]}", f"LDSB, {table}: paths of {family} denoisers", "", columns)
    for denoiser in _denoisers(parts, family):
        way, artifacts = denoiser.published_way, Artifacts(denoiser.results.collected)
        for n, setting in sorted(way.settings.items()) if way else ():
            path = read_path(denoiser.results, artifacts, setting)
            for node, t in enumerate(path.arrays["original_times"].tolist() if path else ()):
                assert way is not None and path is not None
                # The paper counts the nodes of its grid in thousandths from 0; times of a chain are one further.
                thousandth = round(1000 * node / n) if way.grid == "leading_uniform" else None
                beside = {
                    f"{quantity} {name}": printed.get((name, n, thousandth, quantity))
                    for name in names for quantity in "ab"
                }  # fmt: skip
                made.add({
                    "data": formats.level(denoiser.results.dataset), "nfe": n, "t": t,
                    "original_a": float(path.arrays["original_image"][node]),
                    "original_b": float(path.arrays["original_noise"][node]), "a": path.spread("image", node),
                    "b": path.spread("noise", node), "n": len(path.seeds), **beside,
                }, denoiser.results.place)  # fmt: skip
    if not made.rows:
        raise InputError(f"{parts[0].collected.folder}: no run of the published fit kept its path ({family} denoisers)")
    made.caption = (
        f"Ours: mean ± one standard deviation over seeds. {_source(table)} They stand beside nodes of the paper's "
        f"grid, leading uniform, alone."
    )
    return [made]


MAKERS: dict[str, Callable[[Sequence[Results]], list[Table]]] = {
    "ldsb-2": parameterisation_tables,
    "ldsb-3": size_tables,
    "ldsb-4": partial(quality_tables, table="Tab. 4", family="DDIM"),
    "ldsb-5": partial(quality_tables, table="Tab. 5", family="flow"),
    "ldsb-6": partial(path_tables, table="Tab. 6", family="DDIM"),
    "ldsb-7": partial(path_tables, table="Tab. 7", family="flow"),
}


def _denoisers(parts: Sequence[Results], family: str | None) -> list[Denoiser]:
    found = [denoiser for results in parts for denoiser in read_denoisers(results)]
    found = [denoiser for denoiser in found if family in (None, denoiser.family)]
    if not found:
        raise InputError(f"{parts[0].collected.folder}: fitted no path for a {family or 'known'} denoiser")
    return found


def _of_quality(printed: Sequence[Published], data: str, n: int) -> dict[str, float]:
    names = {("original", "FID"): "published_original", ("LDSB", "FID"): "published_ldsb",
             ("LDSB", "reduction"): "published_reduction"}  # fmt: skip
    return {names[item.row, item.quantity]: item.value for item in printed if (item.data, item.nfe) == (data, n)}


def _parameterised(denoiser: Denoiser) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, the paper's row, cells) of the original and of each parameterisation of the published fit."""
    ways = [way for way in denoiser.ways if way.fit == PUBLISHED_FIT and not is_control(way.leaves)]
    found: list[tuple[str, str, dict[str, Any]]] = []
    originals = {n: original for way in ways for n in way.settings if (original := denoiser.original(way, n))}
    if originals:
        cells: dict[str, Any] = {f"value_{n}": original.score.interval for n, original in originals.items()}
        found.append(("original", "original", cells | {"n": max(value.n for value in cells.values())}))
    for way in ways:
        cells = {f"value_{n}": denoiser.interval(way, n) for n in way.settings}
        found.append((way.label, _paper_row(way), cells | {"n": max(value.n for value in cells.values())}))
    return found


def _paper_row(way: Way) -> str:
    """The row that means the same; none of a path with ends of its own."""
    if not has_published_ends(way.leaves):
        return ""
    kind = str(way.leaves.get("network.kind"))
    if kind in KANS:
        return _KAN
    return _MLP if kind == "ratio_mlp" and way.leaves.get("network.squash") is False else kind


def _source(table: str) -> str:
    return f"Columns marked published are {table} of {SOURCES['LDSB']}, one run each; they enter no mean."

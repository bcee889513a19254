"""What the report holds of each run, for the panel that opens at a click: configuration, numbers, curves, path."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis import formats
from analysis.artifacts import Artifacts
from analysis.design import same
from analysis.ldsb.ways import METHOD as LDSB
from analysis.ldsb.ways import PATH_FILE
from analysis.quality import Score
from analysis.results import Results
from analysis.stages import kind_of
from analysis.tables_runs import is_outcome, run_facets, run_name

RUNS = 3_000  # that are told in full
CURVES = 2_000_000  # characters of all learning curves together
PATHS = 400  # runs whose learned path is held
_MOST, _LEAST = 120, 16  # points of a curve
_POINT = 13  # characters of a point, about
_ERROR = 4_000  # characters of an error
_OF_RUN = ("phase", "seed", "table")  # filters that a configuration says nothing of
_PATH = ("times", "image", "noise", "log_snr", "original_times", "original_image", "original_noise", "original_log_snr")
_OF_TRIAL = (
    "seconds", "training_seconds", "evaluation_seconds", "simulation_evaluations", "optimisation_evaluations",
    "denoiser_evaluations",
    "network_parameters", "peak_memory_bytes", "host", "device", "launcher", "num_workers", "attempt", "commit",
)  # fmt: skip

Curves = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclass
class Details:
    """Everything that the page holds of runs.

    Attributes:
        centres: configuration of each data set's centre by path.
        settings: {digest: its data set's place in `centres`, what differs from it, its name, what filters look at}.
        runs: one entry a run.
        left_out: in words, what was too much.
    """

    centres: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def run_details(parts: Sequence[Results]) -> Details:
    """The runs of every data set, the ablation's first; past the limits the later ones have less."""
    details = Details()
    for place, results in enumerate(parts):
        details.centres.append(dict(results.design.centre))
        names = {setting.digest: setting for setting in results.settings}
        for phase in ("ablation", "search"):
            for run in results.runs[phase]:
                digest = str(run["digest"])
                if digest not in details.settings:
                    leaves = results.leaves_of(run)
                    setting = names.get(digest)
                    facets = run_facets(results, run, setting)
                    facets = {name: text for name, text in facets.items() if name not in _OF_RUN}
                    details.settings[digest] = {
                        "place": place, "name": setting.label if setting else _name(results, leaves, run),
                        "facets": facets, **_departure(results.design.centre, leaves),
                    }  # fmt: skip
                details.runs.append(_of_trial(run))
    every = len(details.runs)
    if every > RUNS:
        details.left_out.append(f"numbers and curves of {every - RUNS} runs")
    _add_numbers(details, parts)
    _add_curves(details, parts)
    _add_paths(details, parts)
    return details


def _of_trial(run: Mapping[str, Any]) -> dict[str, Any]:
    found = {"run": run_name(run), "digest": str(run["digest"]), "seed": int(run["seed"]), "phase": str(run["phase"]),
             "status": str(run["status"])}  # fmt: skip
    found |= {name: _plain(run.get(name)) for name in _OF_TRIAL if run.get(name) is not None}
    if run.get("error"):
        found["error"] = str(run["error"])[:_ERROR]
    if run.get("optuna_numbers"):
        found["optuna_numbers"] = list(run["optuna_numbers"])
    return found


def _departure(centre: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the centre, and which of the centre's values are absent."""
    changed = {
        path: value for path, value in leaves.items()
        if value is not None and (path not in centre or not same(value, centre[path]))
    }  # fmt: skip
    absent = [path for path, value in centre.items() if value is not None and leaves.get(path) is None]
    return {"changed": changed, **({"absent": absent} if absent else {})}


def _name(results: Results, leaves: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {level}" for name, level in results.levels(leaves).items()) or str(run["method"])


def _add_numbers(details: Details, parts: Sequence[Results]) -> None:
    """[metric, split, NFE or none, value] of each run: the primary metric at every NFE, then the others."""
    held = {run["run"]: run for run in details.runs[:RUNS]}
    for results in parts:
        for phase, scores in results.scores.items():
            for (digest, budget), score in scores.by_key.items():
                for split, values in (("test", score.test), ("validation", score.validation)):
                    for seed, value in values.items():
                        run = held.get(run_name({"digest": digest, "seed": seed, "phase": phase}))
                        if run is not None:
                            row = [results.metric.label, split, budget or None, _rounded(value)]
                            run.setdefault("numbers", []).append(row)
            for row in _others(results, phase):
                run = held.get(run_name({"digest": row.digest, "seed": row.seed, "phase": phase}))
                if run is not None:
                    calls = None if pd.isna(row.nfe) else int(row.nfe)
                    split = "" if pd.isna(row.split) else row.split
                    entry = [formats.metric(row.metric), split, calls, _rounded(row.value)]
                    run.setdefault("numbers", []).append(entry)


def _others(results: Results, phase: str) -> Sequence[Any]:
    """Each further metric of each run: with the sampler of its score and at most the headline's NFE, the last step."""
    names = [name for name in results.collected.metric_names if name != results.metric.name and is_outcome(name)]
    rows = results.collected.select(names)
    rows = rows[(rows["phase"] == phase) & (rows["role"] == "model") & rows["value"].notna()]
    rows = rows[(rows["split"] != "train") & (rows["nfe"].isna() | (rows["nfe"] <= results.headline))]
    if not len(rows):
        return []
    chosen: dict[str, Score] = {
        digest: score for (digest, n), score in results.scores[phase].by_key.items() if n == results.headline
    }  # fmt: skip
    wanted = rows["digest"].map({digest: score.sampler[0] for digest, score in chosen.items()})
    same_sampler = (rows["sampler"].astype(object) == wanted.astype(object)).fillna(False)
    rows = rows.assign(wanted=same_sampler, test=(rows["split"] == "test").fillna(False))
    rows = rows.sort_values(["wanted", "test", "nfe", "step"], na_position="first")
    last = rows.groupby(["digest", "seed", "metric"], sort=False, observed=True).tail(1)
    last = last[["digest", "seed", "metric", "split", "nfe", "value"]].sort_values("metric")
    return list(last.itertuples(index=False))


def _add_curves(details: Details, parts: Sequence[Results]) -> None:
    """The loss of each kind of stage; as many points as the limit leaves for each."""
    told = {run["run"]: run["digest"] for run in details.runs[:RUNS]}
    curves = {name: found for name, found in _curves(parts, told).items() if found}
    kinds = sum(len(found) for found in curves.values())
    points = int(min(_MOST, CURVES // max(1, _POINT * kinds)))
    kept = [run for run in details.runs if run["run"] in curves]
    if points < _LEAST:
        points = _LEAST
        kept = kept[: max(1, int(len(kept) * CURVES / (_POINT * _LEAST * kinds)))]
        details.left_out.append(f"learning curves of {len(curves) - len(kept)} runs")
    for run in kept:
        run["curves"] = {kind: _thinned(x, y, points) for kind, (x, y) in curves[run["run"]].items()}


def _curves(parts: Sequence[Results], digests: Mapping[str, str]) -> dict[str, Curves]:
    """{run: {kind of stage: (steps, losses)}} of the runs named; steps are those of the whole training."""
    found: dict[str, Curves] = {}
    for results in parts:
        own_runs = {str(run["digest"]) for runs in results.runs.values() for run in runs}
        rows = results.collected.losses(own_runs.intersection(digests.values()))
        kinds = {stage: kind_of(stage) for stage in rows["stage"].unique()}
        rows = rows.assign(kind=rows["stage"].map(kinds).astype("category")).sort_values("step", kind="stable")
        groups = rows.groupby(["digest", "seed", "phase", "kind"], sort=False, observed=True)
        for (digest, seed, phase, kind), own in groups:
            name = run_name({"digest": digest, "seed": seed, "phase": phase})
            if name in digests:
                steps, values = (own[column].to_numpy(dtype=float) for column in ("step", "value"))
                found.setdefault(name, {})[str(kind)] = (steps, values)
    return found


def _thinned(x: np.ndarray, y: np.ndarray, points: int) -> list[list[float | None]]:
    chosen = np.unique(np.linspace(0, len(x) - 1, min(points, len(x))).round().astype(int))
    return [[_rounded(value) for value in x[chosen]], [_rounded(value, 4) for value in y[chosen]]]


def _add_paths(details: Details, parts: Sequence[Results]) -> None:
    """The nodes of a learned path beside the original's."""
    artifacts = [Artifacts(results.collected) for results in parts]
    found = [
        run for run in details.runs[:RUNS]
        if run["status"] == "completed" and run["phase"] == "ablation" and _is_ldsb(details, run)
    ]  # fmt: skip
    if len(found) > PATHS:
        details.left_out.append(f"learned paths of {len(found) - PATHS} runs")
    for run in found[:PATHS]:
        own = artifacts[details.settings[run["digest"]]["place"]]
        arrays = own.arrays(run["digest"], run["seed"], PATH_FILE)
        if all(name in arrays and arrays[name].ndim == 1 for name in _PATH):
            run["path"] = {name: [_rounded(value) for value in arrays[name]] for name in _PATH}


def _is_ldsb(details: Details, run: Mapping[str, Any]) -> bool:
    setting = details.settings[run["digest"]]
    kind = setting["changed"].get("method.kind", details.centres[setting["place"]].get("method.kind"))
    return bool(kind == LDSB)


def _rounded(value: Any, digits: int = 6) -> float | int | None:
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 1e9 else float(f"{number:.{digits}g}")


def _plain(value: Any) -> Any:
    return _rounded(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else str(value)


def sentence(details: Details) -> str:
    """What the page lacks of its runs, or nothing."""
    if not details.left_out:
        return ""
    return (
        f"To keep this page small it leaves out {' and '.join(details.left_out)} "
        f"({formats.plural(len(details.runs), 'run')} in all; the ablation's come first); all are in trials/ and "
        f"metrics/."
    )

"""`python -m analysis tensorboard`: a study's runs as event files, for those who compare runs in TensorBoard.

tensorboardX loads torch where it is installed: nothing else of `analysis` imports this module.
"""

import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from analysis.collect import Collected
from analysis.data_sets import build_all
from analysis.errors import InputError
from analysis.results import Results

_UNFINISHED = ".unfinished"


def write_events(collected: Collected, out: Path | None) -> tuple[Path, int]:
    """Brings a folder of event files up to date, a folder a run; those of runs that have not changed stay.

    Scalars are the curves of each stage over its steps, and what was evaluated over network calls, as
    `metric/features/sampler/grid/split`. Hyperparameters are the parts of the configuration in which runs differ,
    with the study's own metric at the report's number of calls: of the ablation on test, of the search on validation.

    Args:
        collected: the records.
        out: where to (default: `tensorboard/` in the study's folder).

    Returns:
        The folder, and how many runs were written.

    Raises:
        InputError: nothing has been recorded yet.
    """
    if not len(collected.trials):
        raise InputError(f"{collected.folder}: no run has been recorded yet")
    folder = out or collected.folder / "tensorboard"
    runs = {
        f"{run['phase']}/{str(run['digest'])[:12]}-{run['seed']}-{run['attempt']}": (results, run)
        for results in build_all(collected) for phase in results.runs.values() for run in phase
    }  # fmt: skip
    for stale in {path.parent for path in folder.glob("*/*/events.*")} - {folder / name for name in runs}:
        shutil.rmtree(stale)
    left = {name: found for name, found in runs.items() if not (folder / name).is_dir()}
    if left:
        rows = dict(list(collected.metrics.groupby(["phase", "digest", "seed"], sort=False, observed=True)))
        varied = _varied({str(run["digest"]): results.leaves_of(run) for results, run in runs.values()})
        for name, (results, run) in left.items():
            own = rows.get((run["phase"], run["digest"], run["seed"]), collected.metrics.iloc[:0])
            _write_run(folder / name, results, run, own, varied)
    return folder, len(left)


def _write_run(folder: Path, results: Results, run: Mapping[str, Any], rows: pd.DataFrame, varied: set[str]) -> None:
    unfinished = folder.with_name(folder.name + _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    when = float(run["attempt"]) / 1000
    with SummaryWriter(str(unfinished)) as writer:
        leaves = results.leaves_of(run)
        outcome = _outcome(results, run)
        chosen = {path: leaves[path] for path in sorted(varied) if leaves.get(path) is not None}
        for summary in hparams({**chosen, "seed": int(run["seed"])}, outcome):
            writer.file_writer.add_summary(summary, walltime=when)
        for tag, value in outcome.items():
            writer.add_scalar(tag, value, results.headline, walltime=when)
        for tag, step, value in _scalars(rows):
            writer.add_scalar(tag, value, step, walltime=when)
    unfinished.rename(folder)


def _scalars(rows: pd.DataFrame) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of every finite number of a run; floors and nulls are told apart by their role."""
    ordered: Iterable[Any] = rows.sort_values(["step", "nfe"], na_position="first").itertuples(index=False)
    for row in ordered:
        if pd.isna(row.value) or not math.isfinite(row.value):
            continue
        sampled = not pd.isna(row.nfe)
        where = (row.sampler, row.grid) if sampled else (row.stage,)
        role = None if row.role == "model" else row.role
        step = row.nfe if sampled else row.step
        yield _tag(row.metric, row.features, *where, row.split, role), 0 if pd.isna(step) else int(step), row.value


def _tag(*parts: Any) -> str:
    """As TensorBoard groups them: by what comes before the first slash."""
    return "/".join(re.sub(r"[^-\w.]+", "_", str(part)) for part in parts if not pd.isna(part))


def _outcome(results: Results, run: Mapping[str, Any]) -> dict[str, float]:
    """The study's own metric of a run, as TensorBoard's table of hyperparameters shows it."""
    score = results.scores[str(run["phase"])].get(str(run["digest"]), results.headline)
    split = "test" if run["phase"] == "ablation" else "validation"
    values = {} if score is None else getattr(score, split)
    value = values.get(int(run["seed"]), math.nan)
    calls = f"{results.headline}_NFE" if results.headline else None
    return {_tag(results.metric.name, split, calls): float(value)} if math.isfinite(value) else {}


def _varied(trees: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Paths in which configurations differ."""
    seen: dict[str, set[str]] = {}
    for leaves in trees.values():
        for path, value in leaves.items():
            seen.setdefault(path, set()).add(json.dumps(value, sort_keys=True))
    present: dict[str, int] = {path: sum(path in leaves for leaves in trees.values()) for path in seen}
    return {path for path, values in seen.items() if len(values) > 1 or present[path] < len(trees)}

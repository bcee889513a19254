"""Brings the record parts of studies into the deduplicated `trials/` and `metrics/` that everything else reads."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pyarrow.fs as pafs

from analysis.errors import InputError, one_line
from analysis.files import write_atomically
from analysis.merge import last_metrics, last_trials, with_configuration
from analysis.parts import Part, find_parts
from analysis.sources import Source, open_source, storage_of
from analysis.stored import Dataset, Update, read_frame, text_values, update
from sbbridge.records import METRIC_KEY, METRICS_SCHEMA, TRIAL_KEY, flatten_config, trials_schema

_FILE = "part-0.parquet"
_STATE = ".collected"  # manifests: no part of the datasets, whose folders hold Parquet alone
_NAMES = ("trials", "metrics")


@dataclass
class Collected:
    """What a study's folder holds, deduplicated, and what of it could not be read.

    Attributes:
        folder: the study's folder.
        study: study.json as it was read.
        trials: one row a run (phase, digest, seed); the schema is `sbbridge.records.trials_schema`.
        problems: {path: reason} of every file that could not be used.
        digests: those of one data set of several, whose metrics alone are read.
        parts: the parts of the records, those of `problems` included.
    """

    folder: Path
    study: dict[str, Any]
    trials: pd.DataFrame
    problems: dict[str, str] = field(default_factory=dict)
    digests: frozenset[str] | None = None
    parts: Sequence[Part] = field(default=(), repr=False)
    _selected: dict[tuple[str, ...], pd.DataFrame] = field(default_factory=dict, repr=False)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a measured number (schema `sbbridge.records.METRICS_SCHEMA`): all of them, with every curve."""
        return self._read([])

    @cached_property
    def metric_names(self) -> list[str]:
        """Every metric that was recorded, in the order of the alphabet."""
        if self.digests is not None:
            return sorted(self._read([], ["metric", "digest"])["metric"].unique())
        return text_values(self._file, "metric")

    def select(self, names: Sequence[str]) -> pd.DataFrame:
        """The rows of some metrics; the rest of the file is not read."""
        key = tuple(sorted(names))
        if key not in self._selected:
            self._selected[key] = self._read([("metric", "in", list(key))] if key else [("metric", "==", "")])
        return self._selected[key]

    def losses(self, digests: Iterable[str]) -> pd.DataFrame:
        """The learning curves of some configurations: digest, seed, phase and stage as categories, step, value."""
        wanted = sorted(set(digests)) or [""]  # an empty list has no type
        filters: list[tuple[str, str, object]] = [("metric", "==", "loss"), ("digest", "in", wanted)]
        rows = read_frame(self._file, ("digest", "seed", "phase", "stage", "step", "value"), filters, categories=True)
        return rows[rows["step"].notna() & rows["stage"].notna() & rows["value"].notna()]

    def storage(self) -> tuple[pafs.FileSystem, str]:
        """Where records and artifacts lie: the folder, unless the study was given another storage."""
        return storage_of(str(self.folder), self.study)

    def of_data_set(self, dataset: str, entries: dict[str, Any]) -> "Collected":
        """One data set of several, with the entries of study.json that are its own; problems are shared by all."""
        trials = self.trials[self.trials["dataset"] == dataset]
        study = {**self.study, **entries, "dataset": dataset}
        return replace(self, study=study, trials=trials, digests=frozenset(trials["digest"]), _selected={})

    @property
    def _file(self) -> Path:
        return self.folder / "metrics" / _FILE

    def _read(self, filters: list[tuple[str, str, object]], columns: Sequence[str] | None = None) -> pd.DataFrame:
        frame = read_frame(self._file, columns, filters)
        return frame if self.digests is None else frame[frame["digest"].isin(list(self.digests))]


@dataclass(frozen=True)
class Gathered:
    """One study's datasets after a collection: where they are, how many rows, how many new parts, what was wrong."""

    name: str
    place: Path
    trials: Update
    metrics: Update
    parts: Sequence[Part] = field(repr=False)

    @property
    def problems(self) -> dict[str, str]:
        """{path: reason} of every part that could not be used."""
        return {**self.trials.problems, **self.metrics.problems}

    @property
    def new(self) -> int:
        """Parts that were read."""
        return self.trials.new + self.metrics.new


def collect(folder: str | Path) -> Collected:
    """Brings a study's `trials/` and `metrics/` up to date and opens them.

    The last attempt of a row wins. Parts that cannot be read are named in `problems`, never passed over in silence.

    Raises:
        InputError: there is no study in the folder, or its study.json cannot be used.
    """
    if "://" in str(folder):
        raise InputError(f"{folder}: collect it into a folder first (python -m analysis collect {folder} --out DIR)")
    folder = Path(folder)
    source = open_source(folder)
    gathered = _gather([source], folder)
    trials = read_frame(folder / "trials" / _FILE)
    return Collected(folder, source.study, trials, gathered.problems, parts=gathered.parts)


def gather(locations: Sequence[str], out: Path | None = None) -> list[Gathered]:
    """Collects studies, each into its own folder, or all into `out`: by study where there are several.

    One study alone becomes a study's folder at `out`, whose records and artifacts stay where they were.

    Raises:
        InputError: a location is no study, or two studies of one name differ in their configuration.
    """
    sources = [open_source(location) for location in locations]
    if out is None:
        for source in sources:
            if "://" in source.location:
                raise InputError(f"{source.location}: where should it be collected? (--out DIR)")
        return [_gather([source], Path(source.location)) for source in sources]
    if len(sources) == 1 and not _partitioned(out):
        _link(sources[0], out)
        return [_gather(sources, out)]
    if any((out / name / _FILE).is_file() for name in _NAMES):
        raise InputError(f"{out}: holds a single study; several need a folder of their own")
    grouped = _by_name(sources)
    for name, group in grouped.items():
        _check_origin(out, name, group)
    return [_gather(group, out, name) for name, group in grouped.items()]


def _gather(sources: Sequence[Source], place: Path, name: str | None = None) -> Gathered:
    """Brings the datasets of one study up to date, from every folder that it was run in."""
    try:
        parts = {kind: _parts(sources, kind) for kind in _NAMES}
    except OSError as error:
        raise InputError(f"{sources[0].location}: the study's storage cannot be read: {one_line(error)}") from error
    found = {kind: update(_dataset(sources[0], place, kind, name), parts[kind]) for kind in _NAMES}
    every = [*parts["trials"], *parts["metrics"]]
    return Gathered(name or sources[0].name, place, found["trials"], found["metrics"], every)


def _parts(sources: Sequence[Source], kind: str) -> list[Part]:
    found = [part for source in sources for part in find_parts(source.filesystem, f"{source.root}/records/{kind}")]
    return sorted(found, key=lambda part: part.path.rsplit("/", 1)[-1]) if len(sources) > 1 else found


def _dataset(source: Source, place: Path, kind: str, name: str | None) -> Dataset:
    partition = f"study={quote(name, safe=' ')}" if name else ""
    path, manifest = place / kind / partition / _FILE, place / _STATE / partition / f"{kind}.json"
    if kind == "metrics":
        return Dataset(path, manifest, METRICS_SCHEMA, (*METRIC_KEY, "value"), last_metrics, lambda table: table)
    columns = source.study["config_columns"]
    needed = (*TRIAL_KEY, "status", "config_json")
    left_out = ("study",) if name else ()
    return Dataset(
        path,
        manifest,
        trials_schema({}),
        needed,
        last_trials,
        lambda table: with_configuration(table, columns),
        left_out,
    )


def _partitioned(out: Path) -> bool:
    return any(out.glob("*/study=*"))


def _link(source: Source, out: Path) -> None:
    """Makes a folder the study's, with records and artifacts where they are; nothing where it is the study's own."""
    path = out / "study.json"
    if "://" not in source.location and out.resolve() == Path(source.location).resolve():
        return
    storage = source.study.get("storage") or _absolute(source.location)
    text = json.dumps({**source.study, "storage": storage}, indent=1, ensure_ascii=False)
    if path.is_file():
        held = open_source(out)
        if held.study.get("storage") != storage:
            raise InputError(f"{out}: holds another study, of {held.study.get('storage') or out}")
    write_atomically(path, text)


def _by_name(sources: Sequence[Source]) -> dict[str, list[Source]]:
    """Studies by name; those of one name must be of one configuration."""
    found: dict[str, list[Source]] = {}
    for source in sources:
        held = found.setdefault(source.name, [])
        if held and held[0].configuration != source.configuration:
            raise InputError(_clash(source.name, held[0], source))
        if all(_absolute(other.location) != _absolute(source.location) for other in held):
            held.append(source)
    return found


def _check_origin(out: Path, name: str, sources: Sequence[Source]) -> None:
    """A partition stays that of the folders it came from: rows of others would push them out."""
    path = out / _STATE / f"study={quote(name, safe=' ')}" / "origin.json"
    origin = sorted(_absolute(source.location) for source in sources)
    if path.is_file():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held != origin:
            raise InputError(
                f"{out}: “{name}” was collected from {', '.join(held)}, not from {', '.join(origin)}; name all folders "
                f"of it, or another --out"
            )
    write_atomically(path, json.dumps(origin))


def _clash(name: str, left: Source, right: Source) -> str:
    ours, theirs = flatten_config(left.configuration), flatten_config(right.configuration)
    path = next(path for path in sorted({*ours, *theirs}) if ours.get(path) != theirs.get(path))
    return (
        f"two studies are called “{name}” and differ in {path}: {_short(ours.get(path))} in {left.location}, "
        f"{_short(theirs.get(path))} in {right.location}; rename one of the folders"
    )


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:57]}…"


def _absolute(location: str) -> str:
    return location if "://" in location else str(Path(location).resolve())

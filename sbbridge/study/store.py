"""A study's folder, or the same layout at a URI: records, checkpoints, artefacts, and finished trials by digest."""

import contextlib
import io
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from sbbridge import records

DATASETS = ("trials", "metrics")
KINDS = ("records", "checkpoints", "artifacts")
KEPT_CHECKPOINTS = 2
"""Of each training: the newest, and one to fall back on."""


class Store:
    """Reads and writes one study's data through pyarrow's file systems; every write is whole or not at all.

    Args:
        location: a folder or a URI.
        config_columns: what study.json says of the configuration's columns.
    """

    def __init__(self, location: str, config_columns: Mapping[str, str]) -> None:
        self.filesystem, self.root = records.open_storage(location)
        self.config_columns = config_columns
        self._rows: dict[str, list[dict[str, Any]]] = {}

    def add_trial(self, row: Mapping[str, Any]) -> None:
        """One more part of `trials`, with this row."""
        self._add("trials", [row], records.trials_schema(self.config_columns))

    def add_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """One more part of `metrics`, of one attempt at one trial."""
        self._add("metrics", rows, records.METRICS_SCHEMA)

    def trials(self) -> list[dict[str, Any]]:
        """The newest row of every (phase, digest, seed)."""
        return records.deduplicate(self.trial_rows(), records.TRIAL_KEY)

    def trial_rows(self) -> list[dict[str, Any]]:
        """Every row of every attempt, its configuration as `config_json`; a part, which never changes, is read once."""
        schema = records.trials_schema({})
        paths = self._parts("trials")
        self._rows = {path: self._rows[path] for path in paths if path in self._rows}
        for path in paths:
            if path not in self._rows:
                table, problems = records.read_parts(self.filesystem, [path], schema)
                if not problems:
                    self._rows[path] = table.to_pylist()
        return [dict(row) for path in paths for row in self._rows.get(path, ())]

    def torn_parts(self) -> list[str]:
        """Parts that were cut off, by their last bytes; an object store has none, its puts are whole."""
        if self.filesystem.type_name in records.OBJECT_STORES:
            return []
        return [path for name in DATASETS for path in self._parts(name) if not self._ends(path, b"PAR1")]

    def set_aside(self, path: str) -> None:
        """Keeps a file under a name that nobody reads."""
        self.filesystem.move(path, f"{path}.torn")

    def newest_attempt(self) -> int:
        """No row has a later attempt, whatever the clocks said when it was written; 0 where there are none."""
        stamps = [PurePosixPath(path).name.partition("-")[0] for name in DATASETS for path in self._parts(name)]
        return max((int(stamp) for stamp in stamps if stamp.isdigit()), default=0) // 10**6

    def finish(self, training_digest: str, digest: str, seed: int, result: Mapping[str, Any]) -> None:
        """Remembers that this training has been evaluated this way; `result` answers when it is asked for again.

        Of its checkpoints the newest stays, for other evaluations.
        """
        self.write(json.dumps(result).encode(), *self._result(training_digest, digest, seed))
        for path in self._checkpoints(training_digest, seed)[:-1]:
            self.delete(path)

    def finished(self, training_digest: str, digest: str, seed: int) -> dict[str, Any] | None:
        """What `finish` remembers, or None."""
        data = self.read(*self._result(training_digest, digest, seed))
        return json.loads(data) if data is not None else None

    def forget(self, training_digest: str, digest: str, seed: int) -> None:
        """Takes back `finish`: the training is evaluated anew when it is asked for."""
        self.delete(self._path(*self._result(training_digest, digest, seed)))

    def save_checkpoint(self, training_digest: str, seed: int, number: int, data: bytes) -> None:
        """Keeps a checkpoint, and those before it that are kept with it."""
        self.write(data, "checkpoints", f"{training_digest}-{seed}", f"{number:010d}.safetensors")
        for path in self._checkpoints(training_digest, seed)[:-KEPT_CHECKPOINTS]:
            self.delete(path)

    def checkpoints(self, training_digest: str, seed: int) -> Iterator[tuple[str, bytes]]:
        """(path, bytes) of what is kept, newest first."""
        for path in reversed(self._checkpoints(training_digest, seed)):
            try:
                data = self._read(path)
            except FileNotFoundError:  # another process that found it torn has deleted it
                continue
            yield path, data

    def delete(self, path: str) -> None:
        """Deletes a file, if nobody has yet."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(path)

    def names(self, *address: str) -> list[str]:
        """Of the files in a folder; an absent one has none."""
        selector = pafs.FileSelector(self._path(*address), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def remove(self, *address: str) -> None:
        """Deletes a file, if it is there."""
        self.delete(self._path(*address))

    def merge_arrays(self, digest: str, seed: int, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Adds arrays to `artifacts/<digest>-<seed>/<name>.npz`."""
        address = ("artifacts", f"{digest}-{seed}", f"{name}.npz")
        held: dict[str, npt.NDArray[Any]] = {}
        data = self.read(*address)
        if data is not None:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                held = {key: file[key] for key in file.files}
        buffer = io.BytesIO()
        merged: dict[str, Any] = {**held, **arrays}
        np.savez_compressed(buffer, **merged)
        self.write(buffer.getvalue(), *address)

    def sizes(self) -> dict[str, int]:
        """Bytes of what the store holds, by folder."""
        selectors = {name: pafs.FileSelector(self._path(name), allow_not_found=True, recursive=True) for name in KINDS}
        return {
            name: sum(info.size or 0 for info in self.filesystem.get_file_info(selector))
            for name, selector in selectors.items()
        }

    def write(self, data: bytes, *address: str) -> None:
        """A file, whole or not at all."""
        records.write_file(self.filesystem, self._path(*address), data)

    def read(self, *address: str) -> bytes | None:
        """A file's bytes, or None."""
        try:
            return self._read(self._path(*address))
        except FileNotFoundError:
            return None

    def _add(self, dataset: str, rows: Sequence[Mapping[str, Any]], schema: Any) -> None:
        if rows:
            first = rows[0]
            stamp = max(time.time_ns(), first["attempt"] * 10**6)  # no earlier than the attempt, see `newest_attempt`
            name = f"{stamp}-{first['digest']}-{first['seed']}-{uuid.uuid4().hex[:8]}"
            records.write_part(self.filesystem, self._path("records", dataset), name, rows, schema)

    def _parts(self, dataset: str) -> list[str]:
        return records.list_parts(self.filesystem, self._path("records", dataset))

    def _checkpoints(self, training_digest: str, seed: int) -> list[str]:
        folder = self._path("checkpoints", f"{training_digest}-{seed}")
        infos = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        stems = {info.path: info.base_name.removesuffix(".safetensors") for info in infos}
        return sorted((path for path, stem in stems.items() if stem.isdigit()), key=lambda path: int(stems[path]))

    def _result(self, training_digest: str, digest: str, seed: int) -> tuple[str, str, str]:
        return "checkpoints", f"{training_digest}-{seed}", f"result-{digest}.json"

    def _read(self, path: str) -> bytes:
        with self.filesystem.open_input_file(path) as stream:
            data: bytes = stream.read()
        return data

    def _ends(self, path: str, last: bytes) -> bool:
        with self.filesystem.open_input_file(path) as file:
            return bool(file.size() > len(last) and file.read_at(len(last), file.size() - len(last)) == last)

    def _path(self, *address: str) -> str:
        return str(PurePosixPath(self.root, *address))

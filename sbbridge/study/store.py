"""A study's folder, or the same layout at a URI: records, checkpoints, artefacts, and finished trials by digest."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.fs as pafs

from sbbridge import records


class Store:
    """Reads and writes one study's data through pyarrow's file systems; every write is atomic.

    Args:
        location: a folder or a URI.
        config_columns: what study.json says of the configuration's columns.
    """

    def __init__(self, location: str, config_columns: Mapping[str, str]) -> None:
        self.filesystem, self.root = records.open_storage(location)
        self.config_columns = config_columns

    def add_trial(self, row: Mapping[str, Any]) -> None:
        """One more part of `trials`, with this row."""
        name = f"{time.time_ns()}-{row['digest']}-{row['seed']}-{row['status']}"
        self._add("trials", name, [row], records.trials_schema(self.config_columns))

    def add_metrics(self, name: str, rows: list[dict[str, Any]]) -> None:
        """One more part of `metrics`."""
        self._add("metrics", name, rows, records.METRICS_SCHEMA)

    def trials(self) -> list[dict[str, Any]]:
        """The newest row of every (phase, digest, seed)."""
        schema = records.trials_schema(self.config_columns)
        paths = records.list_parts(self.filesystem, self._path("records", "trials"))
        table, _ = records.read_parts(self.filesystem, paths, schema)
        return records.deduplicate(table.to_pylist(), records.TRIAL_KEY)

    def finish(self, training_digest: str, digest: str, seed: int, result: Mapping[str, Any]) -> None:
        """Remembers that this training has been evaluated this way; `result` answers when it is asked for again."""
        self.write(json.dumps(result).encode(), *self._result(training_digest, digest, seed))

    def finished(self, training_digest: str, digest: str, seed: int) -> dict[str, Any] | None:
        """What `finish` remembers, or None."""
        data = self.read(*self._result(training_digest, digest, seed))
        return json.loads(data) if data is not None else None

    def save_checkpoint(self, training_digest: str, seed: int, number: int, data: bytes) -> None:
        """Keeps a checkpoint, and its predecessor until it is safely there."""
        folder = ("checkpoints", f"{training_digest}-{seed}")
        self.write(data, *folder, f"{number:010d}.safetensors")
        for path in self._checkpoints(training_digest, seed)[:-1]:
            self.filesystem.delete_file(path)

    def newest_checkpoint(self, training_digest: str, seed: int) -> bytes | None:
        """The newest checkpoint's bytes."""
        paths = self._checkpoints(training_digest, seed)
        return self._read(paths[-1]) if paths else None

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

    def write(self, data: bytes, *address: str) -> None:
        """A file, whole or not at all."""
        path = self._path(*address)
        self.filesystem.create_dir(str(PurePosixPath(path).parent), recursive=True)
        temporary = str(PurePosixPath(path).with_name(f".{PurePosixPath(path).name}-{time.time_ns()}.tmp"))
        with self.filesystem.open_output_stream(temporary) as stream:
            stream.write(data)
        self.filesystem.move(temporary, path)

    def read(self, *address: str) -> bytes | None:
        """A file's bytes, or None."""
        path = self._path(*address)
        return self._read(path) if self.filesystem.get_file_info(path).type == pafs.FileType.File else None

    def _add(self, dataset: str, name: str, rows: list[Any], schema: Any) -> None:
        if rows:
            records.write_part(self.filesystem, self._path("records", dataset), name, rows, schema)

    def _checkpoints(self, training_digest: str, seed: int) -> list[str]:
        folder = self._path("checkpoints", f"{training_digest}-{seed}")
        infos = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return sorted(i.path for i in infos if i.path.endswith(".safetensors") and not i.base_name.startswith("."))

    def _result(self, training_digest: str, digest: str, seed: int) -> tuple[str, str, str]:
        return "checkpoints", f"{training_digest}-{seed}", f"result-{digest}.json"

    def _read(self, path: str) -> bytes:
        with self.filesystem.open_input_file(path) as stream:
            data: bytes = stream.read()
        return data

    def _path(self, *address: str) -> str:
        return str(PurePosixPath(self.root, *address))

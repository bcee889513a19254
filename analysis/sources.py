"""Where a study is: its folder or URI, its study.json, and the storage that its records lie in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from analysis.errors import InputError, one_line
from sbbridge.records import SCHEMA_VERSION, open_storage, trials_schema

_CONFIGURATION = ("base", "design", "space", "problems", "primary_metric")


@dataclass(frozen=True)
class Source:
    """A study that can be read.

    Attributes:
        location: as the user gave it.
        study: study.json.
        schema: of `trials`.
        filesystem: where records and artifacts lie, unless the study was given another storage the location itself.
        root: the path there.
    """

    location: str
    study: dict[str, Any]
    schema: pa.Schema
    filesystem: pafs.FileSystem
    root: str

    @property
    def name(self) -> str:
        """The last part of its location: `asbm_sweep-digits-default`."""
        place = self.location.split("?")[0].rstrip("/") if "://" in self.location else Path(self.location).resolve()
        return PurePosixPath(place).name

    @property
    def configuration(self) -> dict[str, Any]:
        """What makes it the same study as another of its name."""
        return {name: self.study.get(name) for name in _CONFIGURATION}


def open_source(location: str | Path) -> Source:
    """Reads study.json at a folder or URI and opens the storage of its records.

    Raises:
        InputError: there is no study, or its study.json or storage cannot be used.
    """
    location = str(location)
    study = read_study(location)
    path = f"{location}/study.json"
    try:
        schema = trials_schema(study["config_columns"])
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: config_columns is missing or has an unknown type ({error})") from error
    try:
        filesystem, root = storage_of(location, study)
    except ValueError as error:
        raise InputError(f"{location}: the study's storage cannot be read: {one_line(error)}") from error
    return Source(location, study, schema, filesystem, root)


def read_study(location: str) -> dict[str, Any]:
    """study.json of a folder or URI, or an `InputError` that says in one line what is wrong with it."""
    path = f"{location.rstrip('/')}/study.json"
    try:
        filesystem, root = open_storage(location)
        folder, file = filesystem.get_file_info([root, f"{root}/study.json"])
        if folder.type == pafs.FileType.NotFound and file.type == pafs.FileType.NotFound:
            raise InputError(f"{location}: no such folder")
        if file.type != pafs.FileType.File:
            raise InputError(f"{location}: not a study (it holds no study.json)")
        with filesystem.open_input_file(file.path) as stream:
            study = json.loads(stream.read().decode("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {one_line(error)}") from error
    if not isinstance(study, dict):
        raise InputError(f"{path}: not a study (expected an object, found {type(study).__name__})")
    if study.get("schema_version") != SCHEMA_VERSION:
        found = study.get("schema_version")
        raise InputError(f"{path}: schema version {found}, but this version of sbbridge reads {SCHEMA_VERSION}")
    return study


def storage_of(location: str, study: Mapping[str, Any]) -> tuple[pafs.FileSystem, str]:
    """Where the records and artifacts of a study lie."""
    return open_storage(study.get("storage") or location)

"""Reading many part files at once, and what happens to the batch when one of them is not as it should be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from analysis import parts
from analysis.parts import encoded, find_parts, read_all
from sbbridge.records import METRICS_SCHEMA

SCHEMA = METRICS_SCHEMA.remove_metadata()
NEEDED = ("digest", "seed", "metric")


def rows(seed: int, count: int = 40) -> pa.Table:
    """Random rows of every type, with gaps."""
    generator = np.random.default_rng(seed)
    columns = []
    for field in SCHEMA:
        values = generator.integers(0, 9, count)
        gaps = generator.random(count) < 0.3
        if pa.types.is_string(field.type):
            columns.append(pa.array([f"{field.name} é{value}" for value in values], mask=gaps))
        else:
            columns.append(pa.array(values * 0.5 if pa.types.is_floating(field.type) else values, field.type, gaps))
    return pa.Table.from_arrays(columns, schema=METRICS_SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(8):
        pq.write_table(rows(index), tmp_path / f"{index}.parquet", compression="zstd")
    return tmp_path


def read(folder: Path) -> tuple[pa.Table, dict[str, str]]:
    return read_all(find_parts(pafs.LocalFileSystem(), str(folder)), SCHEMA, NEEDED)


def same(table: pa.Table, tables: list[pa.Table]) -> bool:
    assert table.schema == encoded(SCHEMA)
    return table.cast(SCHEMA).equals(pa.concat_tables(tables).replace_schema_metadata(None))


def test_files_are_read_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_read_apart", None)  # not needed
    table, problems = read(folder)
    assert problems == {}
    assert same(table, [rows(index) for index in range(8)])


def without(path: Path) -> pa.Table:
    """A column of later versions is missing."""
    table = pq.read_table(path).drop_columns(["role"])
    pq.write_table(table, path)
    gap = pa.nulls(len(table), pa.string())
    return pa.Table.from_arrays(
        [gap if name == "role" else table.column(name) for name in SCHEMA.names], schema=METRICS_SCHEMA
    )


def more(path: Path) -> pa.Table:
    """A column that this version does not know."""
    table = pq.read_table(path)
    pq.write_table(table.append_column("later", pa.array(range(len(table)))), path)
    return table


def other_type(path: Path) -> pa.Table:
    """Counts as floating numbers."""
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "seed", table.column("seed").cast(pa.float64())), path)
    return table


@pytest.mark.parametrize("change", [without, more, other_type])
def test_files_of_another_version_are_read_too(folder: Path, change: Callable[[Path], pa.Table]) -> None:
    changed = change(folder / "3.parquet")
    table, problems = read(folder)
    assert problems == {}
    assert same(table, [changed if index == 3 else rows(index) for index in range(8)])


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "0 bytes"), (b"PAR1 and then nothing", "magic"), (b"PAR1" + b"\0" * 100 + b"PAR1", ""),
    (b"text " * 50, "magic"),
])  # fmt: skip
def test_a_file_that_is_none_is_named_and_the_others_are_read(folder: Path, content: bytes, reason: str) -> None:
    (folder / "3.parquet").write_bytes(content)
    table, problems = read(folder)
    assert list(problems) == [str(folder / "3.parquet")]
    assert reason in problems[str(folder / "3.parquet")]
    assert same(table, [rows(index) for index in range(8) if index != 3])


def test_another_schema_version_is_named(folder: Path) -> None:
    table = rows(3).replace_schema_metadata({"sbbridge_schema_version": "17"})
    pq.write_table(table, folder / "3.parquet")
    table, problems = read(folder)
    assert problems == {str(folder / "3.parquet"): "schema version 17, expected 1"}
    assert len(table) == 7 * 40


def test_damage_anywhere_never_stops_the_others(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is not noticed is in values alone; nothing is printed."""
    whole = (folder / "3.parquet").read_bytes()
    generator = np.random.default_rng(0)
    others = pa.concat_tables([rows(index) for index in range(8) if index != 3])
    noticed = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            damaged[place] = generator.integers(0, 256)
        (folder / "3.parquet").write_bytes(damaged)
        table, problems = read(folder)
        noticed += len(problems)
        assert set(problems) <= {str(folder / "3.parquet")}
        kept = table.cast(SCHEMA)
        assert kept.slice(0, 120).equals(others.slice(0, 120).replace_schema_metadata(None))
        assert kept.slice(len(kept) - 160).equals(others.slice(120).replace_schema_metadata(None))
    assert noticed > 20
    assert capfd.readouterr() == ("", "")

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from fabricated_study import CONFIG_COLUMNS, Fabricator, config, digest, evaluation_rows, frechet, study_json

from analysis.collect import collect
from analysis.errors import InputError
from sbbridge.records import (
    METRIC_KEY,
    METRICS_SCHEMA,
    deduplicate,
    list_parts,
    metric_row,
    open_storage,
    read_parts,
    trials_schema,
)


def loss(value: float, attempt: int, **fields: object) -> dict[str, object]:
    place = {"digest": digest(config()), "seed": 0, "phase": "ablation", "stage": "backward", "step": 10}
    return metric_row("loss", value, **{**place, **fields}, attempt=attempt)


def test_the_last_attempt_wins_whatever_the_order_of_the_files(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.write_trials(maker.trial(config(), 0, attempt=2000, seconds=2.0))
    maker.write_trials(maker.trial(config(), 0, attempt=1000, seconds=1.0))
    maker.write_metrics(loss(0.2, 2000))
    maker.write_metrics(loss(0.1, 1000), loss(0.5, 1000, step=20))
    collected = collect(tmp_path)
    assert collected.trials["seconds"].tolist() == [2.0]
    assert sorted(collected.metrics["value"]) == [0.2, 0.5]


def test_phases_and_seeds_are_kept_apart(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.write_trials(maker.trial(config(), 0), maker.trial(config(), 1), maker.trial(config(), 0, "search"))
    assert len(collect(tmp_path).trials) == 3


@pytest.mark.parametrize("order", [("running", "completed"), ("completed", "running")])
def test_running_gives_way_to_the_outcome_of_the_same_attempt(tmp_path: Path, order: tuple[str, str]) -> None:
    maker = Fabricator(tmp_path)
    for status in order:
        maker.write_trials(maker.trial(config(), 0, status=status))
    assert collect(tmp_path).trials["status"].tolist() == ["completed"]


def test_a_later_attempt_that_was_cut_off_is_running(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.write_trials(maker.trial(config(), 0, status="failed", attempt=1000))
    maker.write_trials(maker.trial(config(), 0, status="running", attempt=2000))
    assert collect(tmp_path).trials["status"].tolist() == ["running"]


def test_a_repeated_proposal_carries_all_its_numbers(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.write_trials(maker.trial(config(), 0, "search", optuna_numbers=[4], attempt=1000))
    maker.write_trials(maker.trial(config(), 0, "search", optuna_numbers=[9, 4], attempt=2000))
    maker.write_trials(maker.trial(config(), 0, "search", optuna_numbers=None, attempt=3000))
    assert [list(numbers) for numbers in collect(tmp_path).trials["optuna_numbers"]] == [[4, 9]]


def test_the_columnar_deduplication_is_that_of_the_records(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for attempt in (3000, 1000, 2000):
        maker.write_metrics(*evaluation_rows(config(), 0, "ablation", frechet, attempt), loss(attempt / 1e3, attempt))
    filesystem, root = open_storage(str(tmp_path))
    table, _ = read_parts(filesystem, list_parts(filesystem, f"{root}/records/metrics"), METRICS_SCHEMA)
    expected = deduplicate(table.to_pylist(), METRIC_KEY)
    found = collect(tmp_path).metrics
    assert len(found) == len(expected)
    assert (found["attempt"] == 3000).all()
    assert sorted(found["value"]) == sorted(row["value"] for row in expected)


def test_what_is_written_is_one_sorted_file_with_the_schema(study: Path, collected: object) -> None:
    for name, schema in (("trials", trials_schema(CONFIG_COLUMNS)), ("metrics", METRICS_SCHEMA)):
        parts = list((study / name).iterdir())
        assert [part.name for part in parts] == ["part-0.parquet"]
        assert pq.read_schema(parts[0]).equals(schema)  # text, for every reader, although it is written encoded
        filesystem, root = open_storage(str(study))
        table, problems = read_parts(filesystem, list_parts(filesystem, f"{root}/{name}"), schema)
        assert not problems
        assert table.schema.equals(schema)
        frame = table.to_pandas()
        assert len(frame) > 40
        assert frame["metric" if name == "metrics" else "phase"].is_monotonic_increasing


def test_counts_stay_integers_and_collecting_twice_changes_nothing(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    maker.write_trials(maker.trial(config(), 1, status="failed", simulation_evaluations=None))
    first, second = collect(tmp_path), collect(tmp_path)
    assert str(first.trials["simulation_evaluations"].dtype) == "Int64"
    pd.testing.assert_frame_equal(first.metrics, second.metrics)


def test_a_torn_part_and_one_of_another_schema_are_named(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    torn = tmp_path / "records/metrics/torn.parquet"
    torn.write_bytes(b"PAR1 and then nothing")
    alien = tmp_path / "records/trials/alien.parquet"
    pd.DataFrame({"digest": ["x"]}).to_parquet(alien)
    (tmp_path / "records/trials/.hidden.tmp").write_bytes(b"half a file")
    collected = collect(tmp_path)
    assert set(collected.problems) == {str(torn), str(alien)}
    assert "schema version" in collected.problems[str(alien)]
    assert len(collected.trials) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema_version": 1, "study"', "cannot be read"),
        ("[]", "not a study"),
        ('{"schema_version": 99}', "schema version 99"),
        ('{"schema_version": 1}', "config_columns"),
        (json.dumps(study_json(config_columns={"a": "complex"})), "config_columns"),
        (json.dumps(study_json(storage="nowhere://bucket")), "cannot open the storage"),
    ],
)
def test_an_unusable_study_json_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        collect(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_study(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        collect(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no study"):
        collect(tmp_path)


def test_records_may_lie_in_another_storage(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path / "elsewhere")
    maker.run(config(), 0)
    study = tmp_path / "study"
    study.mkdir()
    (study / "study.json").write_text(json.dumps(study_json(storage=f"file://{tmp_path / 'elsewhere'}")))
    assert len(collect(study).trials) == 1
    assert (study / "trials/part-0.parquet").is_file()

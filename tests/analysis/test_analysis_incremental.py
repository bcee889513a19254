"""Collecting again, several studies at once, while something writes, and what other programs make of the result."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fabricated_study import Fabricator, config, evaluation_rows, frechet, study_json, write_artifacts

from analysis import stored
from analysis.__main__ import main
from analysis.collect import collect, gather
from analysis.errors import InputError
from analysis.merge import METRIC_ORDER, last_metrics
from analysis.parts import encoded
from sbbridge.records import METRIC_KEY, METRICS_SCHEMA, deduplicate, metric_row


def rows_of(folder: Path, kind: str) -> pd.DataFrame:
    """The collected rows in an order of their own."""
    table = pq.read_table(folder / kind / "part-0.parquet", partitioning=None)
    return table.to_pandas().sort_values(list(table.column_names[:4]), ignore_index=True)


def collected_anew(folder: Path, tmp_path: Path) -> pd.DataFrame:
    """The metrics as a first collection makes them."""
    (gathered,) = gather([str(folder)], tmp_path / "anew")
    assert gathered.new
    return rows_of(tmp_path / "anew", "metrics")


def test_only_new_parts_are_read_and_the_result_is_that_of_reading_all(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    maker = Fabricator(folder)
    maker.run(config(), 0)
    (first,) = gather([str(folder)])
    assert (first.trials.new, first.metrics.new) == (1, 1)
    maker.run(config(), 1)
    maker.write_trials(maker.trial(config(), 0, attempt=2000, seconds=7.0))
    (second,) = gather([str(folder)])
    assert (second.trials.new, second.metrics.new) == (2, 1)
    assert second.metrics.rows == 2 * first.metrics.rows
    pd.testing.assert_frame_equal(rows_of(folder, "metrics"), collected_anew(folder, tmp_path))
    trials = collect(folder).trials
    assert trials.loc[trials["seed"] == 0, "seconds"].tolist() == [7.0]


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    Fabricator(tmp_path).run(config(), 0)
    gather([str(tmp_path)])
    files = [*tmp_path.glob("*/part-0.parquet"), *tmp_path.glob(".collected/*.json")]
    before = {path: path.stat().st_mtime_ns for path in files}
    (again,) = gather([str(tmp_path)])
    assert len(files) == 4
    assert again.new == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_optuna_numbers_join_across_collections(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for attempt, number in ((1000, 4), (2000, 9), (1500, 2)):
        maker.write_trials(maker.trial(config(), 0, "search", optuna_numbers=[number], attempt=attempt))
        trials = collect(tmp_path).trials
    assert [list(numbers) for numbers in trials["optuna_numbers"]] == [[2, 4, 9]]
    assert trials["attempt"].tolist() == [2000]


def test_a_part_that_is_gone_takes_its_rows_with_it(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    kept = maker.write_metrics(*evaluation_rows(config(), 0, "ablation", frechet))
    gone = maker.write_metrics(*evaluation_rows(config(), 1, "ablation", frechet))
    assert set(collect(tmp_path).metrics["seed"]) == {0, 1}
    Path(gone).unlink()
    assert Path(kept).is_file()
    assert set(collect(tmp_path).metrics["seed"]) == {0}


def test_a_manifest_that_is_not_the_files_own_is_not_believed(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    gather([str(tmp_path)])
    path = tmp_path / "metrics/part-0.parquet"
    old = path.read_bytes()
    maker.run(config(), 1)
    gather([str(tmp_path)])
    path.write_bytes(old)  # as if another collector had written last
    assert set(collect(tmp_path).metrics["seed"]) == {0, 1}


def test_a_collector_that_dies_before_its_manifest_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    gather([str(tmp_path)])
    maker.run(config(), 1)
    with monkeypatch.context() as patch:
        patch.setattr(stored.json, "dumps", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            gather([str(tmp_path)])
    assert not list(tmp_path.glob(".collected/*.tmp"))
    assert set(collect(tmp_path).metrics["seed"]) == {0, 1}
    assert len(collect(tmp_path).trials) == 2


def test_a_new_configuration_column_reads_everything_again(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    gather([str(tmp_path)])
    columns = {**maker.study["config_columns"], "network.width": "int64"}
    (tmp_path / "study.json").write_text(json.dumps(study_json(config_columns=columns)))
    assert collect(tmp_path).trials["config.network.width"].tolist() == [256]


def test_a_torn_part_is_named_until_it_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    whole = Path(maker.write_metrics(*evaluation_rows(config(), 1, "ablation", frechet)))
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    for _ in range(2):
        assert main(["collect", str(tmp_path)]) == 1
        assert str(whole) in capsys.readouterr().err
    whole.write_bytes(content)
    assert main(["collect", str(tmp_path)]) == 0
    assert set(collect(tmp_path).metrics["seed"]) == {0, 1}


def test_a_part_of_metrics_among_the_trials_is_no_run(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    stray = Path(maker.write_metrics(metric_row("loss", 1.0, digest="d", seed=5, phase="ablation", attempt=1)))
    moved = stray.rename(tmp_path / "records/trials/stray.parquet")
    found = collect(tmp_path)
    assert "no column status, config_json" in found.problems[str(moved)]
    assert found.trials["seed"].tolist() == [0]


def test_the_columnar_merge_is_the_one_of_the_records() -> None:
    generator = np.random.default_rng(0)

    def pick(*values: object) -> object:
        return values[generator.integers(len(values))]

    rows = [
        metric_row(
            str(pick("loss", "fd")), float(index), digest=pick("b", "a", None), seed=pick(0, 1), phase="ablation",
            stage=pick("é", "z", None), step=pick(None, -3, 10**12), nfe=pick(None, 5), split=pick("test", None),
            attempt=pick(1, 2, None),
        )
        for index in range(3000)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=METRICS_SCHEMA)
    kept, positions = last_metrics(table.cast(encoded(METRICS_SCHEMA)))
    found = kept.take(pa.array(positions)).cast(METRICS_SCHEMA)
    expected = pa.Table.from_pylist(deduplicate(rows, METRIC_KEY), schema=METRICS_SCHEMA)
    assert found.equals(expected.sort_by([(name, "ascending") for name in METRIC_ORDER]))


def two_studies(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "one", tmp_path / "two"
    for folder, noise in zip(folders, (4.0, 8.0), strict=True):
        maker = Fabricator(folder)
        for seed in (0, 1, 2):
            maker.run(config(noise), seed)
    return folders


def test_several_studies_are_partitioned_and_keep_every_row(tmp_path: Path) -> None:
    folders, out = two_studies(tmp_path), tmp_path / "all"
    assert main(["collect", *map(str, folders), "--out", str(out)]) == 0
    assert {path.name for path in (out / "metrics").iterdir()} == {"study=one", "study=two"}
    frame = pd.read_parquet(out / "trials")
    assert sorted(zip(frame["study"], frame["seed"], strict=True)) == [(s, k) for s in ("one", "two") for k in range(3)]
    assert len(pd.read_parquet(out / "metrics")) == sum(len(collect(folder).metrics) for folder in folders)
    assert all(gathered.new == 0 for gathered in gather([str(folder) for folder in folders], out))


@pytest.mark.parametrize("engine", ["pandas", "duckdb", "polars"])
def test_other_programs_open_the_result_without_help(tmp_path: Path, engine: str) -> None:
    folders, out = two_studies(tmp_path), tmp_path / "all"
    gather([str(folder) for folder in folders], out)
    if engine == "pandas":
        frame = pd.read_parquet(out / "metrics")
        values = frame[(frame["metric"] == "frechet_distance") & (frame["nfe"] == 10)].groupby("study")["value"].mean()
        found = dict(values)
    elif engine == "duckdb":
        duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
        query = f"""select study, avg(value) from '{out}/metrics/*/*.parquet'
                    where metric = 'frechet_distance' and nfe = 10 group by study"""
        found = dict(duckdb.sql(query).fetchall())
    else:
        polars = pytest.importorskip("polars", reason="polars is not installed")
        frame = polars.scan_parquet(out / "metrics").filter(metric="frechet_distance", nfe=10)
        found = dict(frame.group_by("study").agg(polars.col("value").mean()).collect().iter_rows())
    for folder in folders:
        rows = collect(folder).select(["frechet_distance"])
        assert found[folder.name] == pytest.approx(rows.loc[rows["nfe"] == 10, "value"].mean())


def test_one_name_for_two_configurations_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("a/same", "b/same"):
        Fabricator(tmp_path / place).run(config(), 0)
    base = {**config(), "training": {"steps": 9, "batch_size": 256}}
    (tmp_path / "b/same/study.json").write_text(json.dumps(study_json(base=base)))
    locations = [str(tmp_path / place) for place in ("a/same", "b/same")]
    assert main(["collect", *locations, "--out", str(tmp_path / "all")]) == 2
    message = capsys.readouterr().err
    assert "two studies are called “same”" in message
    assert "base.training.steps: 2000" in message
    assert not (tmp_path / "all").exists()


def test_one_study_in_two_folders_is_joined(tmp_path: Path) -> None:
    for place, seed in (("a/same", 0), ("b/same", 1)):
        Fabricator(tmp_path / place).run(config(), seed)
    locations = [str(tmp_path / place) for place in ("a/same", "b/same")]
    out = tmp_path / "all"
    gather([*locations, str(two_studies(tmp_path)[0])], out)
    frame = pd.read_parquet(out / "trials")
    assert sorted(frame.loc[frame["study"] == "same", "seed"]) == [0, 1]
    with pytest.raises(InputError, match="was collected from"):  # its rows would be gone
        gather([locations[0], str(tmp_path / "one")], out)


def test_a_single_study_and_several_do_not_share_a_folder(tmp_path: Path) -> None:
    folders = [str(folder) for folder in two_studies(tmp_path)]
    gather(folders[:1], tmp_path / "out")
    with pytest.raises(InputError, match="holds a single study"):
        gather(folders, tmp_path / "out")
    with pytest.raises(InputError, match="holds another study"):
        gather(folders[1:], tmp_path / "out")


def test_a_study_behind_a_uri_becomes_a_folder_that_knows_where_its_artifacts_are(tmp_path: Path) -> None:
    folder, out = tmp_path / "far", tmp_path / "near"
    Fabricator(folder).run(config(), 0)
    write_artifacts(folder, config())
    uri = f"file://{folder}"
    assert main(["collect", uri]) == 2
    assert main(["collect", uri, "--out", str(out)]) == 0
    assert main(["table", uri]) == 2
    found = collect(out)
    assert len(found.trials) == 1
    filesystem, root = found.storage()
    assert [info.base_name for info in filesystem.get_file_info(_files(f"{root}/artifacts"))]
    assert not (folder / "metrics").exists()


def _files(folder: str) -> object:
    import pyarrow.fs

    return pyarrow.fs.FileSelector(folder)


def test_metrics_can_be_had_one_by_one(study: Path) -> None:
    found = collect(study)
    assert {"frechet_distance", "loss", "straightness"} <= set(found.metric_names)
    rows = found.select(["straightness"])
    assert set(rows["metric"]) == {"straightness"}
    assert len(rows) == (found.metrics["metric"] == "straightness").sum()
    assert found.select([]).empty


def test_collecting_while_parts_are_written(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    writer = threading.Thread(target=lambda: [maker.run(config(), seed) for seed in range(1, 15)])
    writer.start()
    while writer.is_alive():
        (found,) = gather([str(tmp_path)])
        assert not found.problems
    writer.join()
    assert sorted(collect(tmp_path).trials["seed"]) == list(range(15))
    assert len(collect(tmp_path).metrics.groupby("seed").size().unique()) == 1


def test_follow_sees_what_comes_and_ends_with_control_c(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    command = [sys.executable, "-m", "analysis", "collect", str(tmp_path), "--follow", "--interval", "0.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "1 run, " in process.stdout.readline()
        maker.run(config(), 1)
        assert "2 runs" in process.stdout.readline()
        time.sleep(0.5)  # nothing new: nothing said
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_study_that_has_only_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fabricator(tmp_path)
    assert main(["collect", str(tmp_path)]) == 0
    assert "no run has been recorded yet" in capsys.readouterr().out
    for command in (["table"], ["effects"]):
        assert main([*command, str(tmp_path)]) == 2
        assert "recorded" in capsys.readouterr().err

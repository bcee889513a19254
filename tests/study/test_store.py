"""The store: every write whole or not at all, on a folder, on a URI, and on a server of the S3 protocol."""

import json
import threading
import time
import uuid

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from sbbridge import records
from sbbridge.study.job import trial_row
from sbbridge.study.store import Store
from tests.study import s3_server, tiny


@pytest.fixture(params=["folder", "uri", "s3"])
def store(request, tmp_path, monkeypatch):
    location = tmp_path / "with space"
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        for name, value in s3_server.ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        return Store(server.uri(uuid.uuid4().hex), tiny.COLUMNS)
    return Store(location.as_uri() if request.param == "uri" else str(location), tiny.COLUMNS)


def row(store, status="completed", attempt=1, seed=0, tree=None, numbers=(), **fields):
    job = tiny.job("x", tree or tiny.tree(), seed=seed)
    return trial_row(job, {"status": status, "attempt": attempt, **fields}, list(numbers))


def loss(value, attempt=1):
    return records.metric_row("loss", value, digest="d", seed=0, phase="ablation", attempt=attempt)


def names(store, *address):
    selector = pafs.FileSelector(store._path(*address), recursive=True, allow_not_found=True)
    return [info.base_name for info in store.filesystem.get_file_info(selector)]


class TestTrials:
    def test_a_row_comes_back_with_its_configuration(self, store):
        store.add_trial(row(store, seconds=1.5, numbers=[3]))
        (back,) = store.trials()
        assert back["status"] == "completed"
        assert back["optuna_numbers"] == [3]
        assert json.loads(back["config_json"]) == tiny.tree()
        paths = records.list_parts(store.filesystem, store._path("records", "trials"))
        table, _ = records.read_parts(store.filesystem, paths, records.trials_schema(tiny.COLUMNS))
        assert table.column("config.reference.beta_max").to_pylist() == [4.0]
        assert (back["method"], back["dataset"], back["seconds"]) == ("asbm", "digits", 1.5)

    @pytest.mark.parametrize("order", [(1, 2), (2, 1)])
    def test_the_last_attempt_wins_in_whatever_order_they_were_written(self, store, order):
        for attempt in order:
            status = "completed" if attempt == 2 else "failed"
            store.add_trial(row(store, status, attempt, error=None if attempt == 2 else "OSError: gone"))
        (back,) = store.trials()
        assert (back["status"], back["attempt"], back["error"]) == ("completed", 2, None)

    def test_seeds_and_configurations_are_rows_of_their_own(self, store):
        for seed, tree in ((0, None), (1, None), (0, tiny.tree({"method.cycles": 3}))):
            store.add_trial(row(store, seed=seed, tree=tree))
        assert len(store.trials()) == 3

    def test_every_part_carries_the_whole_schema(self, store):
        store.add_trial(row(store))
        (path,) = records.list_parts(store.filesystem, store._path("records", "trials"))
        schema = pq.read_schema(path, filesystem=store.filesystem)
        assert schema.names == records.trials_schema(tiny.COLUMNS).names

    def test_an_empty_store_has_none(self, store):
        assert store.trials() == []
        assert store.finished("a", "b", 0) is None
        assert newest(store, "a", 0) is None
        assert store.newest_attempt() == 0


class TestAtomicity:
    def test_temporary_files_are_no_parts(self, store):
        store.add_trial(row(store))
        folder = store._path("records", "trials")
        with store.filesystem.open_output_stream(f"{folder}/.torn-1234.tmp") as stream:
            stream.write(b"PAR1")
        with store.filesystem.open_output_stream(f"{folder}/.torn.parquet") as stream:
            stream.write(b"PAR1")
        assert len(records.list_parts(store.filesystem, folder)) == 1
        assert len(store.trials()) == 1

    def test_no_temporary_file_is_left_behind(self, store):
        store.add_trial(row(store))
        store.add_metrics([loss(1.0)])
        store.finish("t", "d", 0, {"a": 1})
        store.save_checkpoint("t", 0, 1, b"x")
        store.merge_arrays("d", 0, "samples", {"a": np.zeros(3)})
        assert [name for name in names(store) if name.startswith(".") or name.endswith(".tmp")] == []

    @pytest.mark.parametrize("call", ["open_output_stream", "move"])
    def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(self, store, call):
        if call == "move" and store.filesystem.type_name == "s3":
            pytest.skip("an object store renames nothing")
        store.finish("t", "d", 0, {"a": 1})
        store.add_metrics([loss(1.0)])
        before = names(store)

        class Full:
            def __getattr__(self, name):
                if name == call:
                    raise OSError(28, "whatever pyarrow says")
                return getattr(store.filesystem, name)

        broken = Store.__new__(Store)
        broken.root, broken.config_columns = store.root, tiny.COLUMNS
        broken.filesystem = Full()
        path = store._path("checkpoints", "t-0", "result-d.json")
        with pytest.raises(OSError, match=rf"^cannot write {path}: No space left on device$"):
            broken.finish("t", "d", 0, {"a": 2})
        with pytest.raises(OSError, match=r"^cannot write .*/records/metrics/.*\.parquet: No space left on device$"):
            broken.add_metrics([loss(2.0)])
        assert store.finished("t", "d", 0) == {"a": 1}
        assert names(store) == before

    def test_a_reader_sees_the_old_file_or_the_new_one(self, store):
        """A thread rewrites one file over and over; every read is one whole version."""
        # pyarrow asks S3 for the size first: there, only versions of one size can be told from torn ones
        sizes = 1 if store.filesystem.type_name == "s3" else 3
        versions = [json.dumps({"v": v, "text": "x" * 5000 * (1 + v % sizes)}).encode() for v in range(6)]
        store.write(versions[0], "f.json")
        stop = threading.Event()

        def rewrite():
            while not stop.is_set():
                for version in versions:
                    store.write(version, "f.json")

        thread = threading.Thread(target=rewrite)
        thread.start()
        try:
            assert all(store.read("f.json") in versions for _ in range(100))
        finally:
            stop.set()
            thread.join()

    def test_a_torn_part_is_named_and_the_others_are_read(self, store):
        for seed in (0, 1):
            store.add_trial(row(store, seed=seed))
        paths = records.list_parts(store.filesystem, store._path("records", "trials"))
        with store.filesystem.open_input_file(paths[0]) as stream:
            whole = stream.read()
        with store.filesystem.open_output_stream(paths[0]) as stream:
            stream.write(whole[: len(whole) // 2])
        table, problems = records.read_parts(store.filesystem, paths, records.trials_schema(tiny.COLUMNS))
        assert list(problems) == [paths[0]]
        assert "\n" not in problems[paths[0]]
        assert table.num_rows == 1
        assert [r["seed"] for r in store.trials()] == [1]

    def test_a_part_of_another_schema_version_is_named(self, store):
        store.add_trial(row(store))
        (path,) = records.list_parts(store.filesystem, store._path("records", "trials"))
        table = pq.read_table(path, filesystem=store.filesystem, partitioning=None)
        old = table.replace_schema_metadata({"sbbridge_schema_version": "0"})
        pq.write_table(old, path, filesystem=store.filesystem)
        _, problems = records.read_parts(store.filesystem, [path], records.trials_schema(tiny.COLUMNS))
        assert problems == {path: "schema version 0, expected 1"}


class TestResults:
    def test_what_was_finished_comes_back(self, store):
        result = {
            "seconds": 1.25,
            "simulation_evaluations": 10**12,
            "entries": [{"metric": "x", "value": 0.1, "nfe": 1}],
        }
        store.finish("t", "d", 3, result)
        assert store.finished("t", "d", 3) == result

    def test_another_evaluation_seed_or_training_is_not_finished(self, store):
        store.finish("t", "d", 3, {})
        assert store.finished("t", "e", 3) is None
        assert store.finished("t", "d", 4) is None
        assert store.finished("u", "d", 3) is None


class TestAttempts:
    def test_the_newest_attempt_is_known_without_reading(self, store):
        now = time.time_ns() // 10**6
        store.add_trial(row(store, attempt=5))
        assert now <= store.newest_attempt() <= time.time_ns() // 10**6
        ahead = now + 3_600_000
        store.add_metrics([loss(1.0, ahead)])
        assert store.newest_attempt() == ahead

    def test_rows_of_one_attempt_are_parts_of_their_own(self, store):
        """Its clock has been an hour ahead: the parts' names begin alike."""
        ahead = time.time_ns() // 10**6 + 3_600_000
        for _ in range(3):
            store.add_metrics([loss(1.0, ahead)])
        assert len(records.list_parts(store.filesystem, store._path("records", "metrics"))) == 3


def newest(store, training_digest, seed):
    return next((data for _, data in store.checkpoints(training_digest, seed)), None)


class TestCheckpoints:
    def test_the_newest_two_are_kept_newest_first(self, store):
        for number in (5, 99_999, 100_000_000, 300_000_123):
            store.save_checkpoint("t", 0, number, str(number).encode())
        assert [data for _, data in store.checkpoints("t", 0)] == [b"300000123", b"100000000"]
        kept = ["0100000000.safetensors", "0300000123.safetensors"]
        assert sorted(name for name in names(store, "checkpoints") if name != "t-0") == kept

    def test_a_later_stage_is_newer_however_few_its_steps(self, store):
        store.save_checkpoint("t", 0, 1 * 10**8 + 90_000_000, b"first stage")
        store.save_checkpoint("t", 0, 2 * 10**8 + 5, b"second stage")
        assert newest(store, "t", 0) == b"second stage"

    def test_the_hundredth_stage_is_newer_than_the_one_before(self, store):
        for stage in (98, 99, 100, 101):
            store.save_checkpoint("t", 0, stage * 10**8 + 7, str(stage).encode())
        assert [data for _, data in store.checkpoints("t", 0)] == [b"101", b"100"]

    def test_files_of_other_names_are_nobodys_checkpoints(self, store):
        store.save_checkpoint("t", 0, 5, b"mine")
        store.write(b"a copy", "checkpoints", "t-0", "best.safetensors")
        store.write(b"hidden", "checkpoints", "t-0", ".7.safetensors")
        assert [data for _, data in store.checkpoints("t", 0)] == [b"mine"]

    def test_seeds_and_results_do_not_disturb_each_other(self, store):
        store.finish("t", "d", 0, {})
        store.save_checkpoint("t", 0, 1, b"zero")
        store.save_checkpoint("t", 1, 2, b"one")
        store.save_checkpoint("t", 0, 3, b"zero, later")
        assert (newest(store, "t", 0), newest(store, "t", 1)) == (b"zero, later", b"one")
        assert store.finished("t", "d", 0) == {}

    def test_one_that_another_process_has_deleted_is_passed_over(self, store):
        for number in (1, 2):
            store.save_checkpoint("t", 0, number, str(number).encode())
        found = store.checkpoints("t", 0)
        path, _ = next(found)
        assert path.endswith("0000000002.safetensors")
        store.delete(path.replace("0002", "0001"))
        store.delete(path.replace("0002", "0001"))
        assert list(found) == []


class TestArrays:
    def load(self, store, name):
        import io

        with np.load(io.BytesIO(store.read("artifacts", "d-0", f"{name}.npz")), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    def test_arrays_are_added_to_what_is_there(self, store):
        store.merge_arrays("d", 0, "spectrum", {"cycle_1": np.arange(3.0), "prior": np.ones(3)})
        store.merge_arrays("d", 0, "spectrum", {"cycle_2": np.arange(4), "prior": np.zeros(2)})
        held = self.load(store, "spectrum")
        assert set(held) == {"cycle_1", "cycle_2", "prior"}
        np.testing.assert_array_equal(held["cycle_1"], np.arange(3.0))
        np.testing.assert_array_equal(held["prior"], np.zeros(2))

    def test_names_are_files_of_their_own(self, store):
        store.merge_arrays("d", 0, "spectrum", {"a": np.ones(1)})
        store.merge_arrays("d", 0, "samples", {"b": np.ones(1, dtype=np.uint8)})
        assert set(self.load(store, "samples")) == {"b"}
        assert self.load(store, "samples")["b"].dtype == np.uint8

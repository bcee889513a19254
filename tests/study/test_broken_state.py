"""Files that are torn, clocks that go back, disks that are full: a clear line each, and nothing lost."""

import math
import os
import re
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from analysis.collect import collect
from sbbridge.records import METRIC_KEY, metric_row
from sbbridge.study import cli, design
from sbbridge.study.database import DatabaseError
from sbbridge.study.driver import Driver
from sbbridge.study.job import execute, trial_row
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.space import resolve
from sbbridge.study.store import Store
from sbbridge.study.trial import TrialConfig
from tests.study import tiny, tiny_study
from tests.training.recording import Killed, differing

EVERY_STEP = {"dataset": "gaussian64", "training.checkpoint_seconds": 1e-9}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trial that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    fields = execute(tiny.job(folder, tiny.tree(EVERY_STEP)))
    assert fields["status"] == "completed", fields
    return folder, fields


@pytest.fixture(scope="module")
def dead(tmp_path_factory):
    """The same, killed after its fourth checkpoint; a test takes a copy."""
    folder, saves = tmp_path_factory.mktemp("dead"), []
    with pytest.MonkeyPatch.context() as patch:

        def save(reporter, tensors, position, original=StudyReporter.save):
            original(reporter, tensors, position)
            saves.append(position)
            if len(saves) == 4:
                raise Killed

        patch.setattr(StudyReporter, "save", save)
        assert execute(tiny.job(folder, tiny.tree(EVERY_STEP)))["error"] == "Killed"
    return folder


class TestCheckpoints:
    def resumed(self, dead, tmp_path, damage):
        """What a trial that finds damaged checkpoints comes to; (paths newest first, fields)."""
        folder = shutil.copytree(dead, tmp_path / "copy")
        job = tiny.job(folder, tiny.tree(EVERY_STEP))
        paths = [path for path, _ in Store(str(folder), tiny.COLUMNS).checkpoints(job.training_digest, 0)]
        assert len(paths) == 2
        damage(paths)
        fields = execute(job)
        assert fields["status"] == "completed", fields
        return paths, fields, job

    def tear(self, path, share):
        with open(path, "r+b") as file:  # noqa: PTH123
            file.truncate(int(share * file.seek(0, 2)))

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_the_one_before_is_used_and_it_is_said(self, dead, whole, tmp_path, share):
        paths, fields, job = self.resumed(dead, tmp_path, lambda paths: self.tear(paths[0], share))
        (note,) = fields["notes"]
        assert note.startswith(f"{paths[0]}: not a usable checkpoint: ")
        assert note.endswith("; the checkpoint before it is used")
        assert "\n" not in note
        assert differing(tiny.weights(job.location, job.training_digest),
                         tiny.weights(whole[0], job.training_digest)) == []  # fmt: skip
        assert tiny.measured(job.location) == tiny.measured(whole[0])
        assert fields["optimisation_evaluations"] == whole[1]["optimisation_evaluations"]

    def test_with_none_that_can_be_used_the_training_starts_anew(self, dead, whole, tmp_path):
        paths, fields, job = self.resumed(dead, tmp_path, lambda paths: [self.tear(path, 0.5) for path in paths])
        assert [note.partition(":")[0] for note in fields["notes"]] == paths
        assert all(note.endswith("; the training starts anew") for note in fields["notes"])
        assert differing(tiny.weights(job.location, job.training_digest),
                         tiny.weights(whole[0], job.training_digest)) == []  # fmt: skip

    def test_a_torn_one_that_looks_newer_does_not_stay_the_newest(self, dead, tmp_path):
        """Neither for the next attempt, nor instead of the training's own last one."""
        torn = None

        def damage(paths):
            nonlocal torn
            torn = shutil.copy(paths[0], Path(paths[0]).with_name("9000000000.safetensors"))
            self.tear(torn, 0.5)

        paths, fields, job = self.resumed(dead, tmp_path, damage)
        assert [note.partition(":")[0] for note in fields["notes"]] == [str(torn)]
        assert not torn.exists()
        (last,) = [path for path, _ in Store(job.location, tiny.COLUMNS).checkpoints(job.training_digest, 0)]
        assert last > paths[0]

    def test_what_is_whole_is_not_spoken_of(self, dead, tmp_path):
        assert self.resumed(dead, tmp_path, lambda paths: None)[1]["notes"] == []

    def test_a_result_that_is_looked_up_says_it_no_more(self, dead, tmp_path):
        _, _, job = self.resumed(dead, tmp_path, lambda paths: self.tear(paths[0], 0.5))
        assert execute(job).get("notes", []) == []


def study(output, *arguments):
    """Two runs in this process."""
    given = ["--preset", "together", "--dataset", "gaussian64", "--output", str(output), *map(str, arguments)]
    return cli.main(tiny_study.STUDY, lambda folder: folder / "report.html", given)


@pytest.fixture
def here(monkeypatch):
    """Studies run without Ray; a driver's signal handler is put back."""
    tiny.without_ray(monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("here")
class TestClocks:
    def set_back(self, monkeypatch):
        now = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: now() - 3600 * 10**9)

    def test_a_driver_whose_clock_was_set_back_still_has_the_last_word(self, tmp_path, monkeypatch, capsys):
        with monkeypatch.context() as patch:
            patch.setattr("sbbridge.networks.mlp.ResidualMLP.forward", lambda *a: 1 / 0)
            assert study(tmp_path / "study") == 1
        failed = {row["attempt"] for row in tiny.trials(tmp_path / "study")}
        self.set_back(monkeypatch)
        assert study(tmp_path / "study") == 0, capsys.readouterr().err
        collect(tmp_path / "study")
        rows = tiny.collected(tmp_path / "study")
        assert [row["status"] for row in rows] == ["completed"] * 2
        assert min(row["attempt"] for row in rows) > max(failed)

    def test_numbers_measured_again_win_too(self, tmp_path, monkeypatch):
        """A metrics part of a killed attempt, whose trial has no row, counts as an attempt."""
        store = Store(str(tmp_path), tiny.COLUMNS)
        job = tiny.job(tmp_path, tiny.tree(EVERY_STEP))
        place = {"digest": job.digest, "seed": 0, "phase": "ablation", "stage": "backward", "step": 14}
        store.add_metrics([metric_row("loss", -1.0, **place, attempt=job.attempt())])
        self.set_back(monkeypatch)
        fields = execute(replace(job, after=store.newest_attempt()))
        assert fields["status"] == "completed", fields
        assert tiny.measured(tmp_path, "backward")
        assert -1.0 not in tiny.measured(tmp_path, "backward").values()


@pytest.mark.usefixtures("here")
class TestPartsOfRecords:
    def torn(self, folder, dataset, share):
        path = sorted((folder / "records" / dataset).glob("*.parquet"))[0]
        data = path.read_bytes()
        path.write_bytes(data[: int(share * len(data))])
        return path

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_a_row_is_looked_up(self, tmp_path, monkeypatch, capsys, share):
        folder = tmp_path / "study"
        assert study(folder) == 0
        before = {row["digest"]: row for row in tiny.trials(folder)}
        path = self.torn(folder, "trials", share)
        monkeypatch.setattr("sbbridge.study.trial.run_trial", lambda *a: pytest.fail("it was trained again"))
        capsys.readouterr()
        assert study(folder) == 0, capsys.readouterr().err
        first, *_ = capsys.readouterr().err.splitlines()
        assert first == f"{path} is torn: what it held is looked up, or measured again from the last checkpoint"
        after = {row["digest"]: row for row in tiny.trials(folder)}
        of_attempt = ("attempt", "host", "device")
        assert {d: {k: v for k, v in row.items() if k not in of_attempt} for d, row in after.items()} == \
               {d: {k: v for k, v in row.items() if k not in of_attempt} for d, row in before.items()}  # fmt: skip
        assert study(folder) == 0
        assert "torn" not in capsys.readouterr().err

    def test_numbers_are_measured_again_without_training(self, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "study"
        assert study(folder) == 0
        before = {tuple(row[name] for name in METRIC_KEY): row["value"] for row in tiny.metrics(folder)}
        monkeypatch.setattr("sbbridge.training.loop.Trainer._step", lambda *a: pytest.fail("it was trained again"))
        for _ in range(3):  # each time, the oldest part
            path = self.torn(folder, "metrics", 0.5)
            capsys.readouterr()
            assert study(folder) == 0, capsys.readouterr().err
            assert f"{path} is torn: what it held" in capsys.readouterr().err
            after = {tuple(row[name] for name in METRIC_KEY): row["value"] for row in tiny.metrics(folder)}
            assert after == {key: value for key, value in before.items() if key in after}
            lost = {key[METRIC_KEY.index("stage")] for key in set(before) - set(after)}
            assert "evaluation" not in lost  # a loss on the way is seen once

    def test_a_driver_that_is_killed_meanwhile_begins_again(self, tmp_path, monkeypatch, capsys):
        folder = tmp_path / "study"
        assert study(folder) == 0
        self.torn(folder, "metrics", 0.5)
        with monkeypatch.context() as patch:
            patch.setattr(Driver, "_run_jobs", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
            assert study(folder) == 130
        capsys.readouterr()
        assert study(folder) == 0
        assert "is torn" in capsys.readouterr().err
        collect(folder)
        evaluated = {row["digest"] for row in tiny.collected(folder, "metrics") if row["stage"] == "evaluation"}
        assert len(evaluated) == 2


class TestTheSearchsDatabase:
    @pytest.fixture
    def make(self, tmp_path):
        """Drivers of one study with a search."""
        output = tmp_path / "study"
        output.mkdir()
        options = Options("gaussian64", "default", output, str(output), 5, 1, {})
        return lambda: Driver(make_plan(tiny_study.STUDY, options))

    @pytest.fixture
    def searched(self, make):
        """A driver whose search has come to five ends; the last was killed."""
        driver = make()
        study = driver._open_search()
        measured = {1: 3.0, 2: math.nan}  # a training has one result, however often it is asked for
        outcomes = [("completed", 1), ("failed", 2), ("completed", 2), ("pruned", 1), ("completed", 1)]
        for nfe, (status, cycles) in zip((1, 4, 1, 4, 4), outcomes, strict=True):
            study.enqueue_trial({"method.cycles": cycles, "nfe": nfe})
            trial = study.ask()
            choices = driver.plan.space().suggest(trial)
            tree = resolve(TrialConfig, driver.plan.base, {"method.cycles": cycles})
            job = driver._job(tree, design.SEARCH_SEED, "search")
            driver.store.add_trial(trial_row(job, {"status": status}, [trial.number], choices))
            entries = [{"metric": driver._metric, "value": measured[cycles], "sampler": "exponential", "nfe": 1}]
            if status == "completed":
                driver.store.finish(job.training_digest, job.digest, job.seed, {"entries": entries})
            if status == "completed" and cycles == 1:
                study.tell(trial, [math.log(3.0), 1.0])
            else:
                study.tell(trial, state=TrialState.PRUNED if status == "pruned" else TrialState.FAIL)
        study.ask()
        return driver

    def told(self, driver):
        return [(t.number, t.state, t.params) for t in driver._open_search().get_trials(deepcopy=False)]

    @pytest.mark.parametrize("damage", ["header", "middle", "short", "empty", "gone"])
    def test_what_it_held_is_put_back_from_the_records(self, searched, make, damage, capfd):
        *before, orphan = self.told(searched)
        assert orphan[1] == TrialState.RUNNING
        values = [t.values for t in searched._open_search().get_trials(deepcopy=False)]
        path = searched.options.output / "optuna.db"
        data = path.read_bytes()
        torn = {"header": bytes(4096) + data[4096:], "middle": data[:8192] + os.urandom(len(data) - 8192),
                "short": data[: len(data) // 2], "empty": b""}  # fmt: skip
        path.write_bytes(torn[damage]) if damage in torn else path.unlink()
        again = make()
        assert self.told(again) == before
        err = capfd.readouterr().err.splitlines()
        if damage in ("header", "middle", "short"):
            assert re.fullmatch(rf"{path} is torn \(.+\): kept as optuna\.db\.torn-\d+", err[0]), err
            (kept,) = path.parent.glob("optuna.db.torn-*")
            assert kept.read_bytes() == torn[damage]
        assert err[-1] == "the search's 5 trials are put back from the records"
        assert len(err) == (2 if damage in ("header", "middle", "short") else 1)
        found = [t.values for t in again._open_search().get_trials(deepcopy=False)]
        assert [v for v in found if v] == [v for v in values if v]
        assert self.told(make()) == before
        assert capfd.readouterr().err == ""

    def test_rows_that_the_records_have_lost_are_put_back_from_it(self, searched, make):
        before = {row["optuna_numbers"][0]: row for row in searched.store.trial_rows()}
        for path in (searched.options.output / "records" / "trials").iterdir():
            path.unlink()
        driver = make()
        driver._open_search()
        after = {row["optuna_numbers"][0]: row for row in driver.store.trial_rows()}
        assert after.keys() == {0, 4}  # those that have a result
        for number, row in after.items():
            for name in ("phase", "digest", "seed", "status", "training_digest", "config_json", "optuna_choices"):
                assert row[name] == before[number][name]

    def test_the_search_goes_on_behind_them(self, searched, make):
        path = searched.options.output / "optuna.db"
        path.unlink()
        driver = make()
        (first,) = driver.plan.points
        study = driver._open_search()
        study.enqueue_trial(first, skip_if_exists=True)
        assert len(study.get_trials(deepcopy=False)) == 5  # the preset's own point is among them
        assert study.ask().number == 5

    def test_one_that_is_locked_is_not_torn(self, searched, make):
        path = searched.options.output / "optuna.db"
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(DatabaseError, match=r"^--optuna-storage sqlite:///.*: database is locked$"):
                make()._open_search()
        assert path.exists()

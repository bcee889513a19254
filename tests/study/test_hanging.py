"""Trials that hang: ended from outside, recorded in a clear line, tried again by the same command."""

import io
import time
from types import SimpleNamespace

import pytest

from sbbridge.study import ray_tune
from sbbridge.study.outcome import outcome
from sbbridge.study.progress import Progress
from sbbridge.study.store import Store
from tests.study import tiny
from tests.study.test_end_to_end import TINY, run

TOGETHER = ("--preset", "together", "--dataset", "gaussian64")


@pytest.fixture
def ended(monkeypatch):
    """What was killed."""
    killed = []
    monkeypatch.setattr("ray.kill", killed.append)
    return killed


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True}])
    return ray_tune.Recorder(Store(str(tmp_path), tiny.COLUMNS), Progress("search", 3, stream=io.StringIO()))


def trial(folder, timeout, seeds=1):
    jobs = [tiny.job(folder, tiny.tree(), seed, timeout=timeout).as_dict() for seed in range(seeds)]
    config = {"jobs": jobs, "metric": "frechet_distance", "curve": False, "optuna_number": None, "choices": None}
    return SimpleNamespace(trial_id="t", status="RUNNING", max_failures=2, config={"trial": config},
                           temporary_state=SimpleNamespace(ray_actor="its actor"))  # fmt: skip


def later(monkeypatch, seconds, now=time.monotonic):
    monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)


def test_it_is_ended_once_and_not_started_again(recorder, ended, tmp_path, monkeypatch):
    hung = trial(tmp_path, 60.0)
    recorder.on_trial_start(0, [hung], hung)
    later(monkeypatch, 60.0 + ray_tune.TIMEOUT_GRACE_S - 1)  # its own time to end itself
    recorder.on_step_end(1, [hung])
    assert ended == []
    later(monkeypatch, 60.0 + ray_tune.TIMEOUT_GRACE_S + 1)
    for iteration in (2, 3):
        recorder.on_step_end(iteration, [hung])
    assert ended == ["its actor"]
    assert hung.max_failures == 0
    recorder.on_trial_error(4, [hung], hung)
    (row,) = Store(str(tmp_path), tiny.COLUMNS).trials()
    assert row["status"] == "failed"
    assert row["error"] == "TimeoutError: the trial hung, and was ended 30 s after --trial-timeout 60"


def test_every_job_of_a_group_has_its_own_time(recorder, ended, tmp_path, monkeypatch):
    group = trial(tmp_path, 60.0, seeds=2)
    recorder.on_trial_start(0, [group], group)
    later(monkeypatch, 80.0)
    recorder.on_trial_result(1, [group], group, outcome(group.config["trial"] | {"nfe": 1, "sampler": None}, 0,
                                                                 {"status": "completed"}))  # fmt: skip
    later(monkeypatch, 150.0)
    recorder.on_step_end(2, [group])
    assert ended == []
    later(monkeypatch, 180.0)
    recorder.on_step_end(3, [group])
    assert ended == ["its actor"]


def test_without_a_timeout_nothing_is_ended(recorder, ended, tmp_path, monkeypatch):
    patient = trial(tmp_path, None)
    recorder.on_trial_start(0, [patient], patient)
    later(monkeypatch, 1e6)
    recorder.on_step_end(1, [patient])
    assert ended == []


@pytest.mark.slow
def test_a_study_in_which_one_hangs(tmp_path):
    """The others are done; with the file system back, the same command does the rest."""
    output = tmp_path / "study"
    rc, _, err = run("-m", "tests.study.hanging_study", *TOGETHER, "--output", output, "--trial-timeout", "40")
    assert rc == 1, err
    assert "failed: TimeoutError: the trial hung, and was ended 2 s after --trial-timeout 40" in err.splitlines()
    rows = tiny.collected(output)
    assert sorted(row["status"] for row in rows) == ["completed", "failed"]
    rc, _, err = run(*TINY, *TOGETHER, "--output", output, "--trial-timeout", "40")
    assert rc == 0, err
    assert [row["status"] for row in tiny.collected(output)] == ["completed"] * 2

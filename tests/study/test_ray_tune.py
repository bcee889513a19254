"""What the driver makes of Tune's and the cluster's answers, without either: resources, rows, groups, sessions."""

import io
import json
import math
import re
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from sbbridge.study import ray_cluster, ray_nodes, ray_tune
from sbbridge.study.driver import Driver
from sbbridge.study.outcome import point
from sbbridge.study.progress import Progress
from sbbridge.study.ray_cluster import ResourceError, Resources, concurrent_trials
from sbbridge.study.store import Store
from tests.study import tiny
from tests.study.test_driver import placed


@pytest.fixture
def cluster(monkeypatch):
    """A cluster of 4 CPUs whose autoscaler may bring it to 16 and 8 GPUs."""
    held, most = {"CPU": 4.0, "train_driver": 64.0}, {"CPU": 16, "GPU": 8}
    monkeypatch.setattr("ray.cluster_resources", lambda: held)
    monkeypatch.setattr(ray_cluster.state, "get_max_resources_from_cluster_config", lambda: most)
    return held, most


@pytest.mark.parametrize(
    ("resources", "trials"),
    [
        (Resources(), 16), (Resources(cpus=3.0), 5), (Resources(workers=4), 4), (Resources(max_concurrent=3), 3),
        (Resources(gpus=1.0), 8), (Resources(gpus=0.25), 32), (Resources(gpus=2.0, workers=4), 1),
    ],
)  # fmt: skip
def test_as_many_trials_run_as_the_cluster_may_grow_to_hold(cluster, resources, trials):
    assert concurrent_trials(resources) == trials


def test_an_endless_cluster_has_an_end(cluster, monkeypatch):
    endless = {"CPU": 2**63 - 1}
    monkeypatch.setattr(ray_cluster.state, "get_max_resources_from_cluster_config", lambda: endless)
    assert concurrent_trials(Resources()) == ray_cluster.MOST_TRIALS


def test_without_an_autoscaler_it_holds_what_it_holds(cluster, monkeypatch):
    monkeypatch.setattr(ray_cluster.state, "get_max_resources_from_cluster_config", lambda: None)
    assert concurrent_trials(Resources()) == 4


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (Resources("auto", workers=20, least_workers=20), "one trial needs 20 CPU, the cluster, .* has 16"),
        (Resources("local", workers=9, least_workers=9, gpus=1.0), "one trial needs 9 GPU, this machine has 8"),
    ],
)  # fmt: skip
def test_what_would_wait_for_ever_is_refused(cluster, resources, words):
    (line,) = ray_cluster._lacking(resources)
    assert re.match(words, line)


def test_fewer_workers_may_do(cluster):
    assert ray_cluster._lacking(Resources("auto", workers=20, least_workers=2)) == []


def test_all_that_is_lacking_is_said_at_once(cluster, monkeypatch, tmp_path):
    """CPUs, GPUs, a place for drivers, packages of nodes: one error."""
    cluster[0].pop("train_driver")
    monkeypatch.setattr("ray.init", lambda **given: SimpleNamespace(dashboard_url=None))
    monkeypatch.setattr(ray_nodes, "missing", lambda storage: ["192.0.2.7 lacks diffusers"])
    resources = Resources("192.0.2.1:6379", workers=20, least_workers=20, gpus=1.0, needs_train=True)
    with pytest.raises(ResourceError) as raised:
        ray_cluster.start(resources, tmp_path / "marker")
    words = ("20 CPU", "20 GPU", "no node of the cluster holds", "without the dashboard", "192.0.2.7 lacks diffusers")
    assert [word for word in words if word not in str(raised.value)] == []


def test_a_head_without_a_place_for_drivers_is_refused(cluster):
    cluster[0].pop("train_driver")
    assert ray_cluster._lacking(Resources("auto")) == []
    (line,) = ray_cluster._lacking(Resources("auto", needs_train=True))
    assert "ray start --head --resources=" in line


@pytest.mark.parametrize("needed", [True, False])
def test_worker_groups_need_a_head_with_a_dashboard(cluster, monkeypatch, tmp_path, needed):
    """It frees what a killed group held; without it, the next trial waits for ever."""
    monkeypatch.setattr("ray.init", lambda **given: SimpleNamespace(dashboard_url=None))
    monkeypatch.setattr(ray_nodes, "missing", lambda storage: [])
    resources = Resources("192.0.2.1:6379", needs_train=needed)
    with pytest.raises(ResourceError, match="without the dashboard") if needed else nullcontext():
        ray_cluster.start(resources, tmp_path / "marker")


def test_what_a_killed_driver_left_of_its_ray_is_deleted(tmp_path):
    session = tmp_path / "ray" / "session_2026"
    session.mkdir(parents=True)
    (session.parent / "session_latest").symlink_to(session)
    marker = tmp_path / ".ray-session"
    marker.write_text(str(session))
    ray_cluster._clean_after(marker)
    assert not session.exists()
    assert list(session.parent.iterdir()) == []
    assert not marker.exists()


def test_a_marker_that_names_something_else_deletes_nothing(tmp_path):
    (tmp_path / "mine").mkdir()
    marker = tmp_path / ".ray-session"
    marker.write_text(str(tmp_path / "mine"))
    ray_cluster._clean_after(marker)
    assert (tmp_path / "mine").exists()


class TestRecorder:
    @pytest.fixture
    def recorder(self, tmp_path):
        self.stream = io.StringIO()
        self.progress = Progress("search", 3, stream=self.stream)
        (tmp_path / "study.json").write_text(json.dumps({"config_columns": tiny.COLUMNS}))
        self.folder = tmp_path
        return ray_tune.Recorder(Store(str(tmp_path), tiny.COLUMNS), self.progress)

    def trial(self, seeds=1, curve=False, number=None):
        jobs = [tiny.job(self.folder, tiny.tree(), seed).as_dict() for seed in range(seeds)]
        fields = {"jobs": jobs, "metric": "frechet_distance", "curve": curve, "optuna_number": number,
                  "choices": None}  # fmt: skip
        return SimpleNamespace(trial_id=f"t{number}", config={"trial": fields})

    def result(self, index=0, quality=1.0, **fields):
        done = {"status": "completed", "attempt": 5 + index, "entries": [], **fields}
        return {"log_validation_quality": quality, "nfe": 5.0, "index": index, "fields": json.dumps(done)}

    def rows(self):
        return [(row["seed"], row["status"], row["optuna_numbers"]) for row in tiny.trials(self.folder)]

    @pytest.mark.parametrize("alive", [[True, False], [False, False], []])
    def test_it_raises_where_no_node_is_alive(self, recorder, monkeypatch, alive):
        monkeypatch.setattr(ray_tune, "LOOK_S", 0.0)
        monkeypatch.setattr("ray.nodes", lambda: [{"Alive": one} for one in alive])
        with nullcontext() if any(alive) else pytest.raises(ray_cluster.ClusterDied, match="the same command"):
            recorder.on_step_end(1, [])

    def test_every_job_of_a_group_gets_a_row_once(self, recorder):
        group = self.trial(seeds=3)
        for index in (0, 1, 1, 0):  # a trial that was restarted reports again
            recorder.on_trial_result(1, [], group, self.result(index))
        assert self.rows() == [(0, "completed", []), (1, "completed", [])]
        assert self.progress.done == 2
        assert {key[2] for key in recorder.answered} == {0, 1}

    def test_a_group_that_died_fails_the_job_it_was_at(self, recorder):
        group = self.trial(seeds=3)
        recorder.on_trial_result(1, [], group, self.result(0))
        recorder.on_trial_error(1, [], group)
        assert self.rows() == [(0, "completed", []), (1, "failed", [])]
        assert (self.progress.done, self.progress.failed) == (1, 1)
        assert {key[2] for key in recorder.answered} == {0, 1}  # the third is left to another group

    def test_points_of_a_curve_are_no_rows(self, recorder):
        trial = self.trial(curve=True, number=4)
        recorder.on_trial_result(1, [], trial, point(100, 3.0))
        assert not list(self.folder.glob("records/trials/*"))
        recorder.on_trial_complete(1, [], trial)
        assert self.rows() == [(0, "pruned", [4])]

    def test_a_trial_that_finished_is_not_pruned(self, recorder):
        trial = self.trial(curve=True, number=4)
        recorder.on_trial_result(1, [], trial, self.result())
        recorder.on_trial_complete(1, [], trial)
        assert self.rows() == [(0, "completed", [4])]

    def test_the_same_training_asked_for_twice_is_written_for_both(self, recorder):
        for number in (1, 2):
            recorder.on_trial_result(1, [], self.trial(number=number), self.result())
        assert [row[2] for row in self.rows()] == [[1], [2]]

    @pytest.mark.parametrize(("other", "status"), [(12.5, "completed"), (math.nan, "failed")])
    def test_a_proposal_without_a_score_fails_its_run_where_nothing_else_has_one(self, recorder, other, status):
        """The training is others' too, who may ask for another sampler or NFE."""
        entries = [{"metric": "frechet_distance", "value": value, "sampler": "heun", "nfe": nfe}
                   for nfe, value in ((5, math.nan), (10, other))]  # fmt: skip
        result = self.result(quality=math.nan, entries=entries)
        recorder.on_trial_result(1, [], self.trial(number=4), result)
        assert self.rows() == [(0, status, [4])]

    def test_notes_are_said_and_not_recorded(self, recorder):
        recorder.on_trial_result(1, [], self.trial(), self.result(notes=["0000.safetensors is torn"]))
        assert "0000.safetensors is torn" in self.stream.getvalue()

    def test_the_best_is_on_the_line(self, recorder):
        recorder.on_trial_result(1, [], self.trial(number=1), self.result(quality=math.log(20)))
        recorder.on_trial_result(1, [], self.trial(number=2), self.result(quality=math.nan))
        assert "best frechet distance 20 at NFE 5 (validation)" in self.progress.line()


class TestGroups:
    """The seeds of a configuration go through one worker group, and what it did not come to through another."""

    def run(self, tmp_path, monkeypatch, answers):
        asked = []

        def run_jobs(launch, configs):
            asked.append([[job["seed"] for job in config["jobs"]] for config in configs])
            jobs, seeds = [job for config in configs for job in config["jobs"]], answers[len(asked) - 1]
            return {(job["phase"], job["digest"], job["seed"]) for job in jobs if job["seed"] in seeds}

        monkeypatch.setattr(ray_cluster, "start", lambda resources, marker: None)
        monkeypatch.setattr(ray_tune, "run_jobs", run_jobs)
        driver: Driver = placed(tmp_path, launcher="train", seeds=3)
        jobs = [job for job in driver._ablation_jobs() if job.digest == driver.study["centre"]["digest"]]
        driver._run_jobs(jobs, "train", Progress("ablation", 3, stream=io.StringIO()))
        return asked

    def test_all_at_once(self, tmp_path, monkeypatch):
        assert self.run(tmp_path, monkeypatch, [{0, 1, 2}]) == [[[0, 1, 2]]]

    def test_a_broken_group_is_followed_by_another(self, tmp_path, monkeypatch):
        assert self.run(tmp_path, monkeypatch, [{0, 1}, {2}]) == [[[0, 1, 2]], [[2]]]

    def test_groups_that_answer_nothing_are_not_asked_for_ever(self, tmp_path, monkeypatch):
        assert self.run(tmp_path, monkeypatch, [{0}, set()]) == [[[0, 1, 2]], [[1, 2]]]

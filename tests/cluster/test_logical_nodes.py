"""Studies on a cluster of two logical nodes of this machine, named by its address: nothing here needs root."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sbbridge.records import METRIC_KEY, TRIAL_KEY
from tests.study import tiny
from tests.study.test_end_to_end import ROOT, TINY, study_json

pytestmark = pytest.mark.cluster
LIMIT_S = 600
TRIAL, WORKER = "ImplicitFunc", "RayTrainWorker"


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one CPU each, with a folder of their own: no other Ray of this machine finds them, or is found."""
    import ray
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as folder:  # sockets have short names
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        head = {"num_cpus": 1, "resources": {"train_driver": 1}, "include_dashboard": True, "dashboard_port": 0}
        made = Cluster(initialize_head=True, head_node_args=head)
        made.add_node(num_cpus=1)
        ray.init(made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()


def start(output, *arguments):
    command = [sys.executable, *TINY, "--output", str(output), *arguments]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def nodes_of(kind):
    """Where actors of this class live now."""
    from ray.util.state import list_actors

    actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True, raise_on_missing_output=False)
    return {actor.node_id for actor in actors if kind in actor.class_name}


def until(process, condition):
    """Waits for the condition while the study runs."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def finished(process, folder):
    """The study's rows: each once, all completed."""
    printed, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, printed
    assert "Traceback" not in printed
    rows = tiny.collected(folder)
    assert tiny.doubled(rows, TRIAL_KEY) == []
    assert tiny.doubled(tiny.collected(folder, "metrics"), METRIC_KEY) == []
    assert {row["status"] for row in rows} == {"completed"}
    assert [path for path in folder.iterdir() if path.name == ".ray"] == []
    return rows


def test_trials_run_on_both_nodes(cluster, tmp_path):
    process = start(tmp_path / "study", "--address", cluster.address, "--seeds", "2")
    until(process, lambda: len(nodes_of(TRIAL)) == 2)
    rows = finished(process, tmp_path / "study")
    assert sum(row["phase"] == "ablation" for row in rows) == 4
    assert study_json(tmp_path / "study")["sessions"][0]["address"] == cluster.address


def test_a_worker_group_spans_both_nodes(cluster, tmp_path):
    process = start(tmp_path / "study", "--address", cluster.address, "--num-workers", "2", "--trials", "1")
    until(process, lambda: len(nodes_of(WORKER)) == 2)
    rows = finished(process, tmp_path / "study")
    assert {row["num_workers"] for row in rows} == {2}


def test_a_study_outlives_a_node(cluster, tmp_path):
    process = start(tmp_path / "study", "--address", cluster.address, "--seeds", "3")
    until(process, lambda: len(nodes_of(TRIAL)) == 2)
    (node,) = cluster.worker_nodes
    cluster.remove_node(node, allow_graceful=False)
    rows = finished(process, tmp_path / "study")
    assert sum(row["phase"] == "ablation" for row in rows) == 6


def test_auto_finds_the_cluster_where_ray_keeps_its_files(cluster, tmp_path):
    """In $RAY_TMPDIR, not in /tmp."""
    assert Path(os.environ["RAY_TMPDIR"], "ray", "ray_current_cluster").read_text() == cluster.address
    process = start(tmp_path / "study", "--address", "auto", "--trials", "1")
    finished(process, tmp_path / "study")


def test_what_a_killed_worker_group_has_left_is_freed(cluster, monkeypatch):
    """Placement groups without an actor, after a while; not those of trials, and none that is used or waits."""
    import ray
    from ray.util.placement_group import placement_group, placement_group_table
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    from sbbridge.study import ray_cluster

    @ray.remote(num_cpus=1)
    class Worker:
        def answer(self):
            return 1

    lost, trial = placement_group([{"CPU": 1}, {"CPU": 1}]), placement_group([{"train_driver": 0.01}])
    ray.get([lost.ready(), trial.ready()])
    waiting = placement_group([{"CPU": 1}])
    groups = ray_cluster.LostGroups()
    assert groups.free() == 0
    monkeypatch.setattr(ray_cluster, "IDLE_S", 0.0)
    assert groups.free() == 1
    ray.get(waiting.ready())
    worker = Worker.options(scheduling_strategy=PlacementGroupSchedulingStrategy(waiting)).remote()
    assert ray.get(worker.answer.remote()) == 1
    groups.free()
    assert groups.free() == 0
    assert [placement_group_table(group)["state"] for group in (lost, trial, waiting)] == [
        "REMOVED", "CREATED", "CREATED",
    ]  # fmt: skip
    ray.kill(worker)
    deadline = time.monotonic() + 30
    while groups.free(over=True) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_worker_that_fails_ends_its_group(cluster, tmp_path, monkeypatch):
    """The other, in an exchange with it, does not wait until the backend's timeout of hours."""
    from sbbridge.study import ray_train

    def work(config):  # carried to the workers by value
        import torch.distributed

        from sbbridge.study.ray_train import work as whole
        from sbbridge.study.store import Store

        def full(self, *arguments):
            raise OSError("No space left on device")

        if torch.distributed.get_rank() == 0:
            Store.save_checkpoint = full
        return whole(config)

    monkeypatch.setattr(ray_train, "work", work)
    monkeypatch.setattr(ray_train, "COLLECTIVE_TIMEOUT_S", 200)  # so that the test ends when it fails
    job = tiny.job(tmp_path / "store", tiny.tree(), num_workers=2)
    config = {"least_workers": 2, "resources": {"CPU": 1}, "curve": False, "scratch": str(tmp_path / "scratch")}
    begun = time.monotonic()
    (fields,) = ray_train.run_workers([job], config)
    assert (fields["status"], fields["error"]) == ("failed", "OSError: No space left on device")
    assert time.monotonic() - begun < 120

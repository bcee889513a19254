"""What a study misses is one list, that a dry run prints and a run ends with before anything is written."""

import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sbbridge import config
from sbbridge.metrics.features import INCEPTION_FILE
from sbbridge.study import cli, driver, ray_nodes, requirements, tasks
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.ray_cluster import Cluster
from studies import asbm_sweep, ldsb_sweep


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in ("RAY_ADDRESS", "SB_DATA_ROOT", "SB_INCEPTION", "SB_AUTOENCODER", "SB_DENOISER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))
    monkeypatch.setattr(tasks, "open_task", lambda *arguments: pytest.fail("data were opened"))


def plan_of(dataset="cifar10", study=asbm_sweep, assignments=(), preset="smoke", **options):
    given = config.parse_assignments(list(assignments))
    return make_plan(study.STUDY, Options(dataset, preset, Path("/nowhere"), "/nowhere", 2, 1, given, **options))


def test_digits_miss_nothing():
    assert requirements.missing(plan_of("digits")) == []


def test_all_of_it_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    plan = plan_of("ffhq_latent", data_root=str(tmp_path), use_gpu=True, num_workers=4)
    lines = requirements.missing(plan)
    wanted = (
        f"no latents at {tmp_path / 'ffhq_latent'}", "needs SB_AUTOENCODER", f"needs {INCEPTION_FILE}",
        "--use-gpu: one trial needs 4 GPU, this machine has 0", "--num-workers 4 x --cpus-per-worker 1",
    )  # fmt: skip
    assert len(lines) == len(wanted)
    assert [words for words, line in zip(wanted, lines, strict=True) if words not in line] == [], lines


def test_fewer_workers_may_do(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    found = requirements.look(plan_of("digits", use_gpu=True, num_workers=2, min_workers=1))
    assert (found.missing, found.concurrent_trials, found.gpus) == ([], 1, ["NVIDIA H100 80GB HBM3"])


def test_as_many_trials_as_fit(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for options, fits in (({}, 8), ({"num_workers": 3}, 2), ({"cpus_per_worker": 2.0}, 4), ({"max_concurrent": 3}, 3)):
        assert requirements.look(plan_of("digits", **options)).concurrent_trials == fits


def test_what_is_there_is_not_missed_and_not_opened(monkeypatch, tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / INCEPTION_FILE).touch()
    monkeypatch.setenv("SB_INCEPTION", str(tmp_path))
    assert requirements.missing(plan_of(data_root=str(tmp_path))) == []


def test_uris_are_looked_at_and_nothing_is_copied(monkeypatch, tmp_path):
    plan = plan_of(data_root=f"file://{tmp_path}/data")
    monkeypatch.setenv("SB_INCEPTION", f"file://{tmp_path}/weights")
    data, weights = requirements.missing(plan)
    assert f"file://{tmp_path}/data/cifar-10-batches-py: no file is there" in data
    assert f"{INCEPTION_FILE} in file://{tmp_path}/weights" in weights
    (tmp_path / "data" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / INCEPTION_FILE).touch()
    assert requirements.missing(plan) == []
    assert [path for path in (tmp_path / "cache").glob("placed-*") if path.is_dir()] == []


def test_every_data_set_of_a_plan_is_looked_for():
    plan = plan_of()
    plan.bases["celeba"] = {**plan.base, "dataset": "celeba"}
    lines = requirements.missing(plan)
    assert [name for name in ("cifar10", "celeba") if any(f"dataset {name}" in line for line in lines)] == [
        "cifar10", "celeba",
    ]  # fmt: skip
    assert len(lines) == 3, "weights that both need are said once"


@pytest.mark.parametrize("where", [None, "/absent/folder", "file:///absent/folder"])
def test_a_denoiser(where, monkeypatch):
    if where:
        monkeypatch.setenv("SB_DENOISER", where)
    plan = plan_of("digits", ldsb_sweep, ["method.denoiser.kind=published"])
    (line,) = requirements.missing(plan)
    assert "SB_DENOISER" in line
    assert where is None or where in line


def test_a_dry_run_prints_the_list_and_says_so_by_its_status(capsys, tmp_path):
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "study"), "--dry-run"]
    assert cli.main(asbm_sweep.STUDY, lambda folder: folder, [*arguments, "--dataset", "cifar10"]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    _, _, missing = out.partition("\nmissing:\n")
    first, second = missing.splitlines()
    assert "dataset cifar10 needs --data-root" in first
    assert INCEPTION_FILE in second
    assert cli.main(asbm_sweep.STUDY, lambda folder: folder, arguments) == 0
    assert capsys.readouterr().out.endswith("\nmissing: nothing\n")
    assert not (tmp_path / "study").exists()


def test_a_run_ends_with_all_of_it_and_writes_nothing(capsys, tmp_path):
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "study"), "--dataset", "cifar10"]
    assert cli.main(asbm_sweep.STUDY, lambda folder: folder, arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: dataset cifar10 needs --data-root")
    assert f"; Inception FID needs {INCEPTION_FILE}" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_looking_takes_no_time():
    plan = plan_of()
    clock = time.process_time()
    requirements.missing(plan)
    assert time.process_time() - clock < 2


def test_a_cluster_is_asked_together_with_the_rest(monkeypatch):
    from sbbridge.study import ray_cluster

    asked = []

    def look(resources):
        asked.append(resources)
        return Cluster(["192.0.2.7 lacks diffusers", "one trial needs 4 GPU, the cluster has 0"], 3, ["A100"])

    monkeypatch.setattr(ray_cluster, "look", look)
    plan = plan_of(address="auto", use_gpu=True, num_workers=4, min_workers=2)
    found = requirements.look(plan)
    assert ["cifar10" in found.missing[0], "Inception" in found.missing[1]] == [True, True]
    assert found.missing[2:] == ["192.0.2.7 lacks diffusers", "one trial needs 4 GPU, the cluster has 0"]
    assert (found.concurrent_trials, found.gpus) == (3, ["A100"])
    (resources,) = asked
    assert (resources.workers, resources.least_workers, resources.gpus, resources.needs_train) == (4, 2, 1.0, True)


class TestNodes:
    """Without a cluster: tasks answer here."""

    @pytest.fixture
    def nodes(self, monkeypatch):
        """{address: what it says of its packages}; changed by tests."""
        import ray

        said = {"192.0.2.1": {}, "192.0.2.2": {}}
        listed = [{"Alive": True, "NodeID": "0" * 56, "NodeManagerAddress": address} for address in said]

        def remote(**options):
            def task(function):
                order = iter(said.values())

                def call(names, probe):
                    versions, sees = function(names, probe)
                    changes = next(order)
                    answer = versions | changes.get("versions", {}), changes.get("sees", sees)
                    return lambda: answer

                return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=call))

            return task

        monkeypatch.setattr(ray, "nodes", lambda: listed)
        monkeypatch.setattr(ray, "remote", remote)
        monkeypatch.setattr(ray, "wait", lambda asked, **options: (asked, []))
        monkeypatch.setattr(ray, "get", lambda answer: answer())
        return said

    def test_like_the_driver(self, nodes, tmp_path):
        assert ray_nodes.missing(tmp_path / "not" / "there") == []
        assert list(tmp_path.iterdir()) == []

    def test_packages_that_are_not_there_or_are_others(self, nodes):
        ours = metadata.version("torch").partition("+")[0]
        nodes["192.0.2.1"]["versions"] = {"torch": f"{ours}+cu999", "POT": None, "diffusers": None}
        nodes["192.0.2.2"]["versions"] = {"torch": "2.0.0"}
        lacking, other = ray_nodes.missing()
        assert lacking.startswith("192.0.2.1 lacks ")
        assert {"POT", "diffusers"} <= set(lacking.replace(",", "").split())
        assert other == f"192.0.2.2 has torch 2.0.0, the driver {metadata.version('torch')}"

    def test_a_storage_that_a_node_does_not_see(self, nodes, tmp_path):
        nodes["192.0.2.2"]["sees"] = False
        (line,) = ray_nodes.missing(tmp_path)
        assert line == f"192.0.2.2 cannot see {tmp_path}: --storage has to be a URI, or a folder of all nodes"

    def test_one_that_does_not_answer(self, nodes, monkeypatch):
        monkeypatch.setattr("ray.wait", lambda asked, **options: (asked[:1], asked[1:]))
        assert ray_nodes.missing() == ["192.0.2.2 does not answer within 60 s"]

    def test_the_question_needs_nothing_of_ours_on_a_node(self):
        """It is pickled whole: a node without sbbridge says so, in place of an error."""
        from ray import cloudpickle

        code = (
            "import sys; sys.modules['sbbridge'] = None; from ray import cloudpickle\n"
            f"print(cloudpickle.loads({cloudpickle.dumps(ray_nodes._question())!r})(['pip', 'no-such-package'], None))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
        assert "'no-such-package': None, 'sbbridge': None}, True)" in done.stdout


@pytest.mark.parametrize(
    ("line", "name"), [("ray[default,tune]>=2.60", "ray"), ("POT>=0.9.6", "POT"), ("clean-fid", "clean-fid")]
)
def test_names_of_requirements(line, name):
    assert ray_nodes._name_of(line) == name

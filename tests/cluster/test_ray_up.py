"""cluster.local.yaml on two machines, from `ray up` to `ray down`, as a user types it. Tests run in their order."""

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from sbbridge.records import METRIC_KEY, TRIAL_KEY
from tests.cluster import lab
from tests.study import tiny

pytestmark = pytest.mark.cluster

WORKER = "ray::RayTrainWorker"
REFUSED = 'import ray; ray.init("10.77.0.1:6379", logging_level="ERROR"); print("joined")'
STUDY_LIMIT_S = 1500


@pytest.fixture(scope="module")
def cluster(machines: lab.Lab) -> str:
    """The product's file with this lab's addresses; nothing else is changed."""
    file = yaml.safe_load((lab.ROOT / "cluster.local.yaml").read_text())
    file["provider"] |= {"head_ip": machines.address(1), "worker_ips": [machines.address(2)]}
    file["auth"] = {"ssh_user": "root", "ssh_private_key": str(machines.key)}
    path = machines.folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(file))
    return str(path)


@pytest.fixture(scope="module")
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process outside of the lab that `ray stop` would take for Ray's."""
    with subprocess.Popen(["bash", "-c", "exec -a /ray/core/src/ray/raylet/raylet sleep 3600"]) as process:
        yield process
        process.kill()


def ray(machines, *command, seconds=300):
    """A command of Ray's on the laptop has to succeed."""
    status, printed = machines.run("ray", *command, seconds=seconds)
    assert status == 0, printed
    return printed


def on_head(machines, cluster, command, seconds=120):
    return ray(machines, "exec", "--log-style=record", cluster, command, seconds=seconds)


def trials(machines):
    folder = machines.shared / "study" / "records" / "trials"
    return sorted(folder.glob("*.parquet")) if folder.is_dir() else []


def test_ray_up(machines, cluster, bystander):
    """Without a token it says so; with one, both nodes join."""
    (machines.folder / "laptop" / "home").mkdir(exist_ok=True)
    status, printed = machines.run("ray", "up", "-y", "--no-config-cache", "--log-style=record", cluster)
    assert status != 0, printed
    assert "auth_token" in printed
    ray(machines, "get-auth-token", "--generate")
    ray(machines, "up", "-y", "--no-config-cache", "--log-style=record", cluster)
    lab.wait_until(lambda: any("raylet" in line for line in machines.processes(2)), 400, "node 2 did not join")
    installed = on_head(machines, cluster, "cd / && python -c 'import sbbridge; print(sbbridge.__file__)'")
    assert f"{machines.folder}/home/sbbridge/sbbridge/__init__.py" in installed  # what was sent, on the head


def test_nobody_joins_without_the_token(machines, cluster):
    status, printed = machines.run("python", "-c", REFUSED, HOME=str(machines.folder), RAY_AUTH_MODE="disabled")
    assert status != 0
    assert "joined" not in printed
    assert "token" in printed


def test_the_dashboard_answers_on_the_head_alone(machines, cluster):
    reach = "exec 3<>/dev/tcp/{}/8265"
    assert machines.run("bash", "-c", reach.format(machines.address(1)))[0] != 0
    on_head(machines, cluster, reach.format("127.0.0.1"))


def test_storage_that_only_the_head_sees_is_refused(machines, cluster):
    status, printed = machines.run("ray", "exec", cluster, study("--output", "results/apart"))
    assert status != 0
    assert "error: 10.77.0.2 cannot see " in printed
    assert "--storage has to be" in printed
    assert "Traceback" not in printed


def study(*arguments):
    words = " ".join(arguments)
    return f"cd sbbridge && python studies/asbm_sweep.py --preset smoke --address auto --num-workers 2 {words}"


def test_the_study_survives_a_power_cut(machines, cluster):
    """Worker groups span both nodes; one goes dark while a group trains, and comes back."""
    # as many CPUs a worker as a node has, so that no node holds two
    command = study("--cpus-per-worker", str(os.cpu_count()), "--storage", str(machines.shared / "study"))
    process = machines.start("ray", "exec", "--log-style=record", cluster, command)

    def groups_on_both():
        assert process.poll() is None, process.communicate()[0]
        return trials(machines) and all(any(WORKER in p for p in machines.processes(n)) for n in (1, 2))

    lab.wait_until(groups_on_both, STUDY_LIMIT_S, "no worker group on both nodes")
    before = len(trials(machines))
    machines.kill(2)
    lab.wait_until(lambda: True, 1, "")
    machines.boot(2)
    printed, _ = process.communicate(timeout=STUDY_LIMIT_S)
    assert process.returncode == 0, printed
    assert before < len(trials(machines))
    assert "Traceback" not in printed


def test_the_report_comes_home_and_nothing_is_lost_or_doubled(machines, cluster):
    target = machines.folder / "results"
    target.mkdir()
    ray(machines, "rsync-down", cluster, "sbbridge/results/", f"{target}/")
    folder = target / "asbm_sweep-digits-smoke"
    assert (folder / "report.html").stat().st_size > 10_000
    rows = tiny.collected(folder)
    assert tiny.doubled(rows, TRIAL_KEY) == []
    assert {row["status"] for row in rows} == {"completed"}
    assert sum(row["phase"] == "ablation" for row in rows) == 8
    assert {row["num_workers"] for row in rows} == {2}
    assert {row["host"] for row in rows} <= {"node1", "node2"}
    assert tiny.doubled(tiny.collected(folder, "metrics"), METRIC_KEY) == []


def test_the_same_command_again_starts_nothing(machines, cluster):
    command = study("--cpus-per-worker", str(os.cpu_count()), "--storage", str(machines.shared / "study"))
    printed = on_head(machines, cluster, command)
    assert "report.html" in printed
    assert "· running" not in printed


def test_ray_down_ends_the_cluster_and_nothing_else(machines, cluster, bystander):
    def left():
        running = [line for number in (1, 2) for line in machines.processes(number)]
        rays = [line for line in running if "/ray/" in line or "ray::" in line]
        return [line for line in rays if "log_monitor" not in line]  # which Ray leaves a worker

    ray(machines, "down", "-y", "--log-style=record", cluster)
    with contextlib.suppress(AssertionError):
        lab.wait_until(lambda: not left(), 400, "")  # workers miss it for two minutes
    assert left() == []
    assert bystander.poll() is None

"""deploy/slurm.sh as a job of a real Slurm, on two machines of the lab."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sbbridge.records import TRIAL_KEY
from tests.cluster import lab
from tests.study import tiny

pytestmark = pytest.mark.cluster

JOB_LIMIT_S = 1200
# without munge: the lab has no other users
CONFIGURATION = """\
ClusterName=lab
SlurmctldHost=node1(10.77.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
StateSaveLocation=/run/slurmctld
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={shared}/slurmctld.log
SlurmdLogFile={shared}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
NodeName=node[1-2] NodeAddr=10.77.0.[1-2] CPUs={cpus}
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture(scope="module")
def slurm(machines: lab.Lab) -> lab.Lab:
    """Two nodes that take jobs, and a checkout and a home that both see."""
    missing = [tool for tool in ("slurmctld", "slurmd", "sbatch") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: slurmctld slurmd slurm-client)")
    cpus = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    (machines.shared / "slurm.conf").write_text(CONFIGURATION.format(shared=machines.shared, cpus=cpus))
    # nothing is confined, and a machine may have no control groups to find
    (machines.shared / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    shutil.copytree(
        lab.ROOT, machines.shared / "sbbridge",
        ignore=shutil.ignore_patterns(".*", "results", "__pycache__", "*.egg-info"),
    )  # fmt: skip
    on(machines, 1, "mkdir -p /run/slurmctld && slurmctld")
    for number in (1, 2):
        on(machines, number, "mkdir -p /run/slurmd && slurmd")
    lab.wait_until(lambda: "idle" in on(machines, 1, "sinfo --noheader --states=idle --nodes=node[1-2]"), 60, "sinfo")
    return machines


def on(machines, number, command):
    """What a command prints on a node; it has to succeed."""
    status, printed = run(machines, number, command)
    assert status == 0, printed
    return printed


def run(machines, number, command, seconds=60):
    """Runs on a node, with Slurm's configuration, in a home and an environment that all nodes share."""
    shared = machines.shared
    lines = (
        f"export SLURM_CONF={shared}/slurm.conf HOME={shared} PYTHONPATH={shared}/sbbridge "
        f"PATH={Path(sys.executable).parent}:/usr/sbin:$PATH && {command}"
    )
    return machines.ssh(number, lines, seconds)


def test_a_job_of_two_machines_runs_the_study_on_both(slurm):
    folder = slurm.shared / "study"
    log = slurm.shared / "job.log"
    job = f"sbatch --wait --nodes=2 --output={log} deploy/slurm.sh --preset smoke --output {folder}"
    status, printed = run(slurm, 1, f"cd {slurm.shared}/sbbridge && {job}", seconds=JOB_LIMIT_S)
    assert status == 0, printed + (log.read_text() if log.exists() else "")
    rows = tiny.collected(folder)
    assert tiny.doubled(rows, TRIAL_KEY) == []
    assert {row["status"] for row in rows} == {"completed"}
    assert {row["host"] for row in rows} == {"node1", "node2"}
    assert (folder / "report.html").stat().st_size > 10_000
    for number in (1, 2):
        assert not [line for line in slurm.processes(number) if "raylet" in line]

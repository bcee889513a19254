"""Starting Ray or joining a cluster, what it can hold, and leaving nothing of it behind."""

import logging
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import PlacementGroupID
from ray._private.state import jobs, state
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_actors, list_placement_groups

from sbbridge.study import ray_nodes
from sbbridge.study.environment import worker_environment

DRIVER = {"train_driver": 0.01}
"""What the trial of a worker group takes: a resource of its own, so that it never waits for its own workers."""

IDLE_S = 60.0
"""A worker group's processes start within so many seconds after its placement group is there."""

_KIND = "accelerator_type:"

MOST_TRIALS = 1000
"""At once, however large a cluster its autoscaler promises."""


@dataclass(frozen=True)
class Resources:
    """What a trial gets, and how many run at once.

    Attributes:
        address: local, auto or HOST:PORT.
        workers: processes of a `train` trial.
        least_workers: what it can go on with when nodes are lost.
        cpus, gpus: of each worker.
        max_concurrent: trials at once; None fills the cluster, with the nodes that its autoscaler may add.
        needs_train: whether any trial goes through the `train` launcher.
        storage: the folder or URI that every node reads and writes.
    """

    address: str = "local"
    workers: int = 1
    least_workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    max_concurrent: int | None = None
    needs_train: bool = False
    storage: str | None = None

    def worker(self) -> dict[str, float]:
        """One worker's share, as Ray wants it."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


class ResourceError(Exception):
    """The machine or cluster cannot hold a single trial, which would wait for ever, or its nodes share no storage."""


class ClusterDied(Exception):
    """No node is alive: whatever is asked of Ray would wait for ever."""


def start(resources: Resources, marker: Path) -> None:
    """Starts an own local Ray, or joins the cluster that the user named; never any other.

    Args:
        resources: of a trial.
        marker: a file that names the folder of our own Ray's session, for whoever finds that we were killed.

    Raises:
        ResourceError: not one trial fits, the cluster does not answer, or a node does not see the storage.
    """
    if resources.address == "local":
        _clean_after(marker)
        _init(
            address="local", num_cpus=os.cpu_count(), resources={"train_driver": 1},
            # without the dashboard a stopped TorchTrainer leaks its placement group; inline trials have none
            include_dashboard=resources.needs_train, object_store_memory=200 * 2**20,
        )  # fmt: skip
        marker.write_text(_session())
        lacking = _lacking(resources)
    else:
        lacking = _join(resources)
    if lacking:
        raise ResourceError("; ".join(lacking))
    if resources.needs_train and resources.address != "local":
        LostGroups().free()  # of drivers that were killed


@dataclass(frozen=True)
class Cluster:
    """What a look at a cluster has found.

    Attributes:
        missing: what would stop a study there, a line each.
        concurrent_trials: how many fit at once.
        accelerators: kinds of GPU of the nodes that are there, as Ray calls them.
    """

    missing: list[str]
    concurrent_trials: int
    accelerators: list[str]


def look(resources: Resources) -> Cluster:
    """Joins the cluster that the user named, asks all its nodes at once what a study would miss there, and leaves.

    Raises:
        ResourceError: the cluster does not answer.
    """
    try:
        lacking = _join(resources)
        kinds = [name.removeprefix(_KIND) for name in ray.cluster_resources() if name.startswith(_KIND)]
        return Cluster(lacking, concurrent_trials(resources), sorted(kinds))
    finally:
        ray.shutdown()


def _init(**options: Any) -> Any:
    debug = bool(os.environ.get("SB_DEBUG"))
    level = logging.ERROR if debug else logging.CRITICAL  # Tune's errors are tracebacks; rows tell what failed
    logging.getLogger("ray").setLevel(level)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    found = ray.init(log_to_driver=debug, logging_level=level, **options)
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own prints a stack and ends the process where it stands
    return found


def _join(resources: Resources) -> list[str]:
    """Joins a cluster; what a study would miss there."""
    try:
        joined = _init(address=resources.address, runtime_env={"env_vars": worker_environment()})
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ResourceError(f"--address {resources.address}: {error}") from None
    lacking = _lacking(resources)
    if resources.needs_train and not joined.dashboard_url:
        lacking.append(
            f"--address {resources.address}: its head runs without the dashboard, which frees what a worker group "
            f"held that was killed (ray start --head --include-dashboard=true)"
        )
    folder = (resources.storage or "").removeprefix("file://")
    return lacking + ray_nodes.missing(Path(folder) if folder and "://" not in folder else None)


def stop(marker: Path) -> None:
    """Leaves the cluster; of a Ray of our own nothing stays: its sessions hold logs that nobody would delete."""
    ray.shutdown()
    _clean_after(marker)


def _session() -> str:
    node: Any = ray._private.worker._global_node
    return str(node.get_session_dir_path())


def _clean_after(marker: Path) -> None:
    """Deletes the session that a marker names, and the marker."""
    if not marker.is_file():
        return
    session = Path(marker.read_text())
    if session.name.startswith("session_") and not os.environ.get("SB_DEBUG"):
        shutil.rmtree(session, ignore_errors=True)
        latest = session.parent / "session_latest"
        if latest.is_symlink() and not latest.exists():
            latest.unlink(missing_ok=True)
    marker.unlink()


def check_alive() -> None:
    """Raises ClusterDied where no node is alive, as after the end of a local Ray's only raylet."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise ClusterDied("no node of Ray is alive any more; the same command continues")


class LostGroups:
    """Frees placement groups that killed worker groups have left.

    Ray frees what a group held when its controller dies, but not a placement group that was being made at that moment:
    it would hold its CPUs for ever, and the next group would wait for them.
    """

    def __init__(self) -> None:
        self._idle: dict[str, float] = {}

    def free(self, over: bool = False) -> int:
        """Removes those of jobs that have ended, and those of this one that no actor has used for a while.

        Args:
            over: no worker group of this job is at work or about to be.
        """
        # named, or Ray looks for one, and may find two
        address = ray.get_runtime_context().gcs_address
        everything: dict[str, Any] = {
            "address": address, "detail": True, "raise_on_missing_output": False, "limit": 10_000,
        }  # fmt: skip
        groups = [group for group in list_placement_groups(**everything) if group.state != "REMOVED"]
        used = {actor.placement_group_id for actor in list_actors(**everything) if actor.state != "DEAD"}
        ended = {job["JobID"] for job in jobs() or () if job["IsDead"]}
        lost = [group.placement_group_id for group in groups if group.creator_job_id in ended and not group.is_detached]
        # a trial of Tune's holds its share of the drivers; one that waits for its turn is not lost
        mine, now = ray.get_runtime_context().get_job_id(), time.monotonic()
        idle = [
            group.placement_group_id for group in groups
            if group.creator_job_id == mine and group.placement_group_id not in used
            and (over or group.state == "CREATED")
            and not any("train_driver" in bundle["unit_resources"] for bundle in group.bundles or ())
        ]  # fmt: skip
        self._idle = {name: self._idle.get(name, now) for name in idle}
        lost += [name for name, since in self._idle.items() if over or now - since > IDLE_S]
        for name in lost:
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
        return len(lost)


def capacity() -> dict[str, float]:
    """What the cluster holds, or its autoscaler may bring it to, by resource."""
    held = ray.cluster_resources()
    most = state.get_max_resources_from_cluster_config() or {}
    return {name: max(held.get(name, 0.0), float(most.get(name, 0))) for name in {*held, *most}}


def concurrent_trials(resources: Resources) -> int:
    """How many trials fit at once."""
    if resources.max_concurrent:
        return resources.max_concurrent
    name, amount = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
    return max(1, min(MOST_TRIALS, int(capacity().get(name, 0) // (amount * resources.workers))))


def _lacking(resources: Resources) -> list[str]:
    """What a single trial needs and would wait for for ever."""
    most = capacity()
    where = "this machine" if resources.address == "local" else "the cluster, with all that it may add,"
    lacking = []
    for name, amount in resources.worker().items():
        wanted = amount * resources.least_workers
        if wanted > most.get(name, 0):
            lacking.append(f"one trial needs {wanted:g} {name}, {where} has {most.get(name, 0):g}")
    if resources.needs_train and not most.get("train_driver"):
        lacking.append(
            "no node of the cluster holds the trials of worker groups: start its head with "
            "ray start --head --resources='{\"train_driver\": 64}'"
        )
    return lacking

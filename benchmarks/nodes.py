"""A Ray cluster of several nodes on this machine, in a process of its own (`ray.cluster_utils.Cluster`).

    python -m benchmarks.nodes '{"num_cpus": 1, "resources": {"train_driver": 1}}' '{"num_cpus": 1}'

One JSON text a node, the head first. Prints a JSON line {"address", "nodes": [[process, …], …]}; a number on standard
input brings that node back after its processes have died, and prints the line again; the input's end ends the cluster.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import processes

ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
"""Of the cluster and of who joins it."""
TWO_NODES = (
    {"num_cpus": 1, "resources": {"train_driver": 1}, "include_dashboard": True, "dashboard_port": 0}, {"num_cpus": 1},
)  # fmt: skip


class Nodes:
    """The cluster as its user sees it.

    Args:
        specifications: `Cluster.add_node`'s arguments of every node, the head first.
        log: where the cluster's own output goes.
    """

    def __init__(self, specifications: Sequence[dict[str, Any]], log: Any = subprocess.DEVNULL) -> None:
        command = [sys.executable, "-m", "benchmarks.nodes", *map(json.dumps, specifications)]
        self._child = processes.start(command, ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self._read()

    @property
    def pid(self) -> int:
        """Of the process that holds the cluster."""
        return self._child.pid

    def pids(self, node: int) -> list[int]:
        """All live processes of a node."""
        alive = processes.table()
        mine = {process.pid for process in processes.descendants(self.pid, alive)}
        roots = [pid for pid in self._nodes[node] if pid in mine]
        return [*roots, *(process.pid for root in roots for process in processes.descendants(root, alive))]

    def raylets(self, node: int) -> list[int]:
        """The raylet of a node, if it lives."""
        alive = processes.table()
        return [pid for pid in self.pids(node) if pid in alive and "/raylet/raylet " in alive[pid].title]

    def bring_back(self, node: int) -> None:
        """Starts a node again."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{node}\n")
        self._child.stdin.flush()
        self._read()

    def close(self) -> None:
        """Ends the cluster, whatever state it is in."""
        processes.end(self._child)

    def _read(self) -> None:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError("the cluster did not start")
        said = json.loads(line)
        self.address, self._nodes = said["address"], said["nodes"]


def main(texts: Sequence[str]) -> None:
    from ray.cluster_utils import Cluster

    specifications = [json.loads(text) for text in texts]
    cluster = Cluster()
    nodes = [cluster.add_node(**specification) for specification in specifications]
    threading.Thread(target=_reap, args=(nodes,), daemon=True).start()
    _say(cluster, nodes)
    for line in sys.stdin:
        number = int(line)
        cluster.worker_nodes.discard(nodes[number])
        nodes[number] = cluster.add_node(**specifications[number])
        _say(cluster, nodes)
    cluster.shutdown()


def _say(cluster: Any, nodes: list[Any]) -> None:
    pids = [[info.process.pid for infos in node.all_processes.values() for info in infos] for node in nodes]
    print(json.dumps({"address": cluster.address, "nodes": pids}), flush=True)


def _reap(nodes: list[Any]) -> None:
    """A killed raylet is a zombie until its parent asks after it, and to its workers a zombie is alive."""
    while True:
        for node in list(nodes):
            for info in [info for infos in list(node.all_processes.values()) for info in infos]:
                info.process.poll()
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])

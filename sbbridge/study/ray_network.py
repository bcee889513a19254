"""Ray Train's torch backend on the network that joins the nodes."""

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(import_module, "sbbridge.coupling")  # what has to be there before the process group is
        worker_group.execute(listen_where_ray_does)
        super().on_start(worker_group, backend_config)


@dataclass
class NodeTorchConfig(TorchConfig):
    """Workers listen on the address by which Ray knows their node.

    Gloo by itself takes what the machine's own name stands for: on many a machine that is 127.0.1.1, on one without
    DNS nothing, and workers of other nodes would wait for it in vain.
    """

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def listen_where_ray_does() -> None:
    """Names this node's network interface to gloo, unless its user has."""
    name = interface_of(ray.util.get_node_ip_address())
    if name:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has the address."""
    import psutil  # Ray's own copy

    for name, held in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in held):
            return str(name)
    return None

"""Where worker groups listen."""

import os

import ray

from sbbridge.study import ray_network
from sbbridge.study.ray_network import interface_of, listen_where_ray_does


def test_the_interface_of_an_address_is_found():
    assert interface_of("127.0.0.1") in ("lo", "lo0")
    assert interface_of("192.0.2.1") is None  # of nobody: RFC 5737


def test_gloo_is_told_unless_the_user_has(monkeypatch):
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    listen_where_ray_does()
    assert os.environ["GLOO_SOCKET_IFNAME"] == interface_of("127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "mine")
    listen_where_ray_does()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "mine"


def test_it_is_done_before_the_process_group_is_made(monkeypatch):
    done = []
    monkeypatch.setattr(ray_network._TorchBackend, "on_start", lambda *arguments: done.append("process group"))

    class Group:
        def execute(self, function, *arguments):
            done.append(" ".join((function.__name__, *arguments)))

    ray_network.NodeTorchConfig().backend_cls().on_start(Group(), ray_network.NodeTorchConfig())
    assert done == ["import_module sbbridge.coupling", "listen_where_ray_does", "process group"]

"""No process of a study ever downloads: neither what is there nor what is missing makes it open a connection."""

import socket
import urllib.request

import pytest
import torch

from sbbridge.data import DataError
from sbbridge.metrics import MissingWeights
from sbbridge.metrics.features import INCEPTION_FILE
from sbbridge.study.space import resolve
from sbbridge.study.tasks import open_task
from sbbridge.study.trial import TrialConfig
from tests.data.folders import write_celeba, write_cifar10, write_images
from tests.data.test_placed_data import write_latents
from tests.metrics.test_features import StandIn
from tests.study import tiny

NAMES = ("cifar10", "celeba", "celeba_hq", "image_folder", "ffhq_latent")

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """What would have reached for the network; none of it does."""
    made = []

    def guard(target, name):
        def refused(*arguments, **options):
            made.append(name)
            raise OSError(f"{name} was called")

        monkeypatch.setattr(target, name, refused)

    for name in ("connect", "connect_ex"):
        guard(socket.socket, name)
    for target, names in (
        (socket, ("create_connection", "getaddrinfo")),
        (urllib.request, ("urlopen", "urlretrieve")),
        (torch.hub, ("load", "load_state_dict_from_url", "download_url_to_file")),
    ):
        for name in names:
            guard(target, name)
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    for name in ("SB_DATA_ROOT", "SB_INCEPTION", "SB_AUTOENCODER"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def opened(name, root):
    changes = {"dataset": name, "evaluation.features": "inception"}
    return open_task(tiny.config.parse(TrialConfig, resolve(TrialConfig, tiny.tree(), changes)), str(root))


def test_the_guard_sees_a_download(calls, root):
    from torchvision.datasets import CIFAR10

    with pytest.raises(OSError, match="was called"):
        CIFAR10(str(root), download=True)
    assert calls != []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing(name, calls, root):
    with pytest.raises(DataError, match=f"{name}|no latents"):
        opened(name, root)
    assert calls == []


@pytest.mark.parametrize("name", NAMES)
def test_what_is_there(name, calls, root, tmp_path, monkeypatch):
    if name == "cifar10":
        write_cifar10(root, monkeypatch)
    elif name == "celeba":
        write_celeba(root, monkeypatch, n=48)
    elif name == "ffhq_latent":
        monkeypatch.setenv("SB_AUTOENCODER", str(write_latents(root, root / "ffhq")))
    else:
        write_images(root / ("celeba_hq" if name == "celeba_hq" else "."), 400)
    with pytest.raises(MissingWeights, match="never downloaded"):
        opened(name, root)
    torch.jit.script(StandIn()).save(str(tmp_path / INCEPTION_FILE))
    monkeypatch.setenv("SB_INCEPTION", str(tmp_path))
    assert opened(name, root).problem.data.sample(2).shape[0] == 2
    assert calls == []

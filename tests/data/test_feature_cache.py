"""The cached feature network: trained by one process of a machine, whole or not at all, made again when it is torn."""

import multiprocessing
import time

import pytest
import safetensors.torch
import torch

from sbbridge.metrics import features
from sbbridge.metrics.features import SmallCNN, digits_features
from sbbridge.rng import isolated


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def slowly(trained):
    """Instead of five seconds of training: weights by chance, and a file that tells of it."""

    def train(spec, images):
        (trained / str(time.monotonic_ns())).touch()
        time.sleep(0.3)
        with isolated(0):
            return SmallCNN(spec)

    return train


def weights(network):
    return network.logits(torch.eye(64))


def work(start, folder, i):
    features.train_feature_network = slowly(folder)
    start.wait(30)
    torch.save(weights(digits_features()), folder / f"weights{i}.pt")


def test_processes_that_start_at_once_train_once(tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    workers = [context.Process(target=work, args=(start, folder, i)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    one, other = (torch.load(folder / f"weights{i}.pt", weights_only=True) for i in range(2))
    assert torch.equal(one, other)
    assert len([path for path in folder.iterdir() if path.suffix != ".pt"]) == 1


@pytest.mark.parametrize("kept", [-1, 100, 4, 0])
def test_a_torn_file_is_made_again(kept, tmp_path, cache, monkeypatch):
    folder = tmp_path / "trained"
    folder.mkdir()
    monkeypatch.setattr(features, "train_feature_network", slowly(folder))
    whole = weights(digits_features())
    (path,) = cache.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:kept])
    assert torch.equal(weights(digits_features()), whole)
    assert path.read_bytes() == content
    assert len(list(folder.iterdir())) == 2
    assert [left for left in cache.iterdir() if left.suffix == ".tmp"] == []


@pytest.mark.parametrize("damage", ["NaN", "missing", "misshapen"])
def test_a_file_of_other_weights_is_made_again(damage, tmp_path, cache, monkeypatch):
    folder = tmp_path / "trained"
    folder.mkdir()
    monkeypatch.setattr(features, "train_feature_network", slowly(folder))
    whole = weights(digits_features())
    (path,) = cache.glob("*.safetensors")
    state = safetensors.torch.load_file(str(path))
    changed = {"NaN": {"last.bias": torch.full((10,), torch.nan)}, "misshapen": {"last.bias": torch.zeros(3)}}
    state |= changed.get(damage, {})
    if damage == "missing":
        del state["last.bias"]
    safetensors.torch.save_file(state, str(path))
    assert torch.equal(weights(digits_features()), whole)
    assert len(list(folder.iterdir())) == 2


def test_torn_weights_of_inception_are_one_line(tmp_path):
    (tmp_path / features.INCEPTION_FILE).write_bytes(b"PK torn")
    with pytest.raises(features.MissingWeights, match=r"inception-2015-12-05\.pt is torn"):
        features.inception_features(tmp_path)


def test_a_killed_training_leaves_nothing_that_looks_whole(tmp_path, cache, monkeypatch):
    def killed(state, path):
        raise KeyboardInterrupt

    folder = tmp_path / "trained"
    folder.mkdir()
    monkeypatch.setattr(features, "train_feature_network", slowly(folder))
    with monkeypatch.context() as patch:
        patch.setattr(features.safetensors.torch, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            digits_features()
    assert list(cache.glob("*.safetensors")) == []
    digits_features()
    assert len(list(folder.iterdir())) == 2

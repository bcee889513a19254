"""CIFAR-10 from a stand-in in torchvision's own format, and what is said when it is not there."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from sbbridge.data import DataError, as_floats
from sbbridge.data.cifar10 import cifar10

torchvision = pytest.importorskip("torchvision")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Six batches of 20 images; torchvision's checksums are replaced by theirs."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    generator = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch():
        return {"data": generator.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": list(range(10)) * 2}

    train = [write(f"data_batch_{i}", batch()) for i in range(1, 6)]
    test = [write("test_batch", batch())]
    names = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", test)
    monkeypatch.setattr(CIFAR10, "meta", {"filename": names[0], "key": "label_names", "md5": names[1]})
    return tmp_path


def test_a_tenth_of_the_training_images_is_held_out_and_pixels_are_in_range(stand_in):
    splits = cifar10(stand_in)
    assert [len(part.images) for part in splits] == [90, 10, 20]
    assert splits.train.images.shape[1:] == (3, 32, 32)
    assert all(part.images.dtype == torch.uint8 for part in splits)
    floats = as_floats(splits.train.images)
    assert -1 <= float(floats.min()) < -0.99
    assert 0.99 < float(floats.max()) <= 1
    with (stand_in / "cifar-10-batches-py" / "test_batch").open("rb") as file:
        raw = pickle.load(file)["data"][3].reshape(3, 32, 32)
    assert np.array_equal(splits.test.images[3].numpy(), raw)


def test_a_torn_batch_is_named(stand_in):
    path = stand_in / "cifar-10-batches-py" / "data_batch_2"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"no intact copy at .*cifar-10-batches-py"):
        cifar10(stand_in)


@pytest.mark.parametrize("given", [True, False])
def test_missing_data_say_where_they_are_expected(given, tmp_path):
    with pytest.raises(DataError, match="cifar-10-batches-py"):
        cifar10(tmp_path if given else None)

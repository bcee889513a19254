"""CIFAR-10 from a stand-in in torchvision's own format, and what is said when it is not there."""

import pickle

import numpy as np
import pytest
import torch

from sbbridge.data import DataError, as_floats
from sbbridge.data.cifar10 import cifar10
from tests.data.folders import write_cifar10

torchvision = pytest.importorskip("torchvision")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    write_cifar10(tmp_path, monkeypatch)
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

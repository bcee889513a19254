"""Features, their cache, and the judges made of them."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sbbridge.data import ImageSplits, LabelledImages, digits
from sbbridge.metrics import (
    FeatureMoments,
    FrechetJudge,
    MissingWeights,
    digits_features,
    inception_features,
    patches_features,
)
from sbbridge.metrics import features as features_module
from sbbridge.metrics.features import (
    DIGITS_CNN,
    PATCHES_CNN,
    ClassifierFeatures,
    SmallCNN,
    cache_folder,
    to_bytes_range,
    train_feature_network,
)

INCEPTION = "inception-2015-12-05.pt"


@pytest.fixture(scope="module")
def splits():
    return digits()


def key(images: torch.Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


class TestSplits:
    def test_sizes_range_and_shape(self, splits):
        assert [len(split.images) for split in splits] == [898, 300, 599]
        for images, labels in splits:
            assert images.shape[1:] == (1, 8, 8)
            assert images.min() >= -1
            assert images.max() == 1
            assert labels.shape == images.shape[:1]

    def test_no_image_is_in_two_splits(self, splits):
        everything = [image for split in splits for image in key(split.images)]
        assert len(everything) == 1797
        assert len(set(everything)) == 1797

    def test_every_class_has_its_share_of_every_split(self, splits):
        whole = sum(torch.bincount(split.labels, minlength=10) for split in splits)
        for split in splits:
            expected = whole * len(split.labels) / 1797
            assert (torch.bincount(split.labels, minlength=10) - expected).abs().max() <= 1

    def test_it_is_always_the_same(self, splits):
        assert all(torch.equal(one.images, other.images) for one, other in zip(splits, digits(), strict=True))


class TestDigitsCNN:
    @pytest.mark.usefixtures("digits_cnn")
    def test_it_classifies_the_test_split(self, splits):
        network = digits_features()
        found = network.classify(network(splits.test.images))
        assert (found == splits.test.labels).float().mean() > 0.95
        assert network.classes == 10

    @pytest.mark.usefixtures("digits_cnn")
    def test_its_features_are_64_finite_values(self, splits):
        found = digits_features()(splits.test.images)
        assert found.shape == (599, 64)
        assert found.dtype == np.float64
        assert np.isfinite(found).all()
        assert np.linalg.matrix_rank(found - found.mean(0)) > 30

    @pytest.mark.usefixtures("digits_cnn")
    def test_a_cached_file_is_used(self, splits, monkeypatch):
        monkeypatch.setattr(features_module, "train_feature_network", lambda *a: pytest.fail("trained again"))
        assert np.array_equal(digits_features()(splits.test.images), digits_features()(splits.test.images))

    def test_it_is_trained_on_the_training_split_alone_and_cached_whole(self, splits, monkeypatch, tmp_path):
        monkeypatch.setenv("SB_CACHE", str(tmp_path / "new" / "cache"))
        seen = []
        monkeypatch.setattr(
            features_module, "train_feature_network", lambda spec, train: seen.append(train) or SmallCNN(spec)
        )
        digits_features()
        digits_features()
        assert len(seen) == 1
        assert torch.equal(seen[0].images, splits.train.images)
        held = [path for path in (tmp_path / "new" / "cache").iterdir() if path.suffix != ".lock"]
        assert [path.suffix for path in held] == [".safetensors"]

    @pytest.mark.usefixtures("global_state_untouched")
    def test_training_is_repeatable_and_leaves_the_global_random_state_alone(self, splits, monkeypatch):
        brief = dataclasses.replace(DIGITS_CNN, epochs=1)
        one, other = (train_feature_network(brief, splits.train).state_dict() for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_the_cache_folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SB_CACHE", str(tmp_path))
        assert cache_folder() == tmp_path
        monkeypatch.delenv("SB_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder() == tmp_path / "xdg" / "sbbridge"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert cache_folder() == tmp_path / "home" / ".cache" / "sbbridge"


class TestPatchesCNN:
    @pytest.fixture(scope="class")
    @staticmethod
    def stripes():
        """3 x 16 x 16 images of 24 frequencies with random phases, and which: no pixel alone tells them apart."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(24).repeat(25)
        phase = 2 * torch.pi * torch.rand(len(labels), 1, generator=generator)
        wave = torch.sin(torch.arange(16) * (labels % 12 + 1)[:, None] * torch.pi / 13 + phase)
        across = wave[:, None, None, :].expand(-1, 3, 16, -1)
        images = torch.where((labels < 12)[:, None, None, None], across, across.mT)
        return LabelledImages(images, labels)

    def test_it_learns_what_it_is_given(self, stripes):
        """Stand-ins for the photographs' cells, which take half a minute."""
        model = train_feature_network(dataclasses.replace(PATCHES_CNN, epochs=4, batch_size=32), stripes)
        network = ClassifierFeatures(model)
        features = network(stripes.images)
        assert features.shape == (600, 64)
        assert network.logits(features).shape == (600, 24)
        assert (network.classify(features) == stripes.labels).float().mean() > 0.5  # chance is 0.04

    def test_it_has_a_cache_entry_of_its_own(self, stripes, monkeypatch, tmp_path):
        monkeypatch.setenv("SB_CACHE", str(tmp_path))
        monkeypatch.setattr(features_module, "photos", lambda: ImageSplits(stripes, stripes, stripes))
        seen = []
        monkeypatch.setattr(
            features_module, "train_feature_network", lambda spec, train: seen.append((spec, train)) or SmallCNN(spec)
        )
        one, other = patches_features(), patches_features()
        assert [spec.kind for spec, _ in seen] == ["patches-CNN"]
        assert seen[0][1] is stripes
        assert np.array_equal(one(stripes.images[:4]), other(stripes.images[:4]))
        (path,) = tmp_path.glob("*.safetensors")
        assert path.name.startswith("patches-cnn-")


@pytest.mark.usefixtures("digits_cnn")
class TestFrechetJudge:
    def test_real_against_real_is_far_below_noise(self, splits):
        judge = FrechetJudge(splits.test.images, digits_features(), "digits-CNN")
        floor, n = judge.floor(splits.train.images)
        assert n == 599
        noise = torch.rand(599, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
        assert 0 < floor < judge.distance(noise)[0] / 20
        assert judge.distance(splits.test.images) == (pytest.approx(0, abs=1e-4), 599)  # of a trace of hundreds

    def test_draws_are_judged_one_by_one_and_averaged(self, splits):
        judge = FrechetJudge(splits.validation.images, digits_features(), "digits-CNN")
        one, other = splits.train.images[:300], splits.train.images[300:600]
        values = [judge.distance(images)[0] for images in (one, other)]
        assert judge.distance(torch.cat([one, other])) == (pytest.approx(np.mean(values)), 300)

    def test_half_a_draw_is_refused(self, splits):
        judge = FrechetJudge(splits.validation.images, digits_features(), "digits-CNN")
        with pytest.raises(ValueError, match="multiple of 300 images, got 450"):
            judge.distance(splits.train.images[:450])

    def test_dropped_classes_and_copies_are_seen(self, splits):
        """What a Fréchet distance is for: missing modes, and too little variety."""
        judge = FrechetJudge(splits.validation.images, digits_features(), "digits-CNN")
        floor, _ = judge.floor(splits.train.images)
        half = splits.train.images[splits.train.labels < 5][:300]
        copies = splits.train.images[:10].repeat(30, 1, 1, 1)
        assert judge.distance(half)[0] > 3 * floor
        assert judge.distance(copies)[0] > 3 * floor


def test_moments_need_two_images():
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        FeatureMoments.of(np.zeros((1, 4)))


def test_moments_are_numpys():
    x = np.random.default_rng(0).normal(size=(40, 3))
    moments = FeatureMoments.of(x)
    np.testing.assert_allclose(moments.mean, x.mean(0))
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False))
    assert moments.n == 40


def test_bytes_are_what_a_png_would_hold():
    images = torch.tensor([-1.5, -1.0, -0.999, 0.0, 0.5, 1.0, 1.2])
    assert to_bytes_range(images).tolist() == [0, 0, 0, 128, 191, 255, 255]


class StandInLayers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)).repeat(1, 683)[:, :2048, None, None]


class StandIn(nn.Module):
    """The interface of the real TorchScript file: layers on [n, 3, 299, 299]; forward resizes bytes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = StandInLayers()

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        resized = nn.functional.interpolate(x.float(), size=[299, 299], mode="bilinear")
        return self.layers.forward((resized - 128) / 128).flatten(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Holds a stand-in for the weights."""
    folder = tmp_path_factory.mktemp("inception")
    torch.jit.script(StandIn()).save(str(folder / INCEPTION))
    return folder


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
class TestInception:
    def test_missing_weights_name_the_file_and_the_folder(self, tmp_path):
        with pytest.raises(MissingWeights) as caught:
            inception_features(tmp_path)
        assert INCEPTION in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert os.listdir(tmp_path) == []  # noqa: PTH208

    @pytest.mark.parametrize("mode", ["legacy_tensorflow", "clean"])
    def test_weights_that_the_user_has_are_used(self, folder, mode):
        """A stand-in whose features are the mean colour: resizing keeps it, in both modes."""
        colours = torch.tensor([[0.5, 0.0, -0.5], [-1.0, 1.0, 0.25]])
        images = colours[:, :, None, None].expand(2, 3, 32, 32).contiguous()
        found = inception_features(folder, mode)(images)
        assert found.shape == (2, 2048)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found[:, :3], colours, atol=0.02)

    @pytest.mark.parametrize("mode", ["legacy_tensorflow", "clean"])
    def test_grey_images_are_seen_as_colour(self, folder, mode):
        found = inception_features(folder, mode)(torch.full((2, 1, 8, 8), 0.5))
        np.testing.assert_allclose(found[:, :3], 0.5, atol=0.02)

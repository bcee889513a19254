"""Image data sets as studies open them: flips, judges, what is missing."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch

from sbbridge.data import DataError, ImageData, ImageSplits, LabelledImages, TensorData, photos
from sbbridge.data.encode_latents import main as encode
from sbbridge.metrics import MissingWeights
from sbbridge.sampling import Samples
from sbbridge.study import tasks
from sbbridge.study.definition import DATASETS
from sbbridge.study.tasks import images as image_tasks
from sbbridge.study.tasks import latents as latent_tasks
from sbbridge.study.tasks import open_task, primary_metric
from sbbridge.study.trial import TrialConfig
from tests.data.folders import write_celeba, write_images


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    for name in ("SB_DATA_ROOT", "SB_INCEPTION", "SB_AUTOENCODER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mean_colour(monkeypatch):
    """Instead of any network: the means of the channels, of the bytes that the judge is given."""

    def features(images):
        floats = images.float() if images.dtype == torch.uint8 else (images + 1) * 127.5
        return floats.mean((2, 3)).double().numpy()

    for module in (image_tasks, latent_tasks, tasks):
        monkeypatch.setattr(module, "image_features", lambda name, device: features)
    return features


def configuration(dataset):
    config = TrialConfig()
    _, features = primary_metric(dataset)
    object.__setattr__(config.evaluation, "features", features)
    return dataclasses.replace(config, dataset=dataset)


@pytest.fixture(params=["photos", "celeba", "celeba_hq", "image_folder", "ffhq_latent"])
def dataset(request, tmp_path, monkeypatch):
    """A data set that is there, in a stand-in."""
    root = tmp_path / "root"
    if request.param == "celeba":
        write_celeba(root, monkeypatch, n=48)
    elif request.param == "celeba_hq":
        write_images(root / "celeba_hq", 400, size=(8, 8))
        small = tasks.celeba_hq
        monkeypatch.setattr(tasks, "celeba_hq", lambda root, skip_bad: small(root, 8, skip_bad))
    elif request.param == "image_folder":
        write_images(root, 400)
    elif request.param == "ffhq_latent":
        from tests.data.autoencoders import write_autoencoder

        autoencoder = str(write_autoencoder(tmp_path / "autoencoder"))
        monkeypatch.setenv("SB_AUTOENCODER", autoencoder)
        write_images(tmp_path / "images", 400)
        output = str(root / "ffhq_latent")
        assert encode(["--images", str(tmp_path / "images"), "--autoencoder", autoencoder, "--output", output,
                       "--size", "16"]) == 0  # fmt: skip
    return request.param, str(root) if root.exists() else None


def test_every_new_data_set_is_judged_in_its_own_place_and_size(dataset, mean_colour):
    name, root = dataset
    task = open_task(configuration(name), root)
    sizes = task.sizes(TrialConfig().evaluation)
    assert set(sizes) == {"validation", "test"}
    for split, n in sizes.items():
        row = task.judge(Samples(task.problem.data.sample(n), 1), split)
        assert (row["metric"], row["n"]) == ("frechet_distance", n // TrialConfig().evaluation.draws)
        assert np.isfinite(row["value"])
    assert {row["split"] for row in task.floors()} == {"validation", "test"}
    shown = [task.picture(x) for x in (task.real(), task.problem.data.sample(3))]
    assert all(picture.dtype == torch.uint8 and picture.shape[-1] == 3 for picture in shown)
    assert shown[0].shape[1:] == shown[1].shape[1:]
    assert max(shown[0].shape[1:3]) <= image_tasks.SHOWN_SIZE


@pytest.mark.parametrize("name", ["patches-CNN", "inception"])
def test_only_inceptions_kernel_distance_is_of_features_as_they_are(name, mean_colour):
    """Half the contrast is half the features' scale, which standardised ones do not have."""
    splits = photos()
    faint = ImageSplits(*(LabelledImages(part.images / 2, part.labels) for part in splits))

    def kernel(splits):
        task = image_tasks.ImageTask(None, splits, lambda x: mean_colour(x) / 255 - 0.5, name)
        rows = task.variety(-splits.train.images)
        return next(row["value"] for row in rows if row["metric"] == "kernel_distance")

    assert (kernel(faint) == pytest.approx(kernel(splits), rel=1e-6)) == (name != "inception")


def test_the_distance_to_the_training_split_takes_every_image_on_either_side(mean_colour):
    """Fréchet's formula by scipy's matrix square root; it is not there where nobody asks for it."""
    config = configuration("photos")
    object.__setattr__(config.evaluation, "to_training", True)
    splits, name = photos(), "frechet_distance_to_training"

    def independent(x):
        seen = torch.cat([splits.train.images, splits.validation.images])
        (m, a), (k, b) = ((f.mean(0), np.cov(f.T)) for f in map(mean_colour, (x, seen)))
        return np.sum((m - k) ** 2) + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)

    task = open_task(config)
    x = splits.test.images.flip(0)[:1500]
    (row,) = (row for row in task.variety(x) if row["metric"] == name)
    assert row["n"] == 1500
    assert row["value"] == pytest.approx(independent(x), rel=1e-6)
    (floor,) = (row for row in task.floors() if row["metric"] == name)
    assert (floor["n"], floor["split"]) == (len(splits.test.images), "test")
    assert floor["value"] == pytest.approx(independent(splits.test.images), rel=1e-6)
    plain = open_task(configuration("photos"))
    assert all(row["metric"] != name for rows in (plain.variety(x), plain.floors()) for row in rows)


def test_features_of_the_images_seen_last_are_not_computed_again(mean_colour):
    seen = []

    def counting(images):
        seen.append(len(images))
        return mean_colour(images)

    splits = photos()
    task = image_tasks.ImageTask(None, splits, counting, "patches-CNN", to_training=True)
    made = splits.train.images.flip(0)[: len(splits.test.images)].clone()
    list(task.variety(made))
    assert seen.count(len(splits.train.images)) == 1  # of what is compared with, once
    seen.clear()
    judged = task.judge(Samples(made, 1), "test")
    rows = list(task.variety(made))
    assert seen == [len(made)]
    other = made.clone()
    assert task.judge(Samples(other, 1), "test") == judged
    assert list(task.variety(other)) == rows
    assert seen == [len(made)] * 2
    half = other[: len(other) // 2].to(torch.uint8)
    assert next(iter(task.variety(half)))["n"] == min(len(half), image_tasks.VARIETY_IMAGES)
    assert seen[-1] in (len(half), image_tasks.VARIETY_IMAGES)


def test_photographs_score_better_than_noise(mean_colour):
    task = open_task(configuration("photos"))
    n = 4000
    generator = torch.Generator().manual_seed(0)
    real, noise = task.problem.data.sample(n), torch.rand(n, 3, 16, 16, generator=generator) * 2 - 1
    assert task.judge(Samples(real, 1), "test")["value"] < task.judge(Samples(noise, 1), "test")["value"] / 3


def test_all_but_digits_are_trained_on_with_mirror_images(mean_colour, monkeypatch):
    assert isinstance(open_task(configuration("digits")).problem.data, TensorData)
    data = open_task(configuration("photos")).problem.data
    assert isinstance(data, ImageData)
    assert data.flip


def test_latents_are_judged_as_the_images_they_decode_to(tmp_path, monkeypatch, mean_colour):
    """Latents of one decoded image: the features are those of that image."""
    from diffusers import AutoencoderKL

    from tests.data.autoencoders import write_autoencoder

    autoencoder = str(write_autoencoder(tmp_path / "autoencoder"))
    write_images(tmp_path / "images", 400)
    arguments = ["--images", str(tmp_path / "images"), "--autoencoder", autoencoder, "--size", "8"]
    assert encode([*arguments, "--output", str(tmp_path / "ffhq_latent")]) == 0
    with pytest.raises(DataError, match="needs SB_AUTOENCODER"):
        open_task(configuration("ffhq_latent"), str(tmp_path))
    monkeypatch.setenv("SB_AUTOENCODER", str(write_autoencoder(tmp_path / "other", seed=1)))
    with pytest.raises(DataError, match="not the autoencoder that made the latents"):
        open_task(configuration("ffhq_latent"), str(tmp_path))
    monkeypatch.setenv("SB_AUTOENCODER", autoencoder)
    task = open_task(configuration("ffhq_latent"), str(tmp_path))
    z = task.problem.data.sample(40, seed=5)
    model = AutoencoderKL.from_pretrained(autoencoder, local_files_only=True, low_cpu_mem_usage=False).eval()
    with torch.no_grad():
        images = (model.decode(z / 0.3).sample.clamp(-1, 1) + 1) * 127.5
    np.testing.assert_allclose(task.features(z), images.mean((2, 3)), atol=0.6)
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=f"expected in {tmp_path / 'images'}"):
        open_task(configuration("ffhq_latent"), str(tmp_path))


@pytest.mark.parametrize("name", ["celeba", "celeba_hq", "image_folder", "ffhq_latent", "cifar10"])
def test_without_a_root_the_option_is_named(name):
    with pytest.raises(DataError, match="--data-root"):
        open_task(configuration(name))


def test_inceptions_weights_are_asked_for(tmp_path):
    write_images(tmp_path, 400)
    with pytest.raises(MissingWeights, match=r"inception-2015-12-05\.pt"):
        open_task(configuration("image_folder"), str(tmp_path))


def test_every_image_set_has_its_metric():
    assert {primary_metric(name)[0] for name in (*tasks.IMAGES, "ffhq_latent")} == {"frechet_distance"}
    assert set(tasks.IMAGES) < set(DATASETS)

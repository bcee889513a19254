"""Every data set, weight and denoiser from a URI: the same as from a folder, checked against what it brings along."""

import json
import os

import pytest
import torch

from sbbridge.data import DataError, placing
from sbbridge.data.cifar10 import cifar10
from sbbridge.data.folders import celeba, celeba_hq, image_folder
from sbbridge.data.latents import ffhq_latent
from tests.data.folders import write_celeba, write_cifar10, write_images

READ = {
    "cifar10": cifar10,
    "celeba": lambda root: celeba(root, 8),
    "celeba_hq": lambda root: celeba_hq(root, 8),
    "image_folder": lambda root: image_folder(root, 8),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(placing, "_checked", set())
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def write(name, root, monkeypatch):
    if name == "cifar10":
        write_cifar10(root, monkeypatch)
    elif name == "celeba":
        write_celeba(root, monkeypatch, n=48)
    else:
        write_images(root / "celeba_hq" if name == "celeba_hq" else root, 400)


def write_latents(root, images):
    """Latents of 400 images below the root; the autoencoder's folder."""
    from sbbridge.data.encode_latents import main as encode
    from tests.data.autoencoders import write_autoencoder

    autoencoder = write_autoencoder(root.parent / "autoencoder")
    write_images(images, 400)
    assert encode(["--images", str(images), "--autoencoder", str(autoencoder), "--size", "8", "--output",
                   str(root / "ffhq_latent")]) == 0  # fmt: skip
    return autoencoder


@pytest.mark.parametrize("name", READ)
def test_images_from_a_uri_are_those_of_the_folder(name, root, cache, monkeypatch):
    write(name, root, monkeypatch)
    expected = READ[name](root)
    (root / "notes").mkdir()
    (root / "notes" / "other.txt").write_text("of another data set")
    from_uri = READ[name](root.as_uri())
    root.rename(root.with_name("gone"))
    for splits in (from_uri, READ[name](root.as_uri())):
        for part, other in zip(splits, expected, strict=True):
            assert torch.equal(part.images, other.images)
            assert torch.equal(part.labels, other.labels)
    assert bool(list(cache.rglob("other.txt"))) == (name == "image_folder"), "only the data set's own part is copied"


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10", "cifar-10-batches-py/data_batch_2"), ("celeba", "celeba/list_eval_partition.txt")],
)
def test_torchvisions_checksums_are_verified_before_a_copy_is_used(name, file, root, cache, monkeypatch):
    write(name, root, monkeypatch)
    content = bytearray((root / file).read_bytes())
    content[-2] ^= 1
    (root / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"{(root / file).name} has the checksum"):
        READ[name](root.as_uri())
    (root / file).unlink()
    with pytest.raises(DataError, match=rf"{(root / file).name} is missing"):
        READ[name](root.as_uri())
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("name", [*READ, "ffhq_latent"])
def test_an_absent_data_set_is_said_with_its_place(name, root):
    read = READ.get(name, ffhq_latent)
    with pytest.raises(DataError, match=r"file://.*/root.*: no file is there") as caught:
        read(root.as_uri())
    assert "\n" not in str(caught.value)


class TestLatents:
    def test_latents_and_their_images_from_one_root(self, root):
        write_latents(root, root / "ffhq")
        assert json.loads((root / "ffhq_latent" / "manifest.json").read_text())["images"] == "ffhq"
        here, there = ffhq_latent(root), ffhq_latent(root.as_uri())
        assert torch.equal(there.train.sample(5), here.train.sample(5))
        assert torch.equal(there.reference("test"), here.reference("test"))

    def test_images_at_a_uri_of_their_own(self, root, tmp_path):
        write_latents(root, tmp_path / "images")
        path = root / "ffhq_latent" / "manifest.json"
        manifest = json.loads(path.read_text())
        assert manifest["images"] == str(tmp_path / "images")
        path.write_text(json.dumps({**manifest, "images": (tmp_path / "images").as_uri()}))
        assert len(ffhq_latent(root.as_uri()).reference("test")) >= 10
        path.write_text(json.dumps({**manifest, "images": "/absent/images"}))
        placing._checked.clear()
        with pytest.raises(DataError, match=r"expected in /absent/images"):
            ffhq_latent(root.as_uri()).reference("test")

    def test_a_root_that_was_moved_is_continued(self, root, tmp_path, capsys):
        from sbbridge.data.encode_latents import main as encode

        autoencoder = write_latents(root, root / "ffhq")
        root.rename(tmp_path / "moved")
        capsys.readouterr()
        again = ["--images", str(tmp_path / "moved" / "ffhq"), "--autoencoder", str(autoencoder), "--size", "8"]
        assert encode([*again, "--output", str(tmp_path / "moved" / "ffhq_latent")]) == 0
        assert "400 latents in 1 shards" in capsys.readouterr().out

    def test_the_manifests_checksums_are_verified(self, root):
        write_latents(root, root / "ffhq")
        path = root / "ffhq_latent" / "latents-00000.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"latents-00000\.safetensors has the checksum"):
            ffhq_latent(root.as_uri())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_study_opens_data_weights_and_autoencoder_from_uris(root, tmp_path, monkeypatch):
    from sbbridge.metrics.features import INCEPTION_FILE
    from sbbridge.study.space import resolve
    from sbbridge.study.tasks import open_task
    from sbbridge.study.trial import TrialConfig
    from tests.metrics.test_features import StandIn
    from tests.study import tiny

    autoencoder = write_latents(root, root / "ffhq")
    (tmp_path / "inception").mkdir()
    torch.jit.script(StandIn()).save(str(tmp_path / "inception" / INCEPTION_FILE))
    monkeypatch.setenv("SB_AUTOENCODER", autoencoder.as_uri())
    monkeypatch.setenv("SB_INCEPTION", (tmp_path / "inception").as_uri())
    monkeypatch.setenv("SB_DATA_ROOT", root.as_uri())
    tree = resolve(TrialConfig, tiny.tree(), {"dataset": "ffhq_latent", "evaluation.features": "inception"})
    task = open_task(tiny.config.parse(TrialConfig, tree))
    assert task.problem.data.shape == (4, 4, 4)
    assert next(task.floors())["value"] >= 0
    os.rename(tmp_path / "inception", tmp_path / "elsewhere")  # noqa: PTH104
    placing._checked.clear()
    with pytest.raises(DataError, match=rf"file://.*/inception/{INCEPTION_FILE}: no file is there"):
        open_task(tiny.config.parse(TrialConfig, tree))


def test_a_denoiser_from_a_uri_is_that_of_the_folder(tmp_path):
    from sbbridge.integrations.published import load_denoiser
    from tests.integrations.test_published import SHAPE, images, times, write_pipeline

    write_pipeline(tmp_path / "pipeline")
    here, there = (load_denoiser(where, SHAPE, None, None, "cpu") for where in
                   (tmp_path / "pipeline", (tmp_path / "pipeline").as_uri()))  # fmt: skip
    assert there.digest == here.digest != ""
    x, t = images(5), times()
    assert torch.equal(there.field(t, x), here.field(t, x))
    with pytest.raises(DataError, match=r"SB_DENOISER file://.*/absent: file://.*/absent: no file is there"):
        load_denoiser((tmp_path / "absent").as_uri(), SHAPE, None, None, "cpu")

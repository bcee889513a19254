"""Latents: encoded once, continued after a kill, checked when opened, drawn anew at each access."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.stats import kstest

from sbbridge.data import DataError, encode_latents
from sbbridge.data.encode_latents import main
from sbbridge.data.latents import LatentData, LatentShard, ffhq_latent
from tests.data.autoencoders import write_autoencoder
from tests.data.folders import write_images

SIZE = 8
N, SHARD = 360, 120


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return write_autoencoder(tmp_path_factory.mktemp("autoencoder"))


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / "images", N)
    return tmp_path / "images"


@pytest.fixture
def command(autoencoder, images, tmp_path):
    return ["--images", str(images), "--autoencoder", str(autoencoder), "--size", str(SIZE), "--shard-size", str(SHARD),
            "--batch-size", "16", "--output", str(tmp_path / "root" / "ffhq_latent")]  # fmt: skip


@pytest.fixture
def folder(command):
    return Path(command[-1])


@pytest.fixture
def encoded_batches(monkeypatch):
    """Numbers of images that went through the autoencoder."""
    seen = []
    real = encode_latents.Autoencoder.encode
    monkeypatch.setattr(encode_latents.Autoencoder, "encode", lambda self, x: seen.append(len(x)) or real(self, x))
    return seen


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


class TestEncoding:
    def test_shards_hold_the_posterior_of_every_image(self, command, folder, images, autoencoder, capsys):
        from diffusers import AutoencoderKL
        from PIL import Image

        assert main(command) == 0
        assert capsys.readouterr().out == f"{N} latents in 3 shards: {folder}\n"
        found = manifest(folder)
        assert found["images"] == str(images)
        assert (found["image_size"], found["scaling_factor"]) == (SIZE, 0.3)
        names = [name for shard in found["shards"] for name in shard["names"]]
        assert names == sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))
        model = AutoencoderKL.from_pretrained(str(autoencoder), local_files_only=True).eval()
        shard = safetensors.torch.load_file(str(folder / found["shards"][1]["file"]))
        pixels = np.asarray(Image.open(images / names[SHARD + 3]))[:, 1:9].transpose(2, 0, 1)
        with torch.no_grad():
            posterior = model.encode(torch.from_numpy(pixels.copy())[None].float() / 127.5 - 1).latent_dist
        assert shard["mean"].dtype == torch.float16
        torch.testing.assert_close(shard["mean"][3].float(), posterior.mean[0], atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(shard["std"][3].float(), posterior.std[0], atol=2e-3, rtol=2e-3)

    def test_again_encodes_nothing(self, command, folder, encoded_batches):
        assert main(command) == 0
        before, count = contents(folder), len(encoded_batches)
        assert main(command) == 0
        assert contents(folder) == before
        assert len(encoded_batches) == count

    def test_a_killed_run_is_continued(self, command, folder, encoded_batches):
        """SIGKILL after the second shard was renamed and before the manifest knows of it."""
        code = (
            "import os, signal, sys\n"
            "from sbbridge.data import encode_latents as module\n"
            "real, seen = module._write_shard, []\n"
            "def write(*arguments):\n"
            "    seen.append(real(*arguments))\n"
            "    if len(seen) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
            "    return seen[-1]\n"
            "module._write_shard = write\n"
            "module.main(sys.argv[1:])"
        )
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        killed = subprocess.run([sys.executable, "-c", code, *command], env=env, capture_output=True, timeout=120)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert len(manifest(folder)["shards"]) == 1
        first = folder / "latents-00000.safetensors"
        written = first.stat().st_mtime_ns
        assert main(command) == 0
        assert first.stat().st_mtime_ns == written
        assert sum(encoded_batches) == N - SHARD
        continued = contents(folder)
        for path in folder.iterdir():
            path.unlink()
        assert main(command) == 0
        assert contents(folder) == continued, "as if it had never been killed"

    def test_an_interrupt_says_how_to_continue(self, command, monkeypatch, capsys):
        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr(encode_latents, "_write_shard", interrupted)
        assert main(command) == 130
        assert "the same command continues" in capsys.readouterr().err

    @pytest.mark.parametrize("damage", ["torn", "changed", "lost"])
    def test_a_damaged_shard_is_made_again_and_the_others_kept(self, damage, command, folder, encoded_batches):
        assert main(command) == 0
        before = contents(folder)
        path = folder / "latents-00001.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.unlink() if damage == "lost" else path.write_bytes(content[:-9] if damage == "torn" else content)
        encoded_batches.clear()
        assert main(command) == 0
        assert sum(encoded_batches) == SHARD
        assert contents(folder) == before

    def test_new_images_are_added_and_lost_ones_removed(self, command, folder, images, encoded_batches):
        assert main(command) == 0
        (images / "part0" / "0000.png").rename(images / "part0" / "9999.png")
        encoded_batches.clear()
        assert main(command) == 0
        assert sum(encoded_batches) == SHARD, "the shard that held the lost image, and the new image"
        names = [name for shard in manifest(folder)["shards"] for name in shard["names"]]
        assert sorted(names) == sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))

    def test_a_bad_image_is_named_or_left_out_and_counted(self, command, folder, images, capsys):
        (images / "part1" / "0001.png").write_bytes(b"no image")
        assert main(command) == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert re.match(r"error: .*part1/0001\.png: not a readable image .*--skip-bad", err)
        assert main([*command, "--skip-bad"]) == 0
        assert f"{N - 1} latents in 3 shards, 1 images left out" in capsys.readouterr().out
        assert manifest(folder)["skipped"] == ["part1/0001.png"]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (["--images", "/absent"], "--images: no folder /absent"),
            (["--autoencoder", "/absent"], "no autoencoder in /absent"),
            (["--size", "9"], "--size must be a multiple of 2"),
        ],
    )
    def test_wrong_input_is_one_line_and_status_2(self, change, words, command, capsys):
        assert main([*command, *change]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert words in line

    @pytest.mark.parametrize("arguments", [["--size", "0"], ["--batch-size", "x"], ["--device", "abacus"], ["--imag"]])
    def test_wrong_arguments_are_one_line_and_status_2(self, arguments, command, capsys):
        with pytest.raises(SystemExit) as caught:
            main([*command, *arguments])
        assert caught.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1

    def test_an_output_of_another_autoencoder_or_size_is_left_alone(self, command, folder, tmp_path, capsys):
        assert main(command) == 0
        before = contents(folder)
        other = write_autoencoder(tmp_path / "other", seed=1)
        for change, words in ((["--size", "4"], "image_size 8, not 4"), (["--autoencoder", str(other)], "autoencoder")):
            assert main([*command, *change]) == 2
            assert words in capsys.readouterr().err
        assert contents(folder) == before

    def test_broken_weights_are_wrong_input(self, command, autoencoder, tmp_path, capsys):
        broken = tmp_path / "broken"
        broken.mkdir()
        for path in autoencoder.iterdir():
            (broken / path.name).write_bytes(path.read_bytes()[: 200 if path.suffix == ".safetensors" else None])
        assert main([*command, "--autoencoder", str(broken)]) == 2
        assert f"no usable autoencoder in {broken}" in capsys.readouterr().err


class TestLatentData:
    def test_draws_are_scaled_posterior_samples(self):
        shard = LatentShard(torch.full((1, 1, 1, 1), 3.0).half(), torch.full((1, 1, 1, 1), 0.5).half())
        x = LatentData([shard], scale=0.25).sample(20_000).flatten()
        assert kstest((x / 0.25 - 3) / 0.5, "norm").pvalue > 1e-5

    def test_rows_of_all_shards_are_drawn_equally_often(self):
        values = torch.arange(10.0)[:, None, None, None].half()
        shards = [LatentShard(part, torch.zeros_like(part)) for part in values.split([1, 6, 3])]
        counts = torch.bincount(LatentData(shards, 1.0).sample(40_000).flatten().long(), minlength=10)
        assert ((counts - 4000).abs() < 5.5 * (4000 * 0.9) ** 0.5).all()

    def test_places_choose(self):
        values = torch.arange(6.0)[:, None, None, None].half()
        shards = [LatentShard(part, torch.zeros_like(part)) for part in values.split(3)]
        x = LatentData(shards, 1.0, places=torch.tensor([[0, 2], [1, 0]])).sample(100)
        assert set(x.flatten().tolist()) == {2.0, 3.0}

    @pytest.mark.parametrize(
        ("shards", "message"),
        [
            ([], "no latents"),
            ([LatentShard(torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)),
              LatentShard(torch.zeros(1, 4, 1, 1), torch.zeros(1, 4, 1, 1))], "different shapes"),
        ],
    )  # fmt: skip
    def test_impossible_shards_are_refused(self, shards, message):
        with pytest.raises(DataError, match=message):
            LatentData(shards, 1.0)


class TestOpening:
    @pytest.fixture
    def root(self, command, folder, monkeypatch, tmp_path):
        monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
        assert main(command) == 0
        return folder.parent

    def test_splits_share_no_image_and_the_reference_is_the_images(self, root, images):
        latents = ffhq_latent(root)
        assert latents.train.shape == (4, SIZE // 2, SIZE // 2)
        assert len(latents.train) == len(latents.names["train"]) > 0.8 * N
        assert sum(map(len, latents.names.values())) == N == len(set().union(*latents.names.values()))
        for split in ("validation", "test"):
            assert latents.reference(split).shape == (len(latents.names[split]), 3, SIZE, SIZE)
        assert len(latents.reference("train", at_most=5)) == 5

    def test_training_latents_are_those_of_the_training_images(self, root, folder):
        latents = ffhq_latent(root)
        rows = {}
        for shard in manifest(folder)["shards"]:
            tensors = safetensors.torch.load_file(str(folder / shard["file"]))
            rows |= dict(zip(shard["names"], tensors["mean"], strict=True))
        for place, name in zip(latents.train.places.tolist(), latents.names["train"], strict=True):
            assert torch.equal(latents.train.shards[place[0]].mean[place[1]], rows[name])

    @pytest.mark.parametrize("damage", ["torn", "changed", "lost"])
    def test_a_damaged_shard_is_named_with_the_remedy(self, damage, root, folder):
        path = folder / "latents-00001.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.unlink() if damage == "lost" else path.write_bytes(content[:-9] if damage == "torn" else content)
        word = "missing" if damage == "lost" else "torn or changed"
        with pytest.raises(DataError, match=rf"latents-00001\.safetensors is {word}: run .*encode_latents again"):
            ffhq_latent(root)

    def test_what_is_missing_is_said(self, root, images, tmp_path, folder):
        with pytest.raises(DataError, match="--data-root"):
            ffhq_latent(None)
        with pytest.raises(DataError, match=r"manifest\.json: make them with python -m"):
            ffhq_latent(tmp_path)
        images.rename(tmp_path / "moved")
        with pytest.raises(DataError, match=f"expected in {images}"):
            ffhq_latent(root).reference("test")
        (folder / "manifest.json").write_text("{")
        with pytest.raises(DataError, match=r"manifest\.json cannot be read"):
            ffhq_latent(root)

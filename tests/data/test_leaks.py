"""What is no part of a folder's images stays apart, and the same image in two splits is told."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from sbbridge.data import DataError, folders
from sbbridge.data.encode_latents import main
from sbbridge.data.files import is_hidden, printable
from sbbridge.data.folders import image_folder, image_names, split_by_name
from sbbridge.data.latents import ffhq_latent
from tests.data.autoencoders import write_autoencoder

N = 300
"""22 of its images are validated on, 19 tested on."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "x"
    made.mkdir()
    for i in range(N):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{i:04d}.png")
    return made


def sizes(splits):
    return [len(part.images) for part in splits]


def test_splits_of_ordinary_folders_are_what_they_always_were():
    """Figures of the first release."""
    names = [f"{i:05d}.png" for i in range(70_000)]
    splits = split_by_name(names)
    assert {split: len(part) for split, part in splits.items()} == {"train": 63024, "validation": 3515, "test": 3461}
    assert splits["validation"][:3] == ["00090.png", "00096.png", "00125.png"]
    assert splits["test"][:3] == ["00044.png", "00047.png", "00050.png"]
    splits = split_by_name([f"ä{i}.png" for i in range(40)])
    assert (splits["validation"], splits["test"]) == (["ä7.png"], ["ä26.png", "ä28.png", "ä36.png"])


class TestHidden:
    @pytest.mark.parametrize(
        "place",
        [".ipynb_checkpoints/{}-checkpoint.png", ".thumbnails/{}.png", "@eaDir/{}/SYNOPHOTO_THUMB_M.png",
         "@eaDir/{}.png", "__MACOSX/._{}.png", "__MACOSX/x/{}.png", "lost+found/{}.png", "sub/.hidden/deep/{}.png",
         "._{}.png", ".{}.png",
         ".Trash-1000/files/{}.png", "#recycle/{}.png", "$RECYCLE.BIN/{}.png", ".git/{}.png", "Thumbs.db/{}.png"],
    )  # fmt: skip
    def test_copies_there_are_left_out_and_counted_in_one_line(self, folder, place, capsys):
        before = image_folder(folder, 8)
        capsys.readouterr()
        for i in range(40):
            target = folder / place.format(f"{i:04d}")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / f"{i:04d}.png", target)
        after = image_folder(folder, 8)
        assert all((a.images == b.images).all() for a, b in zip(before, after, strict=True))
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"left out below {folder}: 40 hidden images")

    def test_ordinary_names_are_not_hidden(self):
        for name in ("a.png", "x/lost/found.png", "checkpoints/a.png", "eaDir/a.png", "a@b/c.png", "a.b/c.png"):
            assert not is_hidden(name)
        assert is_hidden("..a/b.png")

    def test_a_root_that_is_hidden_itself_is_the_users_choice(self, folder):
        folder.rename(folder.parent / ".images")
        assert len(image_names(folder.parent / ".images", "test")) == N

    def test_a_folder_of_hidden_images_alone_is_said(self, tmp_path, folder):
        folder.rename(tmp_path / "y")
        (tmp_path / "root").mkdir()
        (tmp_path / "y").rename(tmp_path / "root" / ".thumbnails")
        with pytest.raises(DataError, match=rf"no image .*, but {N} hidden images \(in \.thumbnails\)"):
            image_folder(tmp_path / "root")

    def test_links_to_folders_and_other_kinds_of_files_are_counted(self, folder, capsys):
        (folder / "elsewhere").symlink_to(folder.parent)
        Image.new("L", (8, 8)).save(folder / "scan.tif")
        image_names(folder, "test")
        assert capsys.readouterr().err == f"left out below {folder}: 1 .tif files, 1 links to folders\n"

    def test_an_ordinary_folder_says_nothing(self, folder, capsys):
        assert sizes(image_folder(folder, 8)) == [259, 22, 19]
        assert capsys.readouterr().err == ""


class TestTheSameImageTwice:
    def test_pairs_are_counted_whatever_the_names(self, folder, capsys):
        splits = split_by_name(image_names(folder, "test"))
        train, validation, test = (splits[split] for split in ("train", "validation", "test"))
        with Image.open(folder / train[0]) as image:
            image.save(folder / f"copy{validation[0]}", "BMP")  # other bytes, the same pixels
        shutil.copy(folder / train[1], folder / test[0])
        shutil.copy(folder / train[1], folder / test[1])
        shutil.copy(folder / validation[1], folder / test[2])
        expected = {"train and test": 2, "validation and test": 1}
        place = next(split for split, part in split_by_name([f"copy{validation[0]}"]).items() if part)
        if place != "train":
            expected[f"train and {place}"] = expected.get(f"train and {place}", 0) + 1
        image_folder(folder, 8)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{sum(expected.values())} pairs of equal images are in two splits below {folder}")
        for where, count in expected.items():
            assert f"{count} in {where}" in line
        assert f"for example {train[0] if place == 'validation' else train[1]} and " in line
        image_folder(folder, 8)
        assert capsys.readouterr().err.splitlines() == [line], "told again when the cache answers"

    def test_copies_inside_a_split_are_no_leak(self, folder, capsys):
        train = split_by_name(image_names(folder, "test"))["train"]
        shutil.copy(folder / train[0], folder / train[1])
        image_folder(folder, 8)
        assert capsys.readouterr().err == ""

    def test_latents_alike(self, folder, tmp_path, capsys):
        splits = split_by_name(image_names(folder, "test"))
        shutil.copy(folder / splits["train"][5], folder / splits["test"][5])
        (folder / ".ipynb_checkpoints").mkdir()
        shutil.copy(folder / splits["train"][6], folder / ".ipynb_checkpoints" / "copy.png")
        output = tmp_path / "root" / "ffhq_latent"
        command = ["--images", str(folder), "--autoencoder", str(write_autoencoder(tmp_path / "vae")), "--size", "8",
                   "--output", str(output)]  # fmt: skip
        for _ in range(2):  # encoded, and found again
            assert main(command) == 0
            err = capsys.readouterr().err
            assert f"left out below {folder}: 1 hidden images (in .ipynb_checkpoints)" in err
            assert f"1 pairs of equal images are in two splits below {folder} (1 in train and test; for example " in err
        ffhq_latent(tmp_path / "root")
        assert "1 pairs of equal images are in two splits" in capsys.readouterr().err

    def test_hidden_images_that_were_encoded_before_are_left_out(self, folder, tmp_path, capsys):
        output = tmp_path / "root" / "ffhq_latent"
        assert main(["--images", str(folder), "--autoencoder", str(write_autoencoder(tmp_path / "vae")), "--size", "8",
                     "--output", str(output)]) == 0  # fmt: skip
        manifest = json.loads((output / "manifest.json").read_text())
        names = manifest["shards"][0]["names"]
        train = split_by_name(names)["train"]
        names[names.index(train[0])] = ".ipynb_checkpoints/copy.png"
        del manifest["shards"][0]["pixels"]  # as the first release wrote it
        (output / "manifest.json").write_text(json.dumps(manifest))
        capsys.readouterr()
        latents = ffhq_latent(tmp_path / "root")
        assert len(latents.train) == len(train) - 1
        assert capsys.readouterr().err == f"left out of {output}: latents of 1 hidden images\n"


class TestNames:
    ODD = (b"caf\xe9.png", b"what?.png", b"a#b.png", b"%41.png", b"*.png", b"[a].png", b"c:d.png", b"'\".png",
           b"x\ny.png", b"-rf.png", b"n" * 200 + b".png", b"$(true).png", b"\xff\xfe.jpg.png")  # fmt: skip

    @pytest.fixture
    def odd(self, folder):
        for i, name in enumerate(self.ODD):
            (folder / f"{i:04d}.png").rename(folder / os.fsdecode(name))
        return folder

    def test_all_are_read(self, odd, capsys):
        assert sum(sizes(image_folder(odd, 8))) == N
        assert capsys.readouterr().err == ""

    def test_a_broken_one_is_named_in_one_line_or_left_out(self, odd, capsys):
        for name in (b"caf\xe9.png", b"x\ny.png"):
            (odd / os.fsdecode(name)).write_bytes(b"no image")
        with pytest.raises(DataError, match=r"2 of \d+ images .*(caf\\xe9|x\\ny)\.png: not a readable image") as caught:
            image_folder(odd, 8)
        assert str(caught.value).isprintable()
        assert sum(sizes(image_folder(odd, 8, skip_bad=True))) == N - 2
        assert all(line.isprintable() for line in capsys.readouterr().err.splitlines())

    def test_latents_survive_the_manifest(self, odd, tmp_path, capsys):
        data = tmp_path / os.fsdecode(b"dat\xe9")
        data.mkdir()
        images, vae = odd.rename(data / "images"), write_autoencoder(tmp_path / "vae").rename(data / "vae")
        command = ["--images", str(images), "--autoencoder", str(vae), "--size", "8",
                   "--output", str(data / "ffhq_latent")]  # fmt: skip
        assert main(command) == 0
        assert capsys.readouterr().out == f"{N} latents in 1 shards: {printable(data / 'ffhq_latent')}\n"
        latents = ffhq_latent(data)
        assert sorted(name for part in latents.names.values() for name in part) == image_names(images, "test")
        assert os.fsdecode(b"caf\xe9.png") in latents.names["train"]
        for split in latents.names:
            assert len(latents.reference(split)) == len(latents.names[split])

    @pytest.mark.parametrize("damage", ["dangling", "folder", "pipe", "unreadable"])
    def test_what_cannot_be_opened_is_named_or_left_out(self, folder, damage, monkeypatch):
        path = folder / "0003.png"
        path.unlink()
        if damage == "dangling":
            path.symlink_to("gone.png")
        elif damage == "pipe":
            os.mkfifo(path)
        elif damage == "folder":
            path.symlink_to(folder.parent)
        else:  # root reads everything: what others meet is played
            Image.new("RGB", (8, 8)).save(path)
            real = Image.open
            monkeypatch.setattr(Image, "open", lambda file: _denied(file) if file == path else real(file))
        if damage == "folder":  # a link to a folder is no image
            assert sum(sizes(image_folder(folder, 8))) == N - 1
            return
        with pytest.raises(DataError, match=r"0003\.png: not a readable image") as caught:
            image_folder(folder, 8)
        assert damage != "dangling" or "a link to gone.png, which is not there" in str(caught.value)
        assert sum(sizes(image_folder(folder, 8, skip_bad=True))) == N - 1

    def test_a_file_that_becomes_readable_is_read(self, folder, monkeypatch):
        real, path = os.access, folder / "0003.png"
        monkeypatch.setattr(os, "access", lambda file, mode: file != path and real(file, mode))
        opened = Image.open
        monkeypatch.setattr(Image, "open", lambda file: _denied(file) if file == path else opened(file))
        assert sum(sizes(image_folder(folder, 8, skip_bad=True))) == N - 1
        monkeypatch.setattr(os, "access", real)
        monkeypatch.setattr(Image, "open", opened)
        assert sum(sizes(image_folder(folder, 8))) == N

    def test_a_subfolder_that_cannot_be_read_is_named_or_left_out(self, folder, monkeypatch, capsys):
        for name in ("secret", "lost+found"):
            (folder / name).mkdir()
        real = os.scandir

        def scandir(path):
            if str(path).endswith(("secret", "lost+found")):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(folders.os, "scandir", scandir)
        with pytest.raises(DataError, match=r"secret cannot be read \(Permission denied; --skip-bad"):
            image_names(folder, "test")
        assert len(image_names(folder, "test", skip_bad=True)) == N
        assert "1 folders that cannot be read" in capsys.readouterr().err


def _denied(file):
    raise PermissionError(13, "Permission denied", str(file))

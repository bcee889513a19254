"""Image files: decoded once, cropped, split by name; CelebA's official partition."""

import io
import multiprocessing
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from sbbridge.data import DataError, decoding
from sbbridge.data.decoding import decoded, read_image
from sbbridge.data.folders import celeba, celeba_hq, image_folder, image_names, split_by_name
from tests.data.folders import write_celeba, write_images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch):
    """Paths that were decoded."""
    seen = []
    real = decoding.read_image

    def counted(path, size, crop=None):
        seen.append(path.name)
        return real(path, size, crop)

    monkeypatch.setattr(decoding, "read_image", counted)
    return seen


class TestReading:
    def test_the_central_square_of_a_wide_image_pixel_for_pixel(self, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(read_image(tmp_path / "a.png", 6), pixels[:, 2:8].transpose(2, 0, 1))

    def test_shrinking_averages(self, tmp_path):
        stripes = np.zeros((64, 64, 3), dtype=np.uint8)
        stripes[:, ::2] = 255
        Image.fromarray(stripes).save(tmp_path / "a.png")
        small = read_image(tmp_path / "a.png", 8).astype(int)
        assert abs(small - 127.5).max() < 10, "nearest-neighbour resizing would give 0 or 255"

    def test_grey_transparent_and_palette_images_become_rgb(self, tmp_path):
        for mode in ("L", "RGBA", "P", "1", "I;16"):
            Image.new(mode, (8, 8)).save(tmp_path / "a.png")
            assert read_image(tmp_path / "a.png", 4).shape == (3, 4, 4)

    def test_a_crop_is_central(self, tmp_path):
        pixels = np.zeros((20, 16, 3), dtype=np.uint8)
        pixels[5:15, 3:13] = 200
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert (read_image(tmp_path / "a.png", 5, crop=10) == 200).all()

    def test_a_rotated_photograph_is_turned_upright(self, tmp_path):
        pixels = np.zeros((8, 8, 3), dtype=np.uint8)
        pixels[:4] = 255  # white above; stored turned by 180 degrees
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(pixels[::-1, ::-1].copy()).save(tmp_path / "a.png", exif=exif)
        assert (read_image(tmp_path / "a.png", 8)[:, :4] == 255).all()

    @pytest.mark.parametrize("content", [b"", b"no image", "torn"])
    def test_a_broken_file_is_named_in_one_line(self, content, tmp_path):
        buffer = io.BytesIO()
        Image.new("RGB", (50, 50)).save(buffer, "PNG")
        (tmp_path / "a.png").write_bytes(buffer.getvalue()[:60] if content == "torn" else content)
        with pytest.raises(DataError, match=r"a\.png: not a readable image") as caught:
            read_image(tmp_path / "a.png", 8)
        assert len(str(caught.value).splitlines()) == 1


class TestDecodingOnce:
    def test_the_second_time_nothing_is_decoded(self, tmp_path, reads):
        names = write_images(tmp_path / "x", 5)
        first = decoded(tmp_path / "x", names, 8)
        assert len(reads) == 5
        assert torch.equal(decoded(tmp_path / "x", names, 8), first)
        assert len(reads) == 5
        assert first.shape == (5, 3, 8, 8)
        assert first.dtype == torch.uint8
        expected = [np.asarray(Image.open(tmp_path / "x" / name))[:, 1:9].transpose(2, 0, 1) for name in names]
        assert np.array_equal(first.numpy(), np.stack(expected))

    def test_another_size_and_a_changed_file_are_decoded_anew(self, tmp_path, reads):
        names = write_images(tmp_path / "x", 3, suffix=".bmp")
        decoded(tmp_path / "x", names, 8)
        decoded(tmp_path / "x", names, 4)
        assert len(reads) == 6
        path = tmp_path / "x" / names[1]
        bytes_before = path.stat().st_size
        Image.new("RGB", (10, 8), (1, 2, 3)).save(path)
        assert path.stat().st_size == bytes_before
        assert decoded(tmp_path / "x", names, 8)[1, :, 0, 0].tolist() == [1, 2, 3]
        assert len(reads) == 9

    def test_two_processes_at_once_decode_once(self, tmp_path):
        names = write_images(tmp_path / "x", 40)
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=_decode, args=(tmp_path, names, i)) for i in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert len(list(tmp_path.glob("made*"))) == 1

    def test_a_killed_process_leaves_nothing_that_looks_whole(self, tmp_path, reads, monkeypatch):
        names = write_images(tmp_path / "x", 4)
        monkeypatch.setattr(decoding.json, "dumps", _killed_at_the_end(decoding.json.dumps))
        with pytest.raises(KeyboardInterrupt):
            decoded(tmp_path / "x", names, 8)
        monkeypatch.undo()
        monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
        assert decoded(tmp_path / "x", names, 8).shape[0] == 4
        assert not list((tmp_path / "cache").glob("*.partial"))

    @pytest.mark.parametrize(
        ("file", "kept"), [("images.npy", -1), ("images.npy", 0), ("images.npy", None), ("bad.json", 0)]
    )
    def test_a_torn_entry_is_made_again(self, file, kept, tmp_path, cache, reads):
        names = write_images(tmp_path / "x", 3)
        whole = decoded(tmp_path / "x", names, 8).clone()
        (entry,) = (path for path in cache.iterdir() if path.is_dir())
        torn = (entry / file).read_bytes()
        (entry / file).unlink() if kept is None else (entry / file).write_bytes(torn[:kept])
        assert torch.equal(decoded(tmp_path / "x", names, 8), whole)
        assert len(reads) == 6
        assert [path for path in cache.iterdir() if path.is_dir()] == [entry]

    def test_a_full_disk_is_said_before_it_is_filled(self, tmp_path, monkeypatch):
        names = write_images(tmp_path / "x", 2)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
        with pytest.raises(DataError, match="SB_CACHE"):
            decoded(tmp_path / "x", names, 8)

    def test_bad_files_are_named_or_left_out_and_counted(self, tmp_path, capsys):
        names = write_images(tmp_path / "x", 6)
        whole = decoded(tmp_path / "x", names, 8)
        for i in (1, 4):
            (tmp_path / "x" / names[i]).write_bytes(b"no image")
        with pytest.raises(DataError, match=rf"2 of 6 images .*--skip-bad.*{names[1]}: not a readable image"):
            decoded(tmp_path / "x", names, 8)
        capsys.readouterr()
        rest = decoded(tmp_path / "x", names, 8, skip_bad=True)
        assert torch.equal(rest, whole[[0, 2, 3, 5]])
        assert capsys.readouterr().err.startswith("left out 2 of 6 images")


def _decode(folder, names, i):
    real = decoding._make

    def counted(*arguments):
        (folder / f"made{i}").touch()
        real(*arguments)

    decoding._make = counted
    assert len(decoded(folder / "x", names, 8)) == len(names)


def _killed_at_the_end(dumps):
    def killed(value):
        if value == {}:  # the list of bad files is written last
            raise KeyboardInterrupt
        return dumps(value)

    return killed


class TestImageFolder:
    def test_splits_are_90_5_5_and_stay_when_files_come(self):
        """Shares within 5.5 standard errors."""
        names = [f"{i:05d}.png" for i in range(20_000)]
        before, after = split_by_name(names[::2]), split_by_name(names)
        for split, share in zip(before, (0.9, 0.05, 0.05), strict=True):
            assert set(before[split]) <= set(after[split])
            assert abs(len(after[split]) - 20_000 * share) < 5.5 * (20_000 * share * (1 - share)) ** 0.5
        assert sorted(name for part in after.values() for name in part) == names

    def test_images_of_subfolders_in_order_of_their_names(self, tmp_path):
        names = write_images(tmp_path / "x", 400)
        (tmp_path / "x" / "notes.txt").write_text("no image")
        (tmp_path / "x" / "._0001.png").write_bytes(b"a Mac's shadow file")
        Image.new("RGB", (8, 8)).save(tmp_path / "x" / "LAST.JPG")
        assert image_names(tmp_path / "x", "x") == sorted([*names, "LAST.JPG"])
        splits = image_folder(tmp_path / "x", size=8)
        parts = split_by_name(sorted([*names, "LAST.JPG"]))
        for part, expected in zip(splits, parts.values(), strict=True):
            assert part.images.shape == (len(expected), 3, 8, 8)
            assert len(part.labels) == len(expected)
            for image, name in zip(part.images, expected, strict=True):
                assert np.array_equal(image, read_image(tmp_path / "x" / name, 8))

    def test_celeba_hq_is_such_a_folder_below_the_root(self, tmp_path):
        write_images(tmp_path / "celeba_hq", 400)
        assert celeba_hq(tmp_path, size=8).train.images.shape[1:] == (3, 8, 8)

    def test_one_broken_file(self, tmp_path, capsys):
        names = write_images(tmp_path / "x", 400)
        (tmp_path / "x" / names[7]).write_bytes(b"no image")
        with pytest.raises(DataError, match=names[7]):
            image_folder(tmp_path / "x", size=8)
        assert sum(len(part.images) for part in image_folder(tmp_path / "x", size=8, skip_bad=True)) == 399

    @pytest.mark.parametrize("read", [image_folder, celeba_hq, celeba])
    def test_what_is_missing_is_said(self, read, tmp_path):
        with pytest.raises(DataError, match="--data-root"):
            read(None)
        with pytest.raises(DataError, match=r"no (folder|image|intact copy)"):
            read(tmp_path)

    def test_too_few_images_for_a_split(self, tmp_path):
        write_images(tmp_path / "x", 3)
        with pytest.raises(DataError, match=r"3 images below .* too few"):
            image_folder(tmp_path / "x")


class TestCelebA:
    def test_the_official_partition_cropped_to_140_and_resized(self, tmp_path, monkeypatch):
        splits = write_celeba(tmp_path, monkeypatch)
        for index, part in enumerate(celeba(tmp_path)):
            expected = torch.tensor([10.0 * i for i, split in enumerate(splits) if split == index])
            assert part.images.shape == (len(expected), 3, 64, 64)
            inside = part.images[..., 2:-2, 2:-2].float()
            assert (inside.mean((1, 2, 3)) - expected).abs().max() < 2, "the frame outside of the crop is red"

    def test_a_changed_list_is_refused(self, tmp_path, monkeypatch):
        write_celeba(tmp_path, monkeypatch)
        path = tmp_path / "celeba" / "list_eval_partition.txt"
        path.write_text(path.read_text().replace(" 2", " 0"))
        with pytest.raises(DataError, match=r"no intact copy at .*celeba"):
            celeba(tmp_path)

    def test_a_missing_list_is_refused(self, tmp_path, monkeypatch):
        write_celeba(tmp_path, monkeypatch, without="identity_CelebA.txt")
        with pytest.raises(DataError, match=r"identity_CelebA\.txt"):
            celeba(tmp_path)

    def test_a_missing_image_is_named(self, tmp_path, monkeypatch):
        write_celeba(tmp_path, monkeypatch)
        (tmp_path / "celeba" / "img_align_celeba" / "000002.jpg").unlink()
        with pytest.raises(DataError, match=r"000002\.jpg"):
            celeba(tmp_path)

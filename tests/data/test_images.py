"""Images in memory, their mirror images, and the photographs' patches."""

import numpy as np
import pytest
import torch

from sbbridge.data import DataError, ImageData, TensorData, as_floats, photos
from sbbridge.data.photos import BANDS, PATCH, PERIOD, STRIPES
from sbbridge.rng import Stream

LEFT_RIGHT = torch.tensor([[[[0, 255]]]], dtype=torch.uint8)
N = 40_000


def test_bytes_become_floats_from_minus_one_to_one():
    assert as_floats(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([-1, -0.6, 1])
    assert as_floats(torch.tensor([0.25], dtype=torch.float64)).dtype == torch.get_default_dtype()


def test_half_of_the_draws_are_mirrored_and_nothing_else_happens_to_them():
    """Counts within 5.5 standard errors: a false alarm below 1e-7."""
    x = ImageData(LEFT_RIGHT, flip=True).sample(N)
    mirrored = x[:, 0, 0, 0] == 1
    assert torch.equal(x[mirrored], torch.tensor([[[[1.0, -1.0]]]]).expand(int(mirrored.sum()), -1, -1, -1))
    assert torch.equal(x[~mirrored], torch.tensor([[[[-1.0, 1.0]]]]).expand(int((~mirrored).sum()), -1, -1, -1))
    assert abs(int(mirrored.sum()) - N / 2) < 5.5 * N**0.5 / 2


def test_mirroring_is_left_to_right_only():
    image = torch.arange(12, dtype=torch.uint8).reshape(1, 3, 2, 2)
    x = ImageData(image, flip=True).sample(50)
    expected = {tuple(as_floats(i).flatten().tolist()) for i in (image, image[..., [1, 0]])}
    assert {tuple(row.flatten().tolist()) for row in x} == expected


def test_a_row_is_mirrored_independently_of_which_image_it_is():
    """Four cells of 1/4 each, 5.5 standard errors."""
    images = torch.cat([LEFT_RIGHT, LEFT_RIGHT // 5])
    x = ImageData(images, flip=True).sample(N)
    cells = torch.bincount(2 * (x.amax((1, 2, 3)) == 1).long() + (x[:, 0, 0, 0] > -1).long(), minlength=4)
    assert ((cells - N / 4).abs() < 5.5 * (N * 3 / 16) ** 0.5).all()


def test_mirroring_is_addressed_by_row_and_changes_from_step_to_step():
    data, stream = ImageData(LEFT_RIGHT, flip=True), Stream(3, ("x",))
    whole = data.draw(1, range(600), stream)
    assert torch.equal(data.draw(1, range(250, 530), stream), whole[250:530])
    assert not torch.equal(data.draw(2, range(600), stream), whole)


def test_without_flips_images_are_drawn_as_they_are():
    assert (ImageData(LEFT_RIGHT).sample(100)[:, 0, 0] == torch.tensor([-1.0, 1.0])).all()


def test_every_image_is_drawn_equally_often():
    images = torch.arange(20, dtype=torch.uint8)[:, None, None, None]
    counts = torch.bincount(((ImageData(images).sample(N) + 1) * 127.5).round().long().flatten(), minlength=20)
    assert ((counts - N / 20).abs() < 5.5 * (N / 20 * 0.95) ** 0.5).all()


def test_a_memory_mapped_file_is_left_where_it_is(tmp_path):
    np.save(tmp_path / "x.npy", np.full((5, 1, 2, 2), 255, dtype=np.uint8))
    data = ImageData(torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c")), flip=True)
    assert data.images.dtype == torch.uint8
    assert (data.sample(7) == 1).all()


def test_float_images_draw_as_tensor_data_does():
    x = torch.rand(9, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ImageData(x).sample(30, seed=2), TensorData(x).sample(30, seed=2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 3, 2, 2, dtype=torch.uint8), "n >= 1"),
        (torch.zeros(3, 2, 2, dtype=torch.uint8), "channels, height, width"),
        (torch.zeros(3, 1, 2, 2, dtype=torch.int64), "uint8 .* or float"),
        (torch.full((3, 1, 2, 2), torch.nan), "first row 0"),
    ],
)
def test_unusable_images_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        ImageData(images)


class TestPhotos:
    def test_sizes_range_and_type(self):
        splits = photos()
        assert [len(part.images) for part in splits] == [12_000, 2_000, 4_000]
        for part in splits:
            assert part.images.shape[1:] == (3, PATCH, PATCH)
            assert part.images.min() >= -1
            assert part.images.max() <= 1
        assert splits.train.images.std() > 0.4

    def test_always_the_same(self):
        assert all(torch.equal(a.images, b.images) for a, b in zip(photos(), photos(), strict=True))

    def test_every_split_sees_every_cell(self):
        for part in photos():
            counts = torch.bincount(part.labels, minlength=2 * BANDS)
            assert len(counts) == 2 * BANDS
            assert counts.min() > 0.6 * len(part.labels) / len(counts)

    def test_stripes_are_60_20_20_and_share_no_column(self):
        widths = [last - first for first, last in STRIPES.values()]
        assert [width / PERIOD for width in widths] == [0.6, 0.2, 0.2]
        assert 640 % PERIOD == 0
        columns = [set(range(*stripe)) for stripe in STRIPES.values()]
        assert sum(map(len, columns)) == len(set.union(*columns)) == PERIOD

    def test_no_pixel_is_in_two_splits_and_labels_are_right(self, monkeypatch):
        """Photographs whose pixels spell their own place: red the photograph, green the column, blue the row."""
        import sklearn.datasets

        def coordinates(name):
            picture = np.zeros((427, 640, 3), dtype=np.uint8)
            picture[..., 0] = 255 * (name == "flower.jpg")
            picture[..., 1] = np.arange(640)[None] // 3
            picture[..., 2] = np.arange(427)[:, None] // 2
            return picture

        monkeypatch.setattr(sklearn.datasets, "load_sample_image", coordinates)
        for (first, last), part in zip(STRIPES.values(), photos(), strict=True):
            pixels = ((part.images + 1) * 127.5).round()
            columns, rows = pixels[:, 1], pixels[:, 2]
            wholly_inside = {x // 3 for x in range(640) if first <= x % PERIOD < last}
            assert set(columns.flatten().int().tolist()) == wholly_inside
            centre = 2 * rows[:, PATCH // 2, 0]  # to one pixel
            bands = [(centre + shift) * BANDS // 427 + BANDS * (pixels[:, 0, 0, 0] > 0) for shift in (0, 1)]
            assert ((part.labels == bands[0]) | (part.labels == bands[1])).all()
            left = columns[:, 0, 0]
            assert ((columns[:, 0, -1] - left - 5).abs() <= 1).all(), "a patch is 16 neighbouring columns"
            assert len({tuple(p.flatten().tolist()) for p in part.images[:500]}) > 100

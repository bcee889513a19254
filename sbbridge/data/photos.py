"""Patches of scikit-learn's two photographs: a colour data set that needs no download."""

import numpy as np
import torch

from sbbridge.data.images import ImageSplits, LabelledImages
from sbbridge.rng import Stream

PATCH = 16
PHOTOGRAPHS = ("china.jpg", "flower.jpg")
PERIOD = 160
STRIPES = {"train": (0, 96), "validation": (96, 128), "test": (128, 160)}
"""Columns of each split, within every period of 160: 60, 20 and 20 %.

Stripes, because three connected regions show different things: test against train is then at a Fréchet distance (657,
patches-CNN) that hides what a model adds; with stripes it is 79.
"""
SIZES = {"train": 12_000, "validation": 2_000, "test": 4_000}
BANDS = 12


def photos() -> ImageSplits:
    """12,000, 2,000 and 4,000 patches `[3, 16, 16]` in [−1, 1], always the same.

    A split's patches lie wholly inside its stripes of columns, so no pixel is in two splits; inside they may overlap.

    The class is the one of 24 cells that holds a patch's centre: 2 photographs × 12 horizontal bands. Bands cross all
    stripes, so a classifier that has seen only the training columns can be scored on the others.
    """
    from sklearn.datasets import load_sample_image

    pictures = torch.from_numpy(np.stack([load_sample_image(name) for name in PHOTOGRAPHS])).permute(0, 3, 1, 2)
    return ImageSplits(*(_patches(pictures, split) for split in STRIPES))


def _patches(pictures: torch.Tensor, split: str) -> LabelledImages:
    """Distinct places in the split's columns of pictures `[2, 3, height, width]`, by a fixed shuffle."""
    first, last = STRIPES[split]
    height, width = pictures.shape[2:]
    starts = torch.arange(width)
    lefts = starts[(starts % PERIOD >= first) & (starts % PERIOD <= last - PATCH)]
    rows, columns = height - PATCH + 1, len(lefts)
    places = Stream(0, ("photos", split)).permutation(0, len(pictures) * rows * columns)[: SIZES[split]]
    picture, top = places // (rows * columns), places // columns % rows
    left = lefts[places % columns]
    windows = pictures.unfold(2, PATCH, 1).unfold(3, PATCH, 1)
    images = windows[picture, :, top, left].float() / 127.5 - 1
    band = (top + PATCH // 2) * BANDS // height
    return LabelledImages(images, picture * BANDS + band)

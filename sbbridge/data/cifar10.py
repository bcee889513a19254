"""CIFAR-10 through torchvision, from where the user has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sbbridge.data.base import DataError
from sbbridge.data.images import ImageSplits, LabelledImages
from sbbridge.data.placing import Location, joined, placed


def cifar10(root: Location | None) -> ImageSplits:
    """45,000 training, 5,000 validation and 10,000 test images, uint8 `[3, 32, 32]`; never downloads.

    Raises:
        DataError: the batches are not below the root, or fail torchvision's checksums.
    """
    from torchvision.datasets import CIFAR10

    if root is None:
        raise DataError(
            "dataset cifar10 needs --data-root (or SB_DATA_ROOT): the folder that holds cifar-10-batches-py"
        )
    folder = placed(joined(root, CIFAR10.base_folder), _checksums)
    try:
        train, test = (CIFAR10(str(folder.parent), train=part, download=False) for part in (True, False))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"dataset cifar10: no intact copy at {folder} "
            f"(unpack cifar-10-python.tar.gz there): {str(error).splitlines()[0]}"
        ) from None
    images, labels = _tensors(train)
    held_out = torch.zeros(len(images), dtype=torch.bool)
    held_out[::10] = True
    return ImageSplits(
        LabelledImages(images[~held_out], labels[~held_out]),
        LabelledImages(images[held_out], labels[held_out]),
        LabelledImages(*_tensors(test)),
    )


def _checksums(folder: Path) -> Mapping[str, str]:
    """torchvision's."""
    from torchvision.datasets import CIFAR10

    return dict(CIFAR10.train_list + CIFAR10.test_list) | {CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}


def _tensors(part: Any) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(np.asarray(part.data)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor(part.targets)

"""Features for Fréchet distances through clean-fid's hooks: a small CNN for digits; Inception from its weights."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import filelock
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from sbbridge.config import digest
from sbbridge.data import LabelledImages, digits
from sbbridge.rng import Stream, isolated

Features: TypeAlias = Callable[[Tensor], npt.NDArray[np.float64]]
"""Images `[n, channels, height, width]` in [−1, 1] -> features `[n, d]`."""
InceptionMode: TypeAlias = Literal["legacy_tensorflow", "clean"]

INCEPTION_FILE = "inception-2015-12-05.pt"
_CNN: dict[str, Any] = {
    "kind": "digits-CNN",
    "version": 1,
    "channels": [32, 64],
    "features": 64,
    "epochs": 40,
    "seed": 0,
}


class MissingWeights(Exception):
    """Weights that the user has to bring; the message names the file and where it goes."""


class DigitsCNN(nn.Module):
    """Classifies 8 x 8 digits in [0, 255]; its features are the 64 values before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(64 * 4 * 4, 64), nn.ReLU(),
        )  # fmt: skip
        self.last = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[n, 64]` of images in [0, 255], as clean-fid's hooks want them."""
        features: Tensor = self.body(images.float() / 127.5 - 1)
        return features


def to_bytes_range(images: Tensor) -> Tensor:
    """[−1, 1] -> 0 … 255, rounded and clipped, as a PNG file would hold it."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def digits_features(device: str = "cpu") -> Features:
    """The digits CNN, trained on the 898 training images at first use and cached in the user's cache folder."""
    model = DigitsCNN()
    path = cache_folder() / f"digits-cnn-{digest(_CNN)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        if not path.exists():
            model = train_digits_cnn(digits().train)
            temporary = path.with_suffix(".tmp")
            safetensors.torch.save_file(model.state_dict(), str(temporary))
            temporary.replace(path)
    model.load_state_dict(safetensors.torch.load_file(str(path)))
    return _through_hooks(model.eval().to(device), device)


def train_digits_cnn(train: LabelledImages) -> DigitsCNN:
    """40 epochs of Adam; seconds on one core, always the same weights on one machine."""
    with isolated(_CNN["seed"]):
        model = DigitsCNN()
    images, stream = to_bytes_range(train.images), Stream(0, ("digits-CNN",))
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(_CNN["epochs"]):
        for chosen in stream.permutation(epoch, len(images)).split(64):
            loss = nn.functional.cross_entropy(model.last(model(images[chosen])), train.labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model


def inception_features(folder: Path, mode: InceptionMode = "legacy_tensorflow", device: str = "cpu") -> Features:
    """Inception's 2,048 features through clean-fid, from weights that the user has.

    Raises:
        MissingWeights: the weights are not in the folder.
    """
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    if not (folder / INCEPTION_FILE).is_file():
        raise MissingWeights(f"Inception FID needs {INCEPTION_FILE} in {folder} (it is never downloaded)")
    model = InceptionV3W(str(folder), download=False, resize_inside=mode == "legacy_tensorflow").eval().to(device)
    return _through_hooks(model, device, build_resizer(mode))


def cache_folder() -> Path:
    """$SB_CACHE, or sbbridge below the user's cache folder."""
    root = os.environ.get("SB_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sbbridge"


def _through_hooks(model: nn.Module, device: str, resize: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
                   | None = None) -> Features:  # fmt: skip
    from cleanfid.fid import get_batch_features

    def features(images: Tensor) -> npt.NDArray[np.float64]:
        parts = []
        for batch in to_bytes_range(images).cpu().split(256):
            if resize is not None:
                batch = batch.expand(-1, 3, -1, -1)  # Inception sees colour
                resized = [resize(image.permute(1, 2, 0).numpy()) for image in batch]
                batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
            parts.append(get_batch_features(batch, model, device))
        return np.concatenate(parts).astype(np.float64)

    return features

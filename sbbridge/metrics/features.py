"""Features through clean-fid's hooks: a small CNN of the data set's own classes, or Inception from its weights."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, final

import filelock
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from sbbridge.arguments import finite_rows
from sbbridge.config import digest
from sbbridge.data import DataError, ImageSplits, LabelledImages, digits, photos
from sbbridge.data.cache import cache_folder
from sbbridge.data.placing import Location, is_uri, joined, placed, shown, there
from sbbridge.data.weights import as_weights, read_safetensors
from sbbridge.rng import Stream, isolated

Features: TypeAlias = Callable[[Tensor], npt.NDArray[np.float64]]
"""Images `[n, channels, height, width]`, float in [−1, 1] or uint8 in 0 … 255 -> features `[n, d]`.

The features of an image that is not finite are NaN.
"""
InceptionMode: TypeAlias = Literal["legacy_tensorflow", "clean"]

INCEPTION_FILE = "inception-2015-12-05.pt"


@final
@dataclass(frozen=True)
class FeatureNetwork:
    """A small CNN that classifies a data set's own images; all that its weights depend on.

    Attributes:
        kind: its name in tables.
        image_channels, size, classes: of the data set; images are square.
        channels: of its convolutions; all but the first halve the image.
        features: values before the last layer.
        epochs, batch_size, learning_rate, seed: of its training by Adam.
        version: counts changes that the other fields do not show.
    """

    kind: str
    image_channels: int
    size: int
    classes: int
    channels: tuple[int, ...]
    features: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    version: int = 1


DIGITS_CNN = FeatureNetwork("digits-CNN", 1, 8, 10, (32, 64), 64, epochs=40, batch_size=64, learning_rate=2e-3)
PATCHES_CNN = FeatureNetwork(
    "patches-CNN", 3, 16, 24, (32, 64, 64), 64, epochs=6, batch_size=128, learning_rate=2e-3, version=2
)


class MissingWeights(Exception):
    """Weights that the user has to bring; the message names the file and where it goes."""


class SmallCNN(nn.Module):
    """Classifies images in [0, 255]; its features are the values before the last layer."""

    def __init__(self, spec: FeatureNetwork) -> None:
        super().__init__()
        widths = (spec.image_channels, *spec.channels)
        layers: list[nn.Module] = []
        for i, (width, next_width) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(width, next_width, 3, stride=1 if i == 0 else 2, padding=1), nn.ReLU()]
        flat = widths[-1] * (spec.size // 2 ** (len(spec.channels) - 1)) ** 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, spec.features), nn.ReLU())
        self.last = nn.Linear(spec.features, spec.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[n, features]` of images in [0, 255], as clean-fid's hooks want them."""
        features: Tensor = self.body(images.float() / 127.5 - 1)
        return features


@final
class ClassifierFeatures:
    """Features of a trained `SmallCNN`, and the classes that it sees in them.

    Attributes:
        classes: their number.
    """

    def __init__(self, model: SmallCNN, device: str = "cpu") -> None:
        self.classes = model.last.out_features
        self._features = _through_hooks(model.eval().to(device), device)
        self._last = model.last

    def __call__(self, images: Tensor) -> npt.NDArray[np.float64]:
        """Features `[n, features]` of images `[n, channels, size, size]` in [−1, 1]."""
        return self._features(images)

    @torch.no_grad()
    def logits(self, features: npt.NDArray[np.float64] | Tensor) -> Tensor:
        """Logits `[n, classes]` of features `[n, features]`."""
        return self._last(torch.as_tensor(features).to(self._last.weight)).cpu()

    def classify(self, features: npt.NDArray[np.float64] | Tensor) -> Tensor:
        """The most probable class of each row of features, `[n]`; −1 where they are not finite."""
        found = self.logits(features).argmax(1)
        return torch.where(finite_rows(torch.as_tensor(features)).cpu(), found, -1)


def to_bytes_range(images: Tensor) -> Tensor:
    """[−1, 1] -> 0 … 255, rounded and clipped, as a PNG file would hold it; uint8 images are that already.

    Raises:
        ValueError: an image holds NaN or infinity, which bytes cannot say.
    """
    if images.dtype == torch.uint8:
        return images
    bad = int((~finite_rows(images)).sum())
    if bad:
        raise ValueError(f"{bad} of {len(images)} images hold NaN or infinity, which bytes cannot say")
    return to_bytes_where_finite(images)[0]


def to_bytes_where_finite(images: Tensor) -> tuple[Tensor, Tensor]:
    """The same with something else in the place of images that are not finite, and which ones are, `[n]`."""
    finite = finite_rows(images)
    if images.dtype == torch.uint8:
        return images, finite
    kept = images.float().nan_to_num()  # half precision has too few digits for what follows
    return ((kept + 1) * 127.5).round().clamp(0, 255).to(torch.uint8), finite


def digits_features(device: str = "cpu") -> ClassifierFeatures:
    """The digits CNN, trained on the 898 training images at first use (5 s) and cached in the user's cache folder."""
    return _trained_or_loaded(DIGITS_CNN, digits, device)


def patches_features(device: str = "cpu") -> ClassifierFeatures:
    """The patches CNN, which tells the photographs' 24 cells apart: trained on the training regions, cached."""
    return _trained_or_loaded(PATCHES_CNN, photos, device)


def train_feature_network(spec: FeatureNetwork, train: LabelledImages) -> SmallCNN:
    """Always the same weights on one machine."""
    with isolated(spec.seed):
        model = SmallCNN(spec)
    images, stream = to_bytes_range(train.images), Stream(spec.seed, (spec.kind,))
    optimiser = torch.optim.Adam(model.parameters(), lr=spec.learning_rate)
    for epoch in range(spec.epochs):
        for chosen in stream.permutation(epoch, len(images)).split(spec.batch_size):
            loss = nn.functional.cross_entropy(model.last(model(images[chosen])), train.labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model


def inception_features(folder: Location, mode: InceptionMode = "legacy_tensorflow",
                       device: str = "cpu") -> Features:  # fmt: skip
    """Inception's 2,048 features through clean-fid, from weights that the user has, in a folder or below a URI.

    Raises:
        MissingWeights: the weights are not in the folder, or torn.
        DataError: they are not below the URI, cannot be copied, or hold NaN.
    """
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    if not is_uri(folder):
        require_inception(folder)
    weights = placed(joined(folder, INCEPTION_FILE))
    resize_inside = mode == "legacy_tensorflow"
    try:
        model = InceptionV3W(str(weights.parent), download=False, resize_inside=resize_inside).eval().to(device)
    except Exception as error:  # noqa: BLE001  torch and zip files have their own
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingWeights(f"{shown(folder)}: {INCEPTION_FILE} is torn or no TorchScript file ({problem})") from None
    as_weights({name: x for name, x in model.state_dict().items() if x.is_floating_point()}, INCEPTION_FILE)
    return _through_hooks(model, device, build_resizer(mode))


def require_inception(folder: Location) -> None:
    """Looks for Inception's weights; loads and copies nothing.

    Raises:
        MissingWeights: they are not there.
        DataError: a URI cannot be reached.
    """
    if not there(joined(folder, INCEPTION_FILE)):
        raise MissingWeights(
            f"Inception FID needs {INCEPTION_FILE} in {shown(folder)}, the folder SB_INCEPTION (it is never downloaded)"
        )


def _trained_or_loaded(spec: FeatureNetwork, splits: Callable[[], ImageSplits], device: str) -> ClassifierFeatures:
    """The network of the cache folder, put there first if need be, by one process of many."""
    model = SmallCNN(spec)
    path = cache_folder() / f"{spec.kind.lower()}-{digest(spec)}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{path}.lock"):
        try:
            model.load_state_dict(as_weights(read_safetensors(path), path.name))
        except (DataError, RuntimeError):  # it is not there yet, torn, or not this network's
            model = train_feature_network(spec, splits().train)
            temporary = path.with_suffix(".tmp")
            safetensors.torch.save_file(model.state_dict(), str(temporary))
            temporary.replace(path)
    return ClassifierFeatures(model, device)


def _through_hooks(model: nn.Module, device: str, resize: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
                   | None = None) -> Features:  # fmt: skip
    from cleanfid.fid import get_batch_features

    def features(images: Tensor) -> npt.NDArray[np.float64]:
        parts = []
        whole, finite = to_bytes_where_finite(images)
        for batch in whole.cpu().split(256):
            if resize is not None:
                batch = batch.expand(-1, 3, -1, -1)  # Inception sees colour
                resized = [resize(image.permute(1, 2, 0).numpy()) for image in batch]
                batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()
            parts.append(get_batch_features(batch, model, device))
        found = np.concatenate(parts).astype(np.float64)
        found[~finite.cpu().numpy()] = np.nan
        return found

    return features

"""Latents, judged as the images that they decode to."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sbbridge.arguments import finite_rows
from sbbridge.data import DataError, ImageSplits, LabelledImages, StandardNormal
from sbbridge.data.autoencoder import Autoencoder
from sbbridge.data.latents import LatentSplits, ffhq_latent
from sbbridge.data.placing import Location, placed, shown
from sbbridge.metrics.features import Features, to_bytes_where_finite
from sbbridge.problems import BridgeProblem
from sbbridge.study.tasks.base import SHOWN
from sbbridge.study.tasks.images import ImageTask, image_features

DECODED_AT_ONCE = 16
JUDGED_AT_ONCE = 256


class LatentTask(ImageTask):
    """Latents judged by Fréchet distances between the images that they decode to and the images of the data set."""

    def __init__(
        self, problem: BridgeProblem, latents: LatentSplits, autoencoder: Autoencoder, features: Features, name: str,
        to_training: bool = False,
    ) -> None:
        self._autoencoder, self._features = autoencoder, features
        validation, test = (latents.reference(split) for split in ("validation", "test"))
        floor = max(len(validation), len(test))
        train = latents.reference("train", at_most=None if to_training else floor)
        parts = (LabelledImages(images, torch.zeros(len(images), dtype=torch.int64))
                 for images in (train, validation, test))  # fmt: skip
        super().__init__(problem, ImageSplits(*parts), self.features, name, to_training)

    def features(self, x: Tensor) -> npt.NDArray[np.float64]:
        """Features of images (uint8) as they are, of latents (float) by way of their images."""
        if x.dtype == torch.uint8:
            return self._features(x)
        found = []
        for part in x.split(JUDGED_AT_ONCE):
            images, finite = self._decode(part)
            found.append(self._features(images))
            found[-1][~finite.numpy()] = np.nan  # an autoencoder may overflow where latents do not
        return np.concatenate(found)

    def decode(self, latents: Tensor) -> Tensor:
        """The images of latents, uint8; black where they are not finite."""
        return self._decode(latents)[0]

    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and which of them are finite, `[n]`."""
        parts = [to_bytes_where_finite(self._autoencoder.decode(part)) for part in latents.split(DECODED_AT_ONCE)]
        images, finite = zip(*parts, strict=True)
        return torch.cat(images).cpu(), torch.cat(finite).cpu() & finite_rows(latents).cpu()

    def picture(self, samples: Tensor) -> Tensor:
        return super().picture(samples if samples.dtype == torch.uint8 else self.decode(samples[:SHOWN]))


def open_latents(config: Any, root: Location | None, prior_scale: float, device: str) -> LatentTask:
    """The task that the latents below a data root pose.

    Raises:
        DataError: latents, the images they were made of or the autoencoder that made them are missing.
    """
    latents = ffhq_latent(root)
    folder = autoencoder_location()
    autoencoder = Autoencoder(placed(folder), device)
    if autoencoder.sha256 != latents.autoencoder:
        raise DataError(f"SB_AUTOENCODER {shown(folder)} is not the autoencoder that made the latents")
    if autoencoder.normalisation != latents.normalisation:  # encoded before it was written down
        raise DataError(f"the latents' manifest says {latents.normalisation}, SB_AUTOENCODER {shown(folder)} has "
                        f"{autoencoder.normalisation}: encode anew")  # fmt: skip
    data = latents.train
    problem = BridgeProblem(data, StandardNormal(data.shape, prior_scale), config.reference)
    name = config.evaluation.features
    features = image_features(name, device)
    return LatentTask(problem, latents, autoencoder, features, name, config.evaluation.to_training)


def autoencoder_location() -> str:
    """Where the user says that the autoencoder is.

    Raises:
        DataError: they do not.
    """
    folder = os.environ.get("SB_AUTOENCODER")
    if folder is None:
        raise DataError("dataset ffhq_latent needs SB_AUTOENCODER: the folder of the autoencoder that made the latents")
    return folder

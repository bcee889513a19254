"""The autoencoder between images and latents: diffusers' AutoencoderKL, from the user's folder."""

from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sbbridge.data.base import DataError
from sbbridge.data.latents import LatentShard
from sbbridge.data.normalisation import Normalisation
from sbbridge.data.placing import Location, shown, there
from sbbridge.data.weights import CONFIG, WEIGHTS, load_model


@final
class Autoencoder:
    """A pretrained AutoencoderKL, float32, in evaluation mode.

    Attributes:
        normalisation: between its latents and those that models see, about mean 0 and variance 1.
        scale: the normalisation's factor.
        factor: pixels of an image's side to one of its latent's.
        sha256: of the configuration and the weights.

    Args:
        folder: as diffusers writes it, whole or in shards; or a pipeline's, whose `vae/` is taken.
        device: where it runs.

    Raises:
        DataError: the folder holds no such autoencoder, not exactly its weights, or no usable normalisation.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        if (folder / "model_index.json").is_file() and not (folder / CONFIG).exists():
            folder = folder / "vae"
        if not (folder / CONFIG).is_file():
            raise _no_autoencoder(folder)
        try:
            model, found = load_model(folder, "AutoencoderKL")
            channels = int(model.config.latent_channels)
            self.normalisation = Normalisation.read(model.config, CONFIG, channels)
            self.sha256 = found.sha256_with_config
        except DataError as problem:
            raise DataError(f"no usable autoencoder in {folder}: {problem}") from None
        self._model, self._device = model.to(device), device
        self.scale = self.normalisation.scale
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> LatentShard:
        """Posterior means and standard deviations, float16 on the CPU, of images in [−1, 1].

        Raises:
            DataError: a latent is NaN or beyond float16.
        """
        posterior = self._model.encode(images.to(self._device, torch.float32)).latent_dist
        latents = LatentShard(*(part.half().contiguous().cpu() for part in (posterior.mean, posterior.std)))
        if not all(bool(torch.isfinite(part).all()) for part in latents):
            raise DataError("the autoencoder makes latents that are NaN or beyond float16's 65504 of them")
        return latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images, about [−1, 1], of normalised latents."""
        z = self.normalisation.undone(latents.to(self._device, torch.float32))
        images: Tensor = self._model.decode(z).sample
        return images


def require_autoencoder(folder: Location) -> None:
    """Looks for an autoencoder's folder or URI; loads and copies nothing.

    Raises:
        DataError: it is not there, or cannot be reached.
    """
    if not there(folder):
        raise _no_autoencoder(folder)


def _no_autoencoder(folder: Location) -> DataError:
    return DataError(f"no autoencoder in {shown(folder)}: expected {CONFIG} and {WEIGHTS}")

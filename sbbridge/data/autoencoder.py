"""The autoencoder between images and latents: diffusers' AutoencoderKL, from the user's folder."""

import hashlib
from importlib import import_module
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from sbbridge.data.base import DataError
from sbbridge.data.latents import LatentShard, file_sha256
from sbbridge.data.placing import Location, shown, there


@final
class Autoencoder:
    """A pretrained AutoencoderKL, float32, in evaluation mode.

    Attributes:
        scale: latents are multiplied by this so that their variance is about 1.
        factor: pixels of an image's side to one of its latent's.
        sha256: of the configuration and the weights.

    Args:
        folder: holds config.json and diffusion_pytorch_model.safetensors.
        device: where it runs.

    Raises:
        DataError: the folder holds no such autoencoder, or one whose latents are shifted.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
        if len(files) < 2 or not files[0].is_file():
            raise _no_autoencoder(folder)
        kind = import_module("diffusers").AutoencoderKL
        try:
            model = kind.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
            )
        except Exception as error:  # noqa: BLE001  diffusers, safetensors and JSON have their own
            raise DataError(f"no usable autoencoder in {folder}: {' '.join(str(error).split())}") from None
        if model.config.get("shift_factor"):
            raise DataError(f"the autoencoder in {folder} has a shift_factor, which is not supported")
        self._model, self._device = model.eval().requires_grad_(False).to(device), device
        self.scale = float(model.config.scaling_factor)
        self.factor = 2 ** (len(model.config.block_out_channels) - 1)
        self.sha256 = hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()

    @torch.no_grad()
    def encode(self, images: Tensor) -> LatentShard:
        """Posterior means and standard deviations, float16 on the CPU, of images in [−1, 1]."""
        posterior = self._model.encode(images.to(self._device, torch.float32)).latent_dist
        return LatentShard(*(part.half().contiguous().cpu() for part in (posterior.mean, posterior.std)))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images, about [−1, 1], of scaled latents."""
        images: Tensor = self._model.decode(latents.to(self._device, torch.float32) / self.scale).sample
        return images


def require_autoencoder(folder: Location) -> None:
    """Looks for an autoencoder's folder or URI; loads and copies nothing.

    Raises:
        DataError: it is not there, or cannot be reached.
    """
    if not there(folder):
        raise _no_autoencoder(folder)


def _no_autoencoder(folder: Location) -> DataError:
    return DataError(
        f"no autoencoder in {shown(folder)}: expected config.json and diffusion_pytorch_model.safetensors"
    )

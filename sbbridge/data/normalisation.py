"""How an autoencoder's latents are brought to about mean 0 and variance 1, as diffusers' pipelines do it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from torch import Tensor

from sbbridge.data.base import DataError


@final
@dataclass(frozen=True)
class Normalisation:
    """z -> (z − shift) · scale, or (z − mean) · scale / std with one mean and std a channel.

    Attributes:
        scale: the configuration's `scaling_factor`.
        shift: its `shift_factor`, 0 where there is none.
        mean, std: its `latents_mean` and `latents_std`, empty where there are none.
    """

    scale: float
    shift: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def read(cls, settings: Mapping[str, Any], where: str, channels: int | None = None) -> Self:
        """From an autoencoder's configuration, or a manifest.

        Raises:
            DataError: a value is not a usable number, or they contradict each other; the message names it.
        """
        scale = _number(settings, "scaling_factor", where)
        if scale <= 0:
            raise DataError(f"{where}: scaling_factor must be > 0, got {scale}")
        shift = 0.0 if settings.get("shift_factor") is None else _number(settings, "shift_factor", where)
        mean, std = (_numbers(settings, name, where, channels) for name in ("latents_mean", "latents_std"))
        if len(mean) != len(std):
            raise DataError(f"{where}: latents_mean and latents_std must both be null or have one number a channel")
        if any(value <= 0 for value in std):
            raise DataError(f"{where}: latents_std must be > 0, got {list(std)}")
        if mean and shift:
            raise DataError(f"{where} has a shift_factor and a latents_mean: which of them is meant is not known")
        return cls(scale, shift, mean, std)

    def written(self) -> dict[str, Any]:
        """What `read` reads; only what there is."""
        shift = {"shift_factor": self.shift} if self.shift else {}
        channels = {"latents_mean": list(self.mean), "latents_std": list(self.std)} if self.mean else {}
        return {"scaling_factor": self.scale, **shift, **channels}

    def applied(self, z: Tensor) -> Tensor:
        """Latents `[n, channels, height, width]` as the autoencoder makes them -> normalised."""
        if self.mean:
            mean, std = self._channels(z)
            return (z - mean) * self.scale / std
        return self.scale * (z - self.shift if self.shift else z)

    def undone(self, z: Tensor) -> Tensor:
        """The inverse."""
        if self.mean:
            mean, std = self._channels(z)
            return z * std / self.scale + mean
        return z / self.scale + self.shift if self.shift else z / self.scale

    def _channels(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, dtype=z.dtype, device=z.device) for values in (self.mean, self.std))
        return mean[:, None, None], std[:, None, None]


def _number(settings: Mapping[str, Any], name: str, where: str) -> float:
    value = settings.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"{where}: {name} must be a finite number, got {'null' if value is None else value}")
    return float(value)


def _numbers(settings: Mapping[str, Any], name: str, where: str, channels: int | None) -> tuple[float, ...]:
    values = settings.get(name)
    if values is None:
        return ()
    if not isinstance(values, (list, tuple)) or len(values) != (channels or len(values)) or not len(values):
        raise DataError(f"{where}: {name} must be null or {channels or 'some'} numbers, got {values}")
    return tuple(_number({f"{name}[{i}]": value}, f"{name}[{i}]", where) for i, value in enumerate(values))

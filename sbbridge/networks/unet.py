"""A U-Net for images: diffusers' UNet2DModel."""

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, final

import torch
from torch import nn

from sbbridge.config import Forbid, require, require_finite
from sbbridge.rng import isolated
from sbbridge.types import State, Time


@final
@dataclass(frozen=True)
class UNet(Forbid):
    """Configuration of a U-Net; the defaults are the ASBM paper's control for CIFAR-10 (35.75 M weights).

    Attributes:
        channels: of each resolution, falling by 2 from one to the next.
        layers_per_block: residual blocks of a resolution; 4 is the paper's backward network (58.69 M weights).
        attention: which resolutions attend, by index into channels; the middle always does.
        head_channels: of an attention head.
        dropout: in training.
        time_scale: the sinusoidal embedding sees time_scale · t.
    """

    channels: tuple[int, ...] = (128, 256, 256, 256)
    layers_per_block: int = 2
    attention: tuple[int, ...] = (1,)
    head_channels: int = 64
    dropout: float = 0.1
    time_scale: float = 1000.0
    kind: Literal["unet"] = field(default="unet", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(len(self.channels) > 0, "channels must not be empty")
        require(self.layers_per_block >= 1, f"layers_per_block must be >= 1, got {self.layers_per_block}")
        require(0 <= self.dropout < 1, f"dropout must be in [0, 1), got {self.dropout}")
        known = range(len(self.channels))
        require(
            all(i in known for i in self.attention), f"attention must name indices of channels, got {self.attention}"
        )

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Which states it is for.

        Raises:
            ValueError: these are not images `[channels, height, width]` that the resolutions divide.
        """
        factor = 2 ** (len(self.channels) - 1)
        if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
            raise ValueError(
                f"a U-Net of {len(self.channels)} resolutions needs images divisible by {factor}, got {shape}"
            )

    def build(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """A network for images `[channels, height, width]`; its weights depend on the seed alone.

        Raises:
            ValueError: the states are not images that the resolutions divide.
        """
        self.check_shape(shape)
        with isolated(seed):
            return _UNetField(self, shape)


UNETS = {
    "cifar10_forward": UNet(), "cifar10_backward": UNet(layers_per_block=4),
    "ffhq_latent_forward": UNet(), "ffhq_latent_backward": UNet(layers_per_block=4),
}  # fmt: skip
"""The ASBM paper's sizes by name; on 3 x 32 x 32 forward has 35.75 M weights, backward 58.69 M."""


class _UNetField(nn.Module):
    """(t, x) -> an image of x's shape; zero everywhere when new."""

    def __init__(self, config: UNet, shape: tuple[int, ...]) -> None:
        super().__init__()
        diffusers: Any = import_module("diffusers")  # seconds, which only U-Nets pay
        self.time_scale = config.time_scale
        attends = ["Attn" if i in config.attention else "" for i in range(len(config.channels))]
        self.unet = diffusers.UNet2DModel(
            sample_size=shape[1],
            in_channels=shape[0],
            out_channels=shape[0],
            layers_per_block=config.layers_per_block,
            block_out_channels=config.channels,
            down_block_types=tuple(f"{attention}DownBlock2D" for attention in attends),
            up_block_types=tuple(f"{attention}UpBlock2D" for attention in reversed(attends)),
            attention_head_dim=config.head_channels,
            dropout=config.dropout,
            norm_num_groups=min(32, *config.channels),
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, t: Time, x: State) -> State:
        timestep = self.time_scale * t.to(x).reshape(-1)
        prediction: torch.Tensor = self.unet(x, timestep).sample
        return prediction

"""The U-Net of Ho et al. 2020 under the names of its published PyTorch checkpoints, read from such a file alone."""

import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbbridge.data import DataError
from sbbridge.data.weights import as_weights, read_safetensors

_GROUPS = 32
_CONTAINERS = ("ema", "state_dict", "model")  # where several are there, the averaged weights are the published ones


@final
@dataclass(frozen=True)
class DDPMUNetSizes:
    """What a U-Net's weights do not share with every other one's.

    CIFAR-10's: 128 channels times 1, 2, 2, 2 (32 to 4 px), 2 blocks a level, attention at 16 px; 35.7 M weights.

    Attributes:
        in_channels, out_channels: of its images and of its values.
        first: channels after the first convolution; a quarter of the time embedding's.
        widths: channels of each resolution, each half as fine as the one before.
        num_blocks: residual blocks of a level on the way down; one more on the way up.
        attention: levels that attend; the middle always does.
    """

    in_channels: int
    out_channels: int
    first: int
    widths: tuple[int, ...]
    num_blocks: int
    attention: frozenset[int]


@final
class DDPMUNet(nn.Module):
    """(x, index) -> an image: the network is told the raw index of the noise schedule, `[n]`."""

    def __init__(self, sizes: DDPMUNetSizes) -> None:
        super().__init__()
        self.sizes = sizes
        levels, last = range(len(sizes.widths)), len(sizes.widths) - 1
        before = (sizes.first, *sizes.widths[:-1])
        self.temb = _Embedding(sizes.first)
        self.conv_in = _conv(sizes.in_channels, sizes.first)
        self.down = nn.ModuleList(_Down(before[i], sizes, i) for i in levels)
        self.mid = _Middle(sizes.widths[-1], 4 * sizes.first)
        self.up = nn.ModuleList(_Up(before[i], sizes.widths[min(i + 1, last)], sizes, i) for i in levels)
        self.norm_out = _norm(sizes.widths[0])
        self.conv_out = _conv(sizes.widths[0], sizes.out_channels)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        temb = self.temb(index)
        skips = [self.conv_in(x)]
        for down in self.down:
            skips += down(skips[-1], temb)
        h = self.mid(skips[-1], temb)
        for up in reversed(self.up):
            h = up(h, skips, temb)
        value: Tensor = self.conv_out(functional.silu(self.norm_out(h)))
        return value


def read_ddpm_unet(file: Path) -> DDPMUNet:
    """The network of a checkpoint: a state dict, alone or in a list, or under `ema`, `state_dict` or `model`.

    Names may begin with `module.`; `[weights, optimizer, …, ema]` is read as its ema. Nothing in the file is executed.

    Raises:
        DataError: the file is torn, needs code to be loaded, or does not hold exactly such a network.
    """
    state = _state_dict(_content(file), file)
    sizes = _sizes(state, file)
    with torch.device("meta"):
        network = DDPMUNet(sizes)
    expected = network.state_dict()
    for words, names in (("lacks", expected.keys() - state.keys()), ("has unknown", state.keys() - expected.keys())):
        if names:
            raise DataError(f"{file.name} {words} {_some(names)}: no DDPM U-Net of {sizes}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            found, needed = list(state[name].shape), list(tensor.shape)
            raise DataError(f"{file.name}: {name} is {found}, expected {needed} in a DDPM U-Net of {sizes}")
    network.load_state_dict(as_weights(state, file.name), assign=True)
    return network


def _content(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            return read_safetensors(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except DataError:
        raise
    except pickle.UnpicklingError as error:
        # torch's own message advises to execute the file all the same
        code = re.search(r"GLOBAL (\S+)", str(error))
        problem = f"needs code to be loaded ({code[1]}), which is not executed" if code else "is torn or no checkpoint"
        raise DataError(f"{file.name} {problem}: expected a state dict of tensors alone") from None
    except Exception as error:  # noqa: BLE001  torch, zip files and safetensors have their own
        shown = " ".join(str(error).split())
        raise DataError(f"{file.name} is torn or no checkpoint: {type(error).__name__} {shown}") from None


def _state_dict(content: Any, file: Path) -> dict[str, Tensor]:
    found = content
    if isinstance(content, (list, tuple)):
        # as training leaves it: weights, optimizer, epoch, step, and the averaged weights at the end, if there are any
        found = next((part for part in reversed(content) if _is_state_dict(part)), None)
    elif isinstance(content, Mapping) and not _is_state_dict(content):
        found = next((content[key] for key in _CONTAINERS if _is_state_dict(content.get(key))), None)
    if not _is_state_dict(found):
        kind = type(content).__name__
        inside = f" of {_some(content)}" if isinstance(content, Mapping) else ""
        if isinstance(content, (list, tuple)):
            inside = f" of {', '.join(type(part).__name__ for part in content)}"
        raise DataError(f"{file.name} holds no state dict but a {kind}{inside} (read: a state dict, a list with one, "
                        f"or a dict with one under {', '.join(_CONTAINERS)})")  # fmt: skip
    prefixed = all(name.startswith("module.") for name in found)
    return {name.removeprefix("module.") if prefixed else name: tensor for name, tensor in found.items()}


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _sizes(state: Mapping[str, Tensor], file: Path) -> DDPMUNetSizes:
    """Read off the shapes; what does not fit together is found when the names and shapes are compared."""

    def distinct(pattern: str) -> int:
        return len({found[1] for name in state if (found := re.match(pattern, name))})

    def shape(name: str) -> tuple[int, ...]:
        if name not in state or state[name].dim() != 4:
            raise DataError(f"{file.name} is no DDPM U-Net: it has no convolution {name}; it has {_some(state)}")
        return tuple(state[name].shape)

    levels = distinct(r"down\.(\d+)\.")
    first, in_channels = shape("conv_in.weight")[:2]
    sizes = DDPMUNetSizes(
        in_channels=in_channels,
        out_channels=shape("conv_out.weight")[0],
        first=first,
        widths=tuple(shape(f"down.{i}.block.0.conv1.weight")[0] for i in range(levels)),
        num_blocks=distinct(r"down\.0\.block\.(\d+)\."),
        attention=frozenset(i for i in range(levels) if f"down.{i}.attn.0.q.weight" in state),
    )
    if not levels:
        raise DataError(f"{file.name} is no DDPM U-Net: it has no levels down.0, down.1, …")
    if any(width == 0 or width % _GROUPS for width in (first, *sizes.widths)):
        raise DataError(f"{file.name} is no DDPM U-Net: {sizes} has channels that {_GROUPS} does not divide")
    return sizes


def _some(names: Any) -> str:
    shown = sorted(map(str, names))
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _conv(before: int, after: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, padding=size // 2)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, channels, eps=1e-6)


class _Embedding(nn.Module):
    """Sines, then cosines, of the index at `dim / 2` frequencies from 1 down to 1e-4."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.dense = nn.ModuleList([nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, 4 * dim)])

    def forward(self, index: Tensor) -> Tensor:
        half = self.dim // 2
        exponents = torch.arange(half, dtype=torch.float32, device=index.device) / (half - 1)
        angles = index.float()[:, None] * torch.exp(-math.log(1e4) * exponents)
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        value: Tensor = self.dense[1](functional.silu(self.dense[0](waves)))
        return value


class _ResnetBlock(nn.Module):
    def __init__(self, before: int, after: int, temb: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(before), _conv(before, after)
        self.temb_proj = nn.Linear(temb, after)
        self.norm2, self.conv2 = _norm(after), _conv(after, after)
        self.nin_shortcut = _conv(before, after, 1) if before != after else None

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.temb_proj(functional.silu(temb))[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        kept: Tensor = x if self.nin_shortcut is None else self.nin_shortcut(x)
        return kept + h


class _AttnBlock(nn.Module):
    """One head over all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v = (_conv(channels, channels, 1) for _ in range(3))
        self.proj_out = _conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.proj_out(mixed.unflatten(2, x.shape[2:]))


class _Resample(nn.Module):
    def __init__(self, channels: int, finer: bool) -> None:
        super().__init__()
        self.finer = finer
        self.conv = _conv(channels, channels) if finer else nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.finer:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        else:
            x = functional.pad(x, (0, 1, 0, 1))  # TensorFlow's SAME: nothing on the left and above
        value: Tensor = self.conv(x)
        return value


class _Down(nn.Module):
    """A level on the way down: every state it passes through."""

    def __init__(self, before: int, sizes: DDPMUNetSizes, level: int) -> None:
        super().__init__()
        width, n = sizes.widths[level], sizes.num_blocks
        inputs = [before, *[width] * (n - 1)]
        self.block = nn.ModuleList(_ResnetBlock(channels, width, 4 * sizes.first) for channels in inputs)
        self.attn = nn.ModuleList(_AttnBlock(width) for _ in range(n if level in sizes.attention else 0))
        self.downsample = _Resample(width, finer=False) if level < len(sizes.widths) - 1 else None

    def forward(self, h: Tensor, temb: Tensor) -> list[Tensor]:
        states = []
        for j, block in enumerate(self.block):
            h = block(h, temb)
            if self.attn:
                h = self.attn[j](h)
            states.append(h)
        return states if self.downsample is None else [*states, self.downsample(h)]


class _Middle(nn.Module):
    def __init__(self, channels: int, temb: int) -> None:
        super().__init__()
        self.block_1, self.block_2 = (_ResnetBlock(channels, channels, temb) for _ in range(2))
        self.attn_1 = _AttnBlock(channels)

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        value: Tensor = self.block_2(self.attn_1(self.block_1(h, temb)), temb)
        return value


class _Up(nn.Module):
    """A level on the way up: takes back what the way down passed through there."""

    def __init__(self, before: int, below: int, sizes: DDPMUNetSizes, level: int) -> None:
        super().__init__()
        width, n = sizes.widths[level], sizes.num_blocks
        inputs = [below, *[width] * n]
        skips = [*[width] * n, before]
        self.block = nn.ModuleList(
            _ResnetBlock(channels + skip, width, 4 * sizes.first) for channels, skip in zip(inputs, skips, strict=True)
        )
        self.attn = nn.ModuleList(_AttnBlock(width) for _ in range(n + 1 if level in sizes.attention else 0))
        self.upsample = _Resample(width, finer=True) if level else None

    def forward(self, h: Tensor, skips: list[Tensor], temb: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            h = block(torch.cat([h, skips.pop()], dim=1), temb)
            if self.attn:
                h = self.attn[j](h)
        return h if self.upsample is None else self.upsample(h)

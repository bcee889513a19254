"""How far two states are from each other as a denoiser's own network sees them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from sbbridge.objectives.base import mean_square
from sbbridge.path import Denoiser
from sbbridge.types import State, expand_like

FEATURE_LAYERS = (nn.Linear, nn.Conv2d)
SMALLEST_SHARE = 1e-9
"""Layers whose variance over images is less than this share of their mean square do not depend on them."""
AT_ONCE = 8
"""Images whose outputs of all layers are held while variances are measured."""


@final
class FeatureDistance:
    """d(x, y) = mean over layers l of |h_l(x) − h_l(y)|^2 / (d_l v_l), `[n]`.

    h_l(x) are the d_l outputs of the network's linear layer or convolution l at (t, a_t x), v_l their variance over
    images, in the mean over outputs. A layer that is called twice counts twice; one that does not vary, or whose first
    axis is not the batch (it embeds the time), does not count. A denoiser sees what matters to images without a
    classifier's help ("Diffusion model with perceptual loss", Lin and Yang 2024, arXiv 2401.00110), and is not the
    network that a metric looks with.

    Args:
        denoiser: a trained one, in evaluation mode, its weights without gradients.
        time: t in (0, 1); no noise is added.
        images: over which v_l is measured, `[m, *shape]`, two or more.
        autocast: the precision in which the network is called.

    Raises:
        ValueError: no layer varies over the images.
    """

    calls = 2
    """Network evaluations a row: one for x and one for y."""

    def __init__(self, denoiser: Denoiser, time: float, images: State,
                 autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:  # fmt: skip
        self._denoiser, self._autocast = denoiser, autocast
        self._time = torch.tensor([time], dtype=torch.float64, device=images.device)
        self._variances = self._measured(images)
        if not any(variance is not None for variance in self._variances):
            raise ValueError(f"no linear layer or convolution of the denoiser varies over images at t = {time:g}: "
                             "is it a network?")  # fmt: skip

    def __call__(self, x: State, y: State) -> Tensor:
        """d(x, y) of each row; y is a target and gets no gradient."""
        with torch.no_grad():
            wanted = self._outputs(y)
        distances = [
            mean_square(mine.to(x), other.to(x)) / variance
            for mine, other, variance in zip(self._outputs(x), wanted, self._variances, strict=True)
            if variance is not None
        ]
        return torch.stack(distances).mean(0)

    @torch.no_grad()
    def _measured(self, images: State) -> list[float | None]:
        """v_l of every layer, None where it does not count."""
        sums: list[Tensor | None] = []  # None: not of a batch
        squares: list[float] = []
        for part in images.split(AT_ONCE):
            outputs = self._outputs(part)
            if not sums:
                batched = [output.ndim > 1 and len(output) == len(part) for output in outputs]
                sums = [torch.zeros_like(output[0]).double() if whole else None
                        for output, whole in zip(outputs, batched, strict=True)]  # fmt: skip
                squares = [0.0] * len(sums)
            for index, output in enumerate(outputs):
                total = sums[index]
                if total is not None:
                    total += output.double().sum(0)
                    squares[index] += float(output.double().square().sum(0).mean())
        n, found = len(images), list[float | None]()
        for total, square in zip(sums, squares, strict=True):
            variance = 0.0 if total is None else (square - float(total.square().mean()) / n) / (n - 1)
            found.append(variance if variance > SMALLEST_SHARE * square / n else None)
        return found

    def _outputs(self, x: State) -> list[Tensor]:
        """Of every layer, `[n, …]` each, in the order of their calls."""
        outputs: list[Tensor] = []

        def keep(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(module, FEATURE_LAYERS):
                outputs.append(output)

        scaled = expand_like(self._denoiser.path.mean(self._time).to(x), x) * x
        # a field may hide its network in closures: a hook for all modules finds it
        hook = register_module_forward_hook(keep)
        try:
            with self._autocast():
                self._denoiser.field(self._time, scaled)
        finally:
            hook.remove()
        return outputs

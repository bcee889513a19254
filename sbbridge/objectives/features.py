"""How far two states are from each other as a denoiser's own network sees them."""

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from sbbridge.objectives.base import mean_square
from sbbridge.path import Denoiser
from sbbridge.types import State, expand_like

SEEN = (nn.Linear, nn.Conv2d)
SMALLEST_VARIANCE = 1e-12
"""Layers that vary less over images do not depend on them."""


@final
class FeatureDistance:
    """d(x, y) = mean over layers l of |h_l(x) − h_l(y)|^2 / (d_l v_l), `[n]`.

    h_l(x) are the d_l outputs of the network's linear layer or convolution l at (t, a_t x), v_l their variance over
    images, in the mean over outputs. A denoiser sees what matters to images without a classifier's help ("Diffusion
    model with perceptual loss", Lin and Yang 2024, arXiv 2401.00110), and is not the network that a metric looks with.

    Args:
        denoiser: a trained one.
        time: t in (0, 1]; no noise is added.
        images: over which v_l is measured, `[m, *shape]`.

    Raises:
        ValueError: the denoiser has no such layers.
    """

    calls = 2
    """Network evaluations a row: one for x and one for y."""

    def __init__(self, denoiser: Denoiser, time: float, images: State) -> None:
        self._denoiser = denoiser
        self._time = torch.tensor([time], dtype=torch.float64, device=images.device)
        with torch.no_grad():
            self._variances = [_variance(layer, len(images)) for layer in self._layers(images)]
        if not any(variance is not None for variance in self._variances):
            raise ValueError("the denoiser has no layers to look with: it is not a network")

    def __call__(self, x: State, y: State) -> Tensor:
        """d(x, y) of each row; y is a target and gets no gradient."""
        with torch.no_grad():
            wanted = self._layers(y)
        found = [
            mean_square(mine, other) / variance
            for mine, other, variance in zip(self._layers(x), wanted, self._variances, strict=True)
            if variance is not None
        ]
        return torch.stack(found).mean(0)

    def _layers(self, x: State) -> list[Tensor]:
        """What every layer says of these states, `[n, …]` each, in the order of their turns."""
        said: list[Tensor] = []

        def listen(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(module, SEEN):
                said.append(output)

        scaled = expand_like(self._denoiser.path.mean(self._time).to(x), x) * x
        # a field may hide its network in closures: a hook for all modules finds it
        hook = register_module_forward_hook(listen)
        try:
            self._denoiser.field(self._time, scaled)
        finally:
            hook.remove()
        return said


def _variance(layer: Tensor, n: int) -> Tensor | None:
    """Of a layer's outputs over n images; None where it sees the time alone, in one row or in n."""
    if layer.ndim < 2 or len(layer) != n:
        return None
    variance = layer.var(0).mean()
    return variance if variance > SMALLEST_VARIANCE else None

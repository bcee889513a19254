"""LDSB's path as its networks say it, and the sampler along it as a module that can be trained."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from sbbridge.path import Denoiser, RatioNodes, RatioPath
from sbbridge.solvers.ratio_path import carry
from sbbridge.types import State

SMALLEST_RATIO = 1e-8
"""Ratios are kept between this and 1: an MLP without a sigmoid may say anything."""


def inputs_of(nodes: RatioNodes, device: str | torch.device = "cpu") -> tuple[Tensor, Tensor]:
    """What ratio networks are called with at all nodes: inputs `[N]` and numbers `[N, 1]`."""
    return nodes.inputs.to(device), torch.arange(len(nodes), dtype=torch.float64, device=device)[:, None]


def path_of(nodes: RatioNodes, image: Any, noise: Any, times: Tensor | None = None,
            momentum: Tensor | None = None) -> RatioPath:  # fmt: skip
    """The path of two ratio networks, which say each node's ratio v in (0, 1).

    With `nodes.rates` they say how fast: log alpha_k = v / (1 − v) log alpha_k of the original path, and so for beta.
    The original's logarithms are integrals over a step, so one function v of time makes a path of any number of steps;
    v = ½ is the original path for all of them.
    """
    inputs = inputs_of(nodes, next(image.parameters()).device)
    alpha, beta = (network(*inputs)[:, 0].double().clamp(SMALLEST_RATIO, 1).cpu() for network in (image, noise))
    if nodes.rates:
        alpha, beta = _at_rate(alpha, nodes.image_ratio), _at_rate(beta, nodes.noise_ratio)
    return nodes.compose(alpha, beta, times, momentum)


def _at_rate(value: Tensor, original: Tensor) -> Tensor:
    value = value.clamp(SMALLEST_RATIO, 1 - SMALLEST_RATIO)
    return original ** (value / (1 - value))


def path_arrays(path: RatioPath, nodes: RatioNodes) -> dict[str, Tensor]:
    """A learned path beside the original, as an artefact: t, a, b and log-SNR of both, `[N]`, from the data up."""
    original = nodes.original
    arrays = {
        "times": path.times, "image": path.image, "noise": path.noise, "log_snr": path.log_snr,
        "original_times": original.times, "original_image": original.image, "original_noise": original.noise,
        "original_log_snr": original.log_snr,
    }  # fmt: skip
    return arrays | ({"momentum": path.momentum} if path.momentum is not None else {})


class _Shared:
    """Keeps an object out of a module's state, and out of its copies."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


@final
class PathSampler(nn.Module):
    """(i, z) -> x̂: N steps along the path that the ratio networks say, through a denoiser that is not trained.

    Args:
        denoiser: of the path.
        nodes: of the path, or of those that share the networks: row j of z takes those of number i_j.
        image, noise: networks for the ratios.
        learn_times: the denoiser's times are learned, too, as ratios of neighbours; t = 1 stays.
        momentum: a scalar a node extrapolates the image estimate.
    """

    def __init__(self, denoiser: Denoiser, nodes: Sequence[RatioNodes], image: nn.Module, noise: nn.Module,
                 learn_times: bool, momentum: bool) -> None:  # fmt: skip
        super().__init__()
        self.image, self.noise = image, noise
        self._held = _Shared((denoiser, tuple(nodes)))
        times = nodes[0].times
        ratios = times / torch.cat([times[1:], times.new_ones(1)])
        self._starts_at_one = bool(times[-1] == 1)
        free = ratios[:-1] if self._starts_at_one else ratios
        self.time_logits = nn.Parameter(torch.logit(free).to(torch.get_default_dtype())) if learn_times else None
        self.momentum = nn.Parameter(torch.zeros(len(times) - 1)) if momentum else None

    def path(self, nodes: RatioNodes) -> RatioPath:
        """The path at these nodes; carries gradients where they are on."""
        times = None
        if self.time_logits is not None:
            logs = nn.functional.logsigmoid(self.time_logits.double().cpu())
            logs = torch.cat([logs, logs.new_zeros(1)]) if self._starts_at_one else logs
            times = logs.flip(0).cumsum(0).flip(0).exp()
        momentum = None if self.momentum is None else self.momentum.double().cpu()
        return path_of(nodes, self.image, self.noise, times, momentum)

    def forward(self, t: Tensor, z: State) -> State:
        """The images of noise, row j along the path of number t_j."""
        denoiser, shared = self._held.held
        if len(shared) == 1:
            return carry(denoiser, self.path(shared[0]), z)
        made, rows = [], []
        for number, nodes in enumerate(shared):
            rows.append((t == number).nonzero()[:, 0])
            made.append(carry(denoiser, self.path(nodes), z[rows[-1]]))
        return torch.cat(made)[torch.cat(rows).argsort()]

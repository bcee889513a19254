"""LDSB's subspace: paths x_k = a_k x0 + b_k eps at N nodes, given by the ratios of neighbouring nodes."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from sbbridge.path.gaussian import GaussianPath
from sbbridge.path.nodes import node_times

Boundary: TypeAlias = Literal["paper", "code", "corrected"]
FIRST_NODE = 1e-3
"""The node nearest to the data, where a grid would have it at 0: there b = 0, and the last ratio would be 0 / b_1."""
CODE_TOP_RATIO = 0.02
"""a_N / a_{N−1} in the released code."""
CHAIN = 1000
"""Indices of the schedule that the published networks are called at."""


@final
@dataclass(frozen=True)
class RatioPath:
    """x_k = a_k x0 + b_k eps at the times t_k at which the denoiser is called, k = 0 nearest to the data.

    The image is x0hat of node 0; the start, at node N − 1, is noise. Attributes are float64 `[N]`.

    Attributes:
        times: t_k, rising: what the denoiser is told.
        image: a_k, falling.
        noise: b_k, rising.
        momentum: c_k `[N − 1]`: the estimate that leaves node k is x0hat_k + c_k (x0hat_k − x0hat_{k+1}); None is 0.

    Raises:
        ValueError: sizes differ.
    """

    times: Tensor
    image: Tensor
    noise: Tensor
    momentum: Tensor | None = None

    def __post_init__(self) -> None:
        n = len(self.times)
        sizes = [len(self.image), len(self.noise)]
        if sizes != [n, n] or (self.momentum is not None and len(self.momentum) != n - 1):
            raise ValueError(f"a path of {n} nodes needs as many a and b, and one c less; got {sizes}")

    def __len__(self) -> int:
        return len(self.times)

    @property
    def log_snr(self) -> Tensor:
        """log(a_k^2 / b_k^2)."""
        return 2 * (self.image.log() - self.noise.log())

    @property
    def image_ratio(self) -> Tensor:
        """alpha_k = a_k / a_{k−1}, with a_{−1} = 1."""
        return self.image / torch.cat([self.image.new_ones(1), self.image[:-1]])

    def noise_ratio(self, last: float = 1.0) -> Tensor:
        """beta_k = b_k / b_{k+1}, with b_N as given."""
        return self.noise / torch.cat([self.noise[1:], self.noise.new_full((1,), last)])

    def checked(self) -> "RatioPath":
        """The same path, detached.

        Raises:
            ValueError: a or b is not positive, finite and monotone, times do not rise within [0, 1], or a momentum is
                not finite.
        """
        times, image, noise = self.times.detach(), self.image.detach(), self.noise.detach()
        _require_rising("a", image.flip(0), "falling")
        _require_rising("b", noise, "rising")
        # a comparison with NaN is false
        if not ((times >= 0) & (times <= 1)).all() or not (times.diff() > 0).all():
            raise ValueError(f"times must rise with k within [0, 1], got {[round(t, 5) for t in times.tolist()]}")
        momentum = None if self.momentum is None else self.momentum.detach()
        if momentum is not None and not torch.isfinite(momentum).all():
            raise ValueError(f"momentum must be finite, got {momentum.tolist()}")
        return replace(self, times=times, image=image, noise=noise, momentum=momentum)

    def summing_to_one(self) -> "RatioPath":
        """(a, b) / (a + b): the straight lines that flow-matching networks were trained on (LDSB's CelebA-HQ runs)."""
        total = self.image + self.noise
        return replace(self, image=self.image / total, noise=self.noise / total)


@final
@dataclass(frozen=True)
class RatioNodes:
    """What stays fixed while a path is fitted: its nodes, its boundaries, and the path that it starts from.

    Attributes:
        times: t_k, rising, `[N]`.
        inputs: what networks for ratios are given instead: k / N where the grid leads, (k + 1) / N where it trails,
            evenly spaced on every grid (on the paper's the same as its t_k / 1000).
        original: a, b of the denoiser's own path at these times.
        first_image_ratio: alpha_0 where it is forced (to 1), None where it is learned.
        start: node N − 1 is t = 1 of a path without signal there: (a, b) = (0, 1) stay.
        top_time: of the training-only node N above a start that keeps signal; None where there is none.
        top_image_ratio: a_N / a_{N−1}.
        top_noise: b_N, from which b is composed downwards.
        sum_to_one: scale (a, b) to sum to 1.
        rates: networks say how fast a and b change beside the original path's, not ratios: one serves any N.
    """

    times: Tensor
    inputs: Tensor
    original: RatioPath
    first_image_ratio: float | None
    start: bool
    top_time: float | None
    top_image_ratio: float
    top_noise: float
    sum_to_one: bool = False
    rates: bool = False

    def __len__(self) -> int:
        return len(self.times)

    @property
    def free_image(self) -> list[int]:
        """Nodes whose alpha is learned."""
        first = 0 if self.first_image_ratio is None else 1
        return list(range(first, len(self) - (1 if self.start else 0)))

    @property
    def free_noise(self) -> list[int]:
        """Nodes whose beta is learned."""
        return list(range(len(self) - (1 if self.start else 0)))

    def compose(self, image_ratio: Tensor, noise_ratio: Tensor, times: Tensor | None = None,
                momentum: Tensor | None = None) -> RatioPath:  # fmt: skip
        """The path of these ratios: a_k = prod_{i <= k} alpha_i, b_k = b_N prod_{i >= k} beta_i, in log space.

        Args:
            image_ratio, noise_ratio: `[N]`; forced ones are replaced.
        """
        alpha, beta = image_ratio.double(), noise_ratio.double()
        if self.first_image_ratio is not None:
            alpha = torch.cat([alpha.new_full((1,), self.first_image_ratio), alpha[1:]])
        if self.start:
            beta = torch.cat([beta[:-1], beta.new_ones(1)])
            alpha = alpha[:-1]
        image = alpha.log().cumsum(0).exp()
        if self.start:
            image = torch.cat([image, image.new_zeros(1)])
        noise = self.top_noise * beta.log().flip(0).cumsum(0).flip(0).exp()
        path = RatioPath(self.times if times is None else times, image, noise, momentum)
        return path.summing_to_one() if self.sum_to_one else path

    @property
    def image_ratio(self) -> Tensor:
        """alpha_k of the original path, forced ones as forced."""
        alpha = self.original.image_ratio.clone()
        if self.first_image_ratio is not None:
            alpha[0] = self.first_image_ratio
            if len(alpha) > 1:  # so that a_1 stays the original's
                alpha[1] = self.original.image[1] / self.first_image_ratio
        return alpha

    @property
    def noise_ratio(self) -> Tensor:
        """beta_k of the original path."""
        return self.original.noise_ratio(self.top_noise)

    def top(self, path: RatioPath) -> tuple[Tensor, Tensor, Tensor]:
        """(t, a, b) of the training-only node above a path."""
        time = path.times.new_tensor(self.top_time if self.top_time is not None else 1.0)
        return time, self.top_image_ratio * path.image[-1], path.noise.new_tensor(self.top_noise)


def ratio_nodes(path: GaussianPath, grid: str, num_steps: int, boundary: Boundary = "corrected",
                sum_to_one: bool = False, chain: int | None = None) -> RatioNodes:  # fmt: skip
    """Nodes of a named grid on a denoiser's own path.

    Boundaries: `code`, the release's: alpha_0 = 1; above a leading grid a training-only node with a_N = 0.02 a_{N−1},
    b_N = 1, where the network is told the index after the chain's last (without a chain t = 1). `paper`: alpha_0 = 1 as
    its tables print, b_N = 1, a_N from the schedule. `corrected`: alpha_0 is learned, and (a_N, b_N) are the schedule's
    at t = 1. Node 0 of a trailing grid still holds noise: its alpha_0 is learned at every boundary.

    Args:
        path: of the data and noise that the denoiser was trained on.
        grid: a name of `sbbridge.path.NODE_GRIDS`; `leading_uniform` is the paper's.
        num_steps: N.
        sum_to_one: scale (a, b) to sum to 1.
        chain: indices of a discrete schedule: nodes are rounded down to times (i + 1) / chain.

    Raises:
        ValueError: an unknown grid, fewer than two steps, two nodes at one time, or a sum of one on a path that does
            not have it.
    """
    if num_steps < 2:
        raise ValueError(f"num_steps must be >= 2, got {num_steps}")
    times = node_times(grid, num_steps, path.log_snr)[:-1].flip(0)
    if chain is not None:
        times = _on_chain(times, chain)
    times = times.clamp(min=FIRST_NODE)
    if (times.diff() <= 0).any():
        raise ValueError(f"grid {grid} with {num_steps} steps puts two nodes at one time: {times.tolist()}")
    end = torch.ones((), dtype=torch.float64)
    image, noise = path.mean(times), path.scale(times)
    start = bool(image[-1] == 0)
    if sum_to_one and not torch.allclose(image + noise, torch.ones_like(image)):
        raise ValueError("sum_to_one is for flow matching, whose own path sums to 1")
    top = grid.startswith("leading") and not start
    ratio = CODE_TOP_RATIO if boundary == "code" else float(path.mean(end) / image[-1])
    first = 0 if grid.startswith("leading") else 1
    return RatioNodes(
        times=times,
        inputs=(torch.arange(num_steps, dtype=torch.float64) + first) / num_steps,
        original=RatioPath(times, image, noise),
        first_image_ratio=None if boundary == "corrected" or first else 1.0,
        start=start,
        top_time=_top_time(boundary, chain) if top else None,
        top_image_ratio=ratio if top else 1.0,
        top_noise=float(path.scale(end)) if boundary == "corrected" else 1.0,
        sum_to_one=sum_to_one,
    )


def _top_time(boundary: Boundary, chain: int | None) -> float:
    """The released code tells the network 1000, where a chain of 1000 ends with 999."""
    return 1.0 if boundary != "code" or chain is None else 1 + 1 / chain


def _on_chain(times: Tensor, chain: int) -> Tensor:
    """Nodes w as the chain's times (i + 1) / chain, i = floor(w chain), at most the last index."""
    indices = (times * chain + 1e-6).floor().clamp(max=chain - 1)
    return (indices + 1) / chain


def _require_rising(name: str, values: Tensor, word: str) -> None:
    """A sequence that rises and is positive after its first value, which may be 0."""
    if not torch.isfinite(values).all() or values[0] < 0 or (values[1:] <= 0).any() or (values.diff() < -1e-12).any():
        shown = [round(v, 5) for v in (values if word == "rising" else values.flip(0)).tolist()]
        raise ValueError(f"{name} must be positive, finite and {word} with k, got {shown}")

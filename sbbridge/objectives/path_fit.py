"""LDSB's two half-iterations: what a node's a and b should be, by least squares on inner products of images."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from sbbridge.path import Denoiser, RatioNodes, RatioPath
from sbbridge.types import State

Coefficient: TypeAlias = Literal["image", "noise"]


@final
@dataclass(frozen=True)
class InnerProducts:
    """Per-image inner products of a target y with two regressors p and q: minimise |y − a p − b q|^2.

    Attributes:
        values: `[n, 5]`, float64: <y, p>, <y, q>, <p, p>, <p, q>, <q, q>.
    """

    values: Tensor

    @staticmethod
    def of(y: State, p: State, q: State) -> "InnerProducts":
        """Of states `[n, *shape]`."""
        y, p, q = (part.flatten(1).double() for part in (y, p, q))
        return InnerProducts(torch.stack([(a * b).sum(1) for a, b in ((y, p), (y, q), (p, p), (p, q), (q, q))], 1))

    def image(self, noise: Tensor) -> Tensor:
        """a at a given b: <y − b q, p> / <p, p> (LDSB, Eq. 14 and 18)."""
        yp, _, pp, pq, _ = self.values.sum(0)
        return (yp - noise * pq) / pp

    def noise(self, image: Tensor) -> Tensor:
        """b at a given a: <y − a p, q> / <q, q> (LDSB, Eq. 15 and 19)."""
        _, yq, _, pq, qq = self.values.sum(0)
        return (yq - image * pq) / qq

    def both(self) -> Tensor:
        """(a, b) together, `[2]`."""
        return torch.linalg.solve(self._gram(self.values.sum(0)), self.values.sum(0)[:2])

    def standard_errors(self, image: Tensor, noise: Tensor) -> Tensor:
        """Of (a, b) as a joint solution, `[2]`: G^−1 (sum_i s_i s_i^T) G^−1, s_i an image's own normal equations."""
        gram = self._gram(self.values.sum(0))
        yp, yq, pp, pq, qq = self.values.unbind(1)
        own = torch.stack([yp - image * pp - noise * pq, yq - image * pq - noise * qq], 1)
        spread = torch.linalg.solve(gram, own.mT)
        return spread.square().sum(1).sqrt()

    @staticmethod
    def _gram(values: Tensor) -> Tensor:
        _, _, pp, pq, qq = values
        return torch.stack([torch.stack([pp, pq]), torch.stack([pq, qq])])


def reverse_products(denoiser: Denoiser, nodes: RatioNodes, forward: RatioPath, k: int, x0: State,
                     eps: State) -> InnerProducts:  # fmt: skip
    """Node k of the reverse path: the forward path's x_k on what the denoiser makes of its x_{k+1} (Eq. 12 and 13).

    y = a_k x0 + b_k eps, (p, q) = (x0hat, epshat) at a_{k+1} x0 + b_{k+1} eps with the same eps; node N is the
    training-only one above the path.
    """
    above = (forward.times[k + 1], forward.image[k + 1], forward.noise[k + 1]) if k + 1 < len(forward) else None
    time, image, noise = above or nodes.top(forward)
    estimates = denoiser.estimates(time, image.to(x0) * x0 + noise.to(x0) * eps, image, noise)
    return InnerProducts.of(forward.image[k].to(x0) * x0 + forward.noise[k].to(x0) * eps, *estimates)


def forward_products(denoiser: Denoiser, reverse: RatioPath, k: int, x0: State, eps: State) -> InnerProducts:
    """Node k + 1 of the forward path: the reverse path's x_{k+1} on its own image estimate a step later (Eq. 16, 17).

    y = a_{k+1} x0 + b_{k+1} eps; x_k one step of the sampler from there; (p, q) = ((x_k − b_k eps) / a_k, eps) with the
    true noise.
    """
    image, noise = reverse.image[k + 1], reverse.noise[k + 1]
    x = image.to(x0) * x0 + noise.to(x0) * eps
    x0hat, epshat = denoiser.estimates(reverse.times[k + 1], x, image, noise)
    a, b = reverse.image[k].to(x0), reverse.noise[k].to(x0)
    return InnerProducts.of(x, (a * x0hat + b * epshat - b * eps) / a, eps)

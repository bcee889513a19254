"""A half-iteration of LDSB: which path is held, which nodes move, and where least squares would have them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from sbbridge.coupling import Workers
from sbbridge.methods.base import Run
from sbbridge.methods.ldsb_fits import ExactIPF
from sbbridge.objectives.path_fit import Coefficient, InnerProducts, forward_products, reverse_products
from sbbridge.path import Denoiser, RatioNodes, RatioPath
from sbbridge.problems import unit_noise
from sbbridge.types import State

LARGEST_RATIO = 1 - 1e-9
CHUNK = 1024
"""Images whose inner products are taken at once."""


class Solved(NamedTuple):
    """Ratios to be learned, `[N]`, with standard errors of log a and log b where they were measured."""

    image_ratio: Tensor
    noise_ratio: Tensor
    image_standard_error: Tensor | None = None
    noise_standard_error: Tensor | None = None

    def arrays(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def metrics(self) -> dict[str, float]:
        """The largest standard errors."""
        errors = {"image": self.image_standard_error, "noise": self.noise_standard_error}
        return {f"largest_{name}_standard_error": float(e.max()) for name, e in errors.items() if e is not None}


@final
@dataclass(frozen=True)
class Half:
    """A half-iteration.

    Attributes:
        name: unique in the method.
        direction: reverse fits the reverse path to the held forward path; forward the other way round.
        fixed: the nodes of both paths.
        denoiser: theirs.
        held: the path that stays.
    """

    name: str
    direction: Literal["reverse", "forward"]
    fixed: RatioNodes
    denoiser: Denoiser
    held: Callable[[], RatioPath]

    def nodes(self, all_of_them: bool = False) -> dict[Coefficient, list[int]]:
        """The nodes whose ratios move, from the start of the path to the data.

        Args:
            all_of_them: alpha_0 of the reverse path, too, although it is forced.
        """
        image, noise = self.fixed.free_image, self.fixed.free_noise
        if all_of_them and not self.fixed.start:
            image = list(range(len(self.fixed)))
        if self.direction == "forward":
            image, noise = ([k for k in nodes if k > 0] for nodes in (image, noise))
        return {"image": image[::-1], "noise": noise[::-1]}

    def products(self, node: int, x0: State, eps: State, workers: Workers, total: int) -> InnerProducts:
        """Of all workers' images, in order."""
        held = self.held()
        if self.direction == "reverse":
            mine = reverse_products(self.denoiser, self.fixed, held, node, x0, eps)
        else:
            mine = forward_products(self.denoiser, held, node - 1, x0, eps)
        return InnerProducts(workers.gather(mine.values, total).cpu())

    def ratio(self, coefficient: Coefficient, node: int, products: InnerProducts, own: RatioPath,
              joint: bool = False) -> Tensor:  # fmt: skip
        """The least-squares ratio at a node, given the path's own values at the others."""
        before = own.image[node - 1] if node else own.image.new_ones(())
        after = own.noise[node + 1] if node + 1 < len(own) else own.noise.new_tensor(self.fixed.top_noise)
        if joint:
            image, noise = self._joint(node, products, own)
            value = image / before if coefficient == "image" else noise / after
            return value.clamp(1e-6, LARGEST_RATIO)
        if coefficient == "image":
            return products.image(own.noise[node]) / before
        return products.noise(own.image[node]) / after

    def solve(self, own: RatioPath, fit: ExactIPF, run: Run) -> Solved:
        """All nodes of the half in closed form, damped, within the trust region, and monotone."""
        image, noise = own.image.clone(), own.noise.clone()
        errors = torch.zeros(2, len(own), dtype=torch.float64)
        nodes = self.nodes()
        for node in sorted({*nodes["image"], *nodes["noise"]}, reverse=True):
            products = self._all_products(node, fit.images, run)
            if fit.solve == "joint":
                wanted = self._joint(node, products, own)
            else:
                b = products.noise(own.image[node]) if node in nodes["noise"] else own.noise[node]
                wanted = torch.stack([products.image(b), b])
            errors[:, node] = products.standard_errors(*wanted) / wanted.abs()
            if node in nodes["image"]:
                image[node] = _moved(own.image[node], wanted[0], fit)
            if node in nodes["noise"]:
                noise[node] = _moved(own.noise[node], wanted[1], fit)
        if self.direction == "forward":  # it leaves node 0: alpha_0 stays, and beta_0 rather than b_0
            noise[0] = own.noise[0] / own.noise[1] * noise[1]
        alpha, beta = self._monotone(image, noise)
        return Solved(alpha, beta, *errors)

    def _joint(self, node: int, products: InnerProducts, own: RatioPath) -> Tensor:
        """(a, b) together where both may move, else b at the a that stays."""
        if node in self.nodes()["image"]:
            return products.both()
        return torch.stack([own.image[node], products.noise(own.image[node])])

    def _all_products(self, node: int, images: int, run: Run) -> InnerProducts:
        stream = run.stream.child(self.name)
        rows, parts = run.workers.shard(images), []
        alone = Workers()
        for first in range(rows.start, rows.stop, CHUNK):
            part = range(first, min(first + CHUNK, rows.stop))
            x0 = run.problem.data.draw(0, part, stream.child("images"))
            eps = unit_noise(run.problem, 0, part, stream.child("noise"))
            parts.append(self.products(node, x0, eps, alone, len(part)).values)
        return InnerProducts(run.workers.gather(torch.cat(parts).to(run.stream.device), images).cpu())

    def _monotone(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Ratios of neighbours, kept inside (0, 1): a from the data up, b from the start down."""
        count = len(image)
        alpha, beta = torch.ones_like(image), torch.ones_like(noise)
        before = 1.0
        for k in range(count - (1 if self.fixed.start else 0)):
            forced = self.fixed.first_image_ratio if k == 0 else None
            alpha[k] = (image[k] / before).clamp(1e-9, LARGEST_RATIO) if forced is None else forced
            before = before * float(alpha[k])
        after = self.fixed.top_noise
        for k in reversed(range(count - (1 if self.fixed.start else 0))):
            beta[k] = (noise[k] / after).clamp(1e-9, LARGEST_RATIO)
            after = after * float(beta[k])
        return alpha, beta


def _moved(own: Tensor, wanted: Tensor, fit: ExactIPF) -> Tensor:
    """Part of the way from a positive number to another, in its logarithm; as far as trusted where that is not > 0."""
    step = fit.damping * ((wanted / own).log() if wanted > 0 else torch.full_like(own, -torch.inf))
    moved: Tensor = own * step.clamp(-fit.trust, fit.trust).exp()
    return moved

"""Small problems that come with a denoiser, and every way of fitting a path at its shortest."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sbbridge.coupling import Generation
from sbbridge.data import GaussianMixture, StandardNormal, TensorData
from sbbridge.methods import IPF, LDSB, ExactIPF, NoFit, RandomPaths, TeacherFit
from sbbridge.methods.denoisers import exact_denoiser
from sbbridge.networks import EfficientKAN, Network, RatioTable
from sbbridge.path import Denoiser
from sbbridge.problems import DenoisingProblem
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path
from sbbridge.training import Reporter, Trainer, Training
from tests.training.recording import EVERY_STEP

DATA = GaussianMixture([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.1, 0.3])
TABLE, SMALL_KAN = RatioTable(), EfficientKAN(grid_size=3, widths=(1, 2, 1))
SHORT = Generation("heun", 3, "trailing_quadratic")
SUM = torch.tensor([[0.5, 0.5]])
GRIDS = {"vp": "leading_uniform", "flow": "trailing_uniform"}
FITS: dict[str, Any] = {
    "none": NoFit(),
    "ipf, code": IPF(epochs=2, batches=1),
    "ipf, paper": IPF(epochs=1, batches=2, mode="paper"),
    "ipf, corrected": IPF(epochs=1, batches=1, mode="corrected"),
    "ipf, reverse": IPF(iterations=1, epochs=1, batches=1, halves="reverse"),
    "ipf, forward": IPF(epochs=1, batches=1, halves="forward", mode="paper"),
    "exact, joint": ExactIPF(images=200, steps=4),
    "exact, coordinate": ExactIPF(images=200, steps=4, solve="coordinate", iterations=1, damping=0.5),
    "exact, forward": ExactIPF(images=200, steps=4, halves="forward"),
    "teacher": TeacherFit(epochs=2, pairs=64, generation=SHORT),
    "teacher, features": TeacherFit(epochs=2, pairs=64, generation=SHORT, distance="features"),
    "teacher, all": TeacherFit(epochs=2, pairs=64, generation=SHORT, learn_times=True, order=2),
    "random": RandomPaths(candidates=3, steps=4),
}  # fmt: skip


def problem(
    family: str = "vp", change: Callable[[Tensor], Tensor] = lambda value: value, weight: Tensor = SUM
) -> DenoisingProblem:
    """A mixture in the plane with its exact denoiser, whose value may be changed; it asks a layer for nothing."""
    covariances = torch.diag_embed(DATA.variances)
    exact = exact_denoiser(DATA.weights, DATA.means, covariances, family, DDPM())
    layer = nn.utils.skip_init(nn.Linear, 2, len(weight), bias=False, dtype=torch.float64)
    layer.load_state_dict({"weight": weight})

    def field(t: Tensor, x: Tensor) -> Tensor:
        return change(exact.field(t, x)) + 0 * layer(x.double()).sum(1, keepdim=True).to(x)

    denoiser = replace(exact, field=field)
    return DenoisingProblem(DATA, StandardNormal((2,)), DDPM(), denoiser)


def one_point(error: float = 0.0) -> DenoisingProblem:
    """Data that are all the same point, so that the noise in x is known; the denoiser says 1 + error times that."""
    point, path = torch.tensor([1.5, -0.5]), reference_path(DDPM())

    def noise(t: Tensor, x: Tensor) -> Tensor:
        return (1 + error) * (x - path.mean(t).to(x) * point) / path.scale(t).to(x)

    denoiser = Denoiser(path, "noise", noise, chain=1000)
    return DenoisingProblem(TensorData(point[None]), StandardNormal((2,)), DDPM(), denoiser)


def method(fit: Any, family: str = "vp", **options: Any) -> LDSB:
    """Four nodes; networks are not asked to learn much before."""
    settings = {"num_steps": 4, "grid": GRIDS[family], "prefit_steps": 4, "prefit_tolerance": 1.0}
    return LDSB(fit=fit, **(settings | options))


def trainer(
    chosen: LDSB,
    reporter: Reporter | None = None,
    on: DenoisingProblem | None = None,
    network: Network = TABLE,
    seed: int = 3,
    **options: Any,
) -> Trainer:
    """Ready to train; saves after every step."""
    training = Training(**{"batch_size": 16, "ema_decay": 0.0, "checkpoint_seconds": EVERY_STEP, **options})
    family = "flow" if chosen.grid == GRIDS["flow"] else "vp"
    return Trainer(chosen, on or problem(family), network, training, seed, reporter or Reporter())

"""Local Diffusion Schrödinger Bridge: a path of its own for a trained denoiser (Qiu et al. 2025, arXiv 2502.19754)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import nn

from sbbridge.config import ConfigurationError, require, require_finite
from sbbridge.methods.base import Method, Run, Solution, Stage
from sbbridge.methods.denoisers import DenoiserConfig, ExactDenoiser, TrainedDenoiser, dynamics_of
from sbbridge.methods.ldsb_fits import IPF, ExactIPF, NoFit, PathFit, RandomPaths, TeacherFit
from sbbridge.methods.ldsb_paths import PathSampler, path_of
from sbbridge.methods.ldsb_stages import Fitting
from sbbridge.networks import KAN, Network, Part, RatioTable
from sbbridge.path import RatioNodes, ratio_nodes
from sbbridge.path.nodes import NodeGrid
from sbbridge.path.ratio import Boundary
from sbbridge.problems import BridgeProblem, DenoisingProblem
from sbbridge.types import Field


@final
@dataclass(frozen=True)
class LDSB(Method):
    """Fits the ratios of x_k = a_k x0 + b_k eps at N nodes, for a denoiser that stays as it is.

    "LDSB" without a further word means `fit=IPF()`; the other fits ask what the same subspace can do.

    Attributes:
        num_steps: N, the sampler's network calls; a path serves this N alone, its networks more where
            `fit.shared` says so.
        grid: where the nodes are; `leading_uniform` is the paper's for DDIM, `trailing_uniform` for flow matching.
        boundary: see `sbbridge.path.ratio_nodes`.
        sum_to_one: (a, b) / (a + b), for flow matching (the paper's CelebA-HQ runs).
        fit: how.
        prefit_steps: with which networks learn the original path; a table takes it as it is.
        prefit_learning_rate: of these.
        prefit_tolerance: largest error of a and b after them, and after the offsets where there are some.
        offset: what a network's logits still lack after these steps becomes a fixed number a node, so that the path
            starts exactly; the release has none.
        select: among the candidates (half-iterations, parts of one, or epochs; the original path is the first): last;
            validation: the best on the validation split; teacher: the nearest to where the denoiser's converged flow
            takes the same noise; reported: the best on the split that is reported, as the authors did, for
            reproduction only.
        denoiser: which network the path is for.
    """

    elastic: ClassVar[str] = ""

    num_steps: int = 10
    grid: NodeGrid = "leading_uniform"
    boundary: Boundary = "corrected"
    sum_to_one: bool = False
    fit: PathFit = IPF()
    prefit_steps: int = 300
    prefit_learning_rate: float = 0.02
    prefit_tolerance: float = 1e-4
    offset: bool = True
    select: Literal["last", "validation", "teacher", "reported"] = "validation"
    denoiser: DenoiserConfig = TrainedDenoiser()
    kind: Literal["ldsb"] = field(default="ldsb", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.num_steps >= 2, f"num_steps must be >= 2, got {self.num_steps}")
        require(self.prefit_steps >= 1, f"prefit_steps must be >= 1, got {self.prefit_steps}")
        for name in ("prefit_learning_rate", "prefit_tolerance"):
            require(getattr(self, name) > 0, f"{name} must be > 0, got {getattr(self, name)}")
        featured = isinstance(self.fit, TeacherFit) and self.fit.distance == "features"
        require(not (featured and isinstance(self.denoiser, ExactDenoiser)),
                "fit.distance features are the denoiser's layers: denoiser.kind must be trained or published, "
                "got exact (or take fit.distance pixels)")  # fmt: skip

    @property
    def sampled(self) -> str:
        """The image's ratios; the noise's are another network of the same size."""
        return "image"

    @property
    def judged(self) -> tuple[str, ...]:
        return ("path",) if isinstance(self.fit, TeacherFit) else ("image", "noise")

    @property
    def default_network(self) -> Network:
        """The paper's: a KAN of twice as many intervals as nodes."""
        return KAN(grid_size=2 * self.num_steps)

    @property
    def selects(self) -> str | None:
        asked = {"last": None, "validation": "validation", "teacher": "teacher", "reported": "test"}
        return None if isinstance(self.fit, NoFit) else asked[self.select]

    def cost(self, batch_size: int) -> int:
        """Network evaluations of the denoiser that the fit takes, without those of its own training."""
        return self.fit.cost(self.num_steps, batch_size)

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """None: its networks are not fields."""
        return {}

    def nodes(self, problem: BridgeProblem) -> RatioNodes:
        """What stays fixed while the path is fitted.

        Raises:
            TypeError: the problem has no denoiser.
            ValueError: see `sbbridge.path.ratio_nodes`; or the grid starts at a = 0, and the denoiser predicts noise.
        """
        return self._nodes(problem, self.num_steps)

    def _nodes(self, problem: BridgeProblem, num_steps: int) -> RatioNodes:
        denoiser = self._denoising(problem).denoiser
        nodes = ratio_nodes(denoiser.path, self.grid, num_steps, self.boundary, self.sum_to_one, denoiser.chain)
        denoiser.require_image(nodes.original.image)
        return replace(nodes, rates=bool(self._shared))

    @property
    def _shared(self) -> tuple[int, ...]:
        return self.fit.shared if isinstance(self.fit, TeacherFit) else ()

    def modules(self, problem: BridgeProblem, network: Network, initial: Callable[[str], int]) -> dict[str, nn.Module]:
        """Networks for the ratios of a and b; the same for the path that a half-iteration holds; the sampler itself."""
        if self._shared and isinstance(network, RatioTable):
            raise ConfigurationError("fit.shared: a table holds the ratios of one number of steps (allowed: kan, "
                                     "efficient_kan, ratio_mlp)")  # fmt: skip
        names = ["image", "noise"]
        if self._alternates:
            names += ["other_image", "other_noise"]
        modules: dict[str, nn.Module] = {
            # an offset a node belongs to one number of steps
            name: network.build(() if self._shared else (self.num_steps,), initial(name.removeprefix("other_")))
            for name in names
        }
        if isinstance(self.fit, TeacherFit):
            denoiser = self._denoising(problem).denoiser
            shared = [self._nodes(problem, n) for n in self._shared or (self.num_steps,)]
            modules["path"] = PathSampler(
                denoiser, shared, modules["image"], modules["noise"], self.fit.learn_times, self.fit.order == 2
            )
        return modules

    def stages(self, run: Run) -> Iterator[Stage]:
        """prefit, then reverse and forward halves, or the fit to the teacher, or random candidates."""
        shared = [self._nodes(run.problem, n) for n in self._shared]
        fitting = Fitting(run, self._denoising(run.problem), self.nodes(run.problem), shared)
        fitting.require_finite()
        offset = self.offset and not self._shared
        yield fitting.prefit(self.prefit_steps, self.prefit_learning_rate, self.prefit_tolerance, offset)
        yield fitting.original()
        fit = self.fit
        if isinstance(fit, TeacherFit):
            yield fitting.teacher(fit)
        elif isinstance(fit, RandomPaths):
            yield from fitting.candidates(fit, self.prefit_learning_rate)
        elif isinstance(fit, IPF):
            yield from fitting.alternating(fit)
        elif isinstance(fit, ExactIPF):
            yield from fitting.exact(fit, self.prefit_learning_rate)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """The path with its denoiser, whose own fields stay open to other samplers.

        Raises:
            ValueError: the networks' ratios do not make a path.
        """
        denoiser, found = self._denoising(problem).denoiser, dict[str, Any](networks)
        with torch.no_grad():
            if "path" in found and int(found["path"].n_averaged):
                path = found["path"].module.path(self.nodes(problem))
            else:  # before the sampler's first step its average has not heard of the prefit
                path = path_of(self.nodes(problem), found["image"], found["noise"])
        return Solution(
            problem, self.kind, dynamics_of(denoiser, problem.reference), path=path.checked(),
            path_nodes=self.nodes(problem), path_grid=self.grid, denoiser=denoiser,
        )  # fmt: skip

    @property
    def _alternates(self) -> bool:
        return isinstance(self.fit, IPF | ExactIPF)

    def _denoising(self, problem: BridgeProblem) -> DenoisingProblem:
        if not isinstance(problem, DenoisingProblem):
            raise TypeError("ldsb needs a denoiser: give it a DenoisingProblem")
        return problem

"""The stages of LDSB: the fit of networks to given ratios, alternating halves, and the fit to a teacher."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from sbbridge.coupling import Batch, BufferSource, GeneratedCoupling
from sbbridge.methods.base import Draw, Findings, Follower, Run, Stage
from sbbridge.methods.denoisers import dynamics_of
from sbbridge.methods.ldsb_fits import IPF, ExactIPF, Halves, RandomPaths, TeacherFit
from sbbridge.methods.ldsb_halves import Half, Solved
from sbbridge.methods.ldsb_paths import inputs_of, path_of
from sbbridge.methods.ldsb_sources import RatioSource, SweepSource
from sbbridge.objectives import Regression
from sbbridge.objectives.base import mean_square
from sbbridge.objectives.features import FeatureDistance
from sbbridge.objectives.path_fit import Coefficient
from sbbridge.path import RatioNodes, RatioPath
from sbbridge.problems import DenoisingProblem
from sbbridge.types import State

FEATURE_IMAGES = 256
"""Over which the variance of a layer is measured."""
RATE_INPUTS = 81
"""Times at which networks that say rates learn the original path."""
PREFIT_WEIGHT = 1e8
"""Of squared errors of ratios: (10^4 error)^2, as in the release; Adam's epsilon is then nothing."""
Direction: TypeAlias = Literal["reverse", "forward"]
DIRECTIONS: Mapping[Halves, tuple[Direction, ...]] = {
    "both": ("reverse", "forward"), "reverse": ("reverse",), "forward": ("forward",)
}  # fmt: skip


class PathError(RuntimeError):
    """A path could not be learned; the message says how far it is from what was wanted."""


class Fitting:
    """What LDSB's stages share: the run, its denoiser with counted calls, the nodes, and those of other N served."""

    def __init__(self, run: Run, problem: DenoisingProblem, nodes: RatioNodes,
                 shared: Sequence[RatioNodes] = ()) -> None:  # fmt: skip
        self._run, self._nodes, self._served = run, nodes, (nodes, *shared)
        self._device = run.stream.device
        self._uncounted = problem.denoiser
        self._denoiser = replace(problem.denoiser, field=run.simulated(problem.denoiser.field))
        self._teacher = dynamics_of(self._denoiser, problem.reference)

    def require_finite(self) -> None:
        """Refuses a denoiser whose value is not finite at some node: a path cannot be better than it.

        Raises:
            PathError: naming the time.
        """
        x = self._run.problem.prior.draw(0, range(8), self._run.stream.child("trial input"))
        for t in torch.cat([nodes.times for nodes in self._served]):
            with torch.no_grad():
                finite = torch.isfinite(self._uncounted.field(t.to(x.device), x)).all()
            if not finite:
                raise PathError(f"the denoiser's value at t = {float(t):g} is not finite: are its weights?")

    def prefit(self, steps: int, learning_rate: float, tolerance: float, offset: bool) -> Stage:
        """The networks learn the original path's ratios; what they lack then becomes an offset of each node."""
        stage = self._ratios("prefit", self._original_ratios, steps, learning_rate)

        def check() -> Findings:
            if offset:
                self._shift(self._original_ratios())
            error = max(map(self._from_original, self._served))
            if error > tolerance:
                raise PathError(f"the original path was learned to {error:.2g} only, method.prefit_tolerance is "
                                f"{tolerance:g}: more method.prefit_steps may help")  # fmt: skip
            return Findings({"prefit_error": error})

        return replace(stage, at_end=check, sampled=False)

    @torch.no_grad()
    def _from_original(self, nodes: RatioNodes) -> float:
        """The largest error of a and b."""
        path = path_of(nodes, self._run.networks["image"].online, self._run.networks["noise"].online)
        wanted = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
        return float(torch.stack([(path.image - wanted.image).abs(), (path.noise - wanted.noise).abs()]).max())

    def original(self) -> Stage:
        """No steps: the path that the fit starts from, offsets included, is the first candidate."""
        return replace(self._ratios("original", self._original_ratios, 0, 1.0), at_end=None)

    def candidates(self, fit: RandomPaths, learning_rate: float) -> Iterator[Stage]:
        """The original path's ratios, changed at random, one candidate after the other."""
        for number in range(fit.candidates):
            stream = self._run.stream.child("candidate", number)
            change = stream.normal(0, range(2), (len(self._nodes),)).double().cpu()

            def changed(change: Tensor = change) -> Solved:
                original = (self._nodes.image_ratio, self._nodes.noise_ratio)
                ratios = [(ratio * (fit.scale * by).exp()).clamp(max=1 - 1e-6)
                          for ratio, by in zip(original, change, strict=True)]  # fmt: skip
                return Solved(*ratios)

            yield self._ratios(f"candidate {number + 1}", changed, fit.steps, learning_rate)

    def teacher(self, fit: TeacherFit) -> Stage:
        """Through the sampler, to the ends of the teacher's probability flow from the same noise."""
        run = self._run
        coupling = GeneratedCoupling(run.problem.prior, self._teacher, fit.generation)
        source = BufferSource(
            coupling, fit.pairs, fit.pairs, run.stream.child("teacher"), run.workers, refresh_every=fit.epochs
        )

        steps = fit.shared or (len(self._nodes),)
        images = run.problem.data.draw(0, range(1024), run.stream.child("scale"))
        scale = float(images.square().mean().sqrt())
        distance: Callable[[State, State], Tensor] = mean_square
        calls = sum(steps) / len(steps)
        if fit.distance == "features":
            distance = FeatureDistance(self._uncounted, fit.feature_time, images[:FEATURE_IMAGES], run.autocast)
            calls += FeatureDistance.calls

        def objective(batch: Batch, draw: Draw) -> Regression:
            number = torch.zeros(len(batch["x1"]), dtype=torch.long, device=self._device)
            if len(steps) > 1:
                number = torch.arange(draw.rows.start, draw.rows.stop, device=self._device) % len(steps)
            size = batch["x0"].flatten(1).square().mean(1).sqrt()
            # a flow may lose single paths far outside of the data: squared, one of them would outweigh all others
            weight = (LOST * scale / size).clamp(max=1) ** 4
            return Regression(number, batch["x1"], batch["x0"], weight, calls, distance)

        return Stage(
            "teacher", "path", source, objective, fit.epochs, fit.learning_rate, "cosine", sampled=True
        )

    def alternating(self, fit: IPF) -> Iterator[Stage]:
        """One Adam step a node towards the targets of Eq. 14, 15, 18 and 19."""
        for half, prepare in self._halves(fit.halves, fit.iterations):
            nodes = half.nodes(all_of_them=fit.mode == "code")
            split = fit.mode == "code"
            sweeps = [nodes["noise"], nodes["image"]] if split else [nodes["noise"]]
            first = len(sweeps[0])
            turns = sum(map(len, sweeps))
            objective = partial(self._target, half, fit.mode)
            yield Stage(
                name=half.name, network="image",
                source=SweepSource(self._run, half, fit.batches, sweeps, fresh_noise=split),
                objective=partial(objective, "image"), epochs=fit.epochs, learning_rate=fit.learning_rate,
                schedule="constant", gradient_clip=fit.gradient_clip, at_start=prepare, sampled=True,
                due=_in_sweep(turns, first, turns) if split else _in_nodes(sweeps[0], nodes["image"]),
                follower=Follower("noise", partial(objective, "noise"), _in_sweep(turns, 0, first), fit.learning_rate),
            )  # fmt: skip

    def exact(self, fit: ExactIPF, learning_rate: float) -> Iterator[Stage]:
        """Each half solved from moments; then the networks learn its ratios."""
        for half, prepare in self._halves(fit.halves, fit.iterations):
            def solve(half: Half = half) -> Solved:
                return half.solve(self._path("image", "noise"), fit, self._run)

            yield self._ratios(half.name, solve, fit.steps, learning_rate, prepare)

    def _original_ratios(self) -> Solved:
        """What networks say where the path is the original one."""
        if self._nodes.rates:
            half = torch.full((RATE_INPUTS,), 0.5, dtype=torch.float64)
            return Solved(half, half)
        return Solved(self._nodes.image_ratio, self._nodes.noise_ratio)

    def _halves(self, halves: Halves, iterations: int) -> Iterator[tuple[Half, Callable[[], None]]]:
        """Each half with what comes before it: the path that was trained last is held, the other trained on."""
        first = True
        for iteration in range(1, iterations + 1):
            for direction in DIRECTIONS[halves]:
                # once: it does not move, and it is there only when the stage has begun
                held = cache(partial(self._path, "other_image", "other_noise"))
                half = Half(f"{direction} {iteration}", direction, self._nodes, self._denoiser, held)
                yield half, self._hold if first else (self._exchange if halves == "both" else _nothing)
                first = False

    def _hold(self) -> None:
        self._run.copy_weights("image", "other_image")
        self._run.copy_weights("noise", "other_noise")

    def _exchange(self) -> None:
        self._run.swap_weights("image", "other_image")
        self._run.swap_weights("noise", "other_noise")

    def _path(self, image: str, noise: str) -> RatioPath:
        networks = self._run.networks
        with torch.no_grad():
            return path_of(self._nodes, networks[image].online, networks[noise].online)

    def _target(self, half: Half, mode: str, coefficient: Coefficient, batch: Batch, draw: Draw) -> Regression:
        """The regression of one network at one node to its least-squares ratio on the whole batch."""
        node, own = int(batch["node"][0]), self._path("image", "noise")
        products = half.products(node, batch["x0"], batch["eps"], self._run.workers, draw.total)
        target = half.ratio(coefficient, node, products, own, joint=mode == "corrected")
        inputs, numbers = inputs_of(self._nodes, self._device)
        at = (inputs[node : node + 1], numbers[node : node + 1])
        weight = None
        if mode == "code":
            said = float(self._run.networks[coefficient].online(*at).detach())
            weight = torch.tensor([float(abs(said - float(target)) >= DEAD_ZONE)], device=self._device)
        wanted = target.to(self._device, torch.get_default_dtype()).reshape(1, 1)
        return Regression(*at, wanted, weight)

    def _ratios(self, name: str, solve: Callable[[], Solved], steps: int, learning_rate: float,
                at_start: Callable[[], None] | None = None) -> Stage:  # fmt: skip
        """Both networks learn the ratios that are solved when the stage begins."""
        source = RatioSource(self._inputs(), solve, self._tell, steps, self._run.workers, self._device)

        def objective(coefficient: Coefficient, batch: Batch, draw: Draw) -> Regression:
            mine = self._nodes.free_image if coefficient == "image" else self._nodes.free_noise
            weight = torch.zeros(len(batch["t"]), device=self._device)
            weight[slice(None) if self._nodes.rates else mine] = PREFIT_WEIGHT
            return Regression(batch["t"], batch["node"], batch[coefficient][:, None], weight)

        def found() -> Findings:
            assert source.solved is not None
            arrays = {f"{name}/{key}": value for key, value in source.solved.arrays().items()}
            return Findings(source.solved.metrics(), arrays)

        return Stage(
            name, "image", source, partial(objective, "image"), 1, learning_rate, "cosine", at_start=at_start,
            at_end=found,
            follower=Follower("noise", partial(objective, "noise"), learning_rate=learning_rate), sampled=True,
        )  # fmt: skip

    def _inputs(self) -> tuple[Tensor, Tensor]:
        """Of the nodes; all over time where networks say rates, which any number of steps may ask for."""
        if not self._nodes.rates:
            return inputs_of(self._nodes, self._device)
        inputs = torch.linspace(0, 1, RATE_INPUTS, dtype=torch.float64, device=self._device)
        return inputs, torch.zeros(RATE_INPUTS, 1, dtype=torch.float64, device=self._device)

    def _shift(self, solved: Solved) -> None:
        for name, ratio in (("image", solved.image_ratio), ("noise", solved.noise_ratio)):
            for module in (self._run.networks[name].online, self._run.networks[name].average.module):
                shift: Any = getattr(module, "shift", None)
                if shift is not None:
                    shift(*inputs_of(self._nodes, self._device), ratio.to(self._device))

    def _tell(self, solved: Solved) -> bool:
        """Tables take ratios as they are."""
        told = False
        for name, ratio in (("image", solved.image_ratio), ("noise", solved.noise_ratio)):
            for module in (self._run.networks[name].online, self._run.networks[name].average.module):
                assign: Any = getattr(module, "assign", None)
                if assign is not None:
                    assign(ratio)
                    told = True
        return told


LOST = 2.0
"""Ends of the teacher beyond so many times the data's root mean square count less and less."""
DEAD_ZONE = 1e-4
"""The release's loss is 0 where a ratio is this near to its target; Adam's moments step on."""


def _in_sweep(turns: int, start: int, stop: int) -> Callable[[int], bool]:
    return lambda step: start <= step % turns < stop


def _in_nodes(order: list[int], mine: list[int]) -> Callable[[int], bool]:
    return lambda step: order[step % len(order)] in mine


def _nothing() -> None:
    pass

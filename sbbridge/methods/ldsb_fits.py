"""LDSB's ways to fit a path: their options."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeAlias, final

import pydantic

from sbbridge.config import Forbid, require, require_finite
from sbbridge.coupling import ODE_SCHEMES, Generation
from sbbridge.methods.cost import backward_calls
from sbbridge.objectives.features import FeatureDistance

Halves: TypeAlias = Literal["both", "reverse", "forward"]


def _at_least_one(config: Any, *names: str) -> None:
    require_finite(config)
    for name in names:
        require(getattr(config, name) >= 1, f"{name} must be >= 1, got {getattr(config, name)}")


@final
@dataclass(frozen=True)
class NoFit(Forbid):
    """The original path: the denoiser without optimisation."""

    kind: Literal["none"] = field(default="none", kw_only=True, repr=False)

    def cost(self, num_steps: int, batch_size: int) -> int:
        """Network evaluations: none."""
        return 0


@final
@dataclass(frozen=True)
class IPF(Forbid):
    """Alternating half-iterations as published: one Adam step a node towards its least-squares target (Eq. 12–19).

    Attributes:
        iterations: pairs of a reverse and a forward half.
        halves: one of the two alone is a control: the other path stays the original.
        mode: paper: all nodes, both coefficients on the same noise. code: what the release does beside: beta's sweep
            before alpha's, each with its own noise; alpha_0 trained although it is forced; forward halves leave node 0;
            no gradient where the ratio is within 1e-4 of its target. corrected: targets are the joint solution for a
            and b.
        epochs: parts of a half; each ends with a candidate for selection.
        batches: of a part.
        learning_rate: Adam's, constant.
        gradient_clip: largest norm of a step's gradient; 1 is the release's, 0 is none.
    """

    iterations: int = 2
    halves: Halves = "both"
    mode: Literal["paper", "code", "corrected"] = "code"
    epochs: int = 5
    batches: int = 20
    learning_rate: float = 1e-4
    gradient_clip: float = 1.0
    kind: Literal["ipf"] = field(default="ipf", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _at_least_one(self, "iterations", "epochs", "batches")
        require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}")
        require(self.gradient_clip >= 0, f"gradient_clip must be >= 0, got {self.gradient_clip}")

    def cost(self, num_steps: int, batch_size: int) -> int:
        """The denoiser's evaluations, at most: one an image, a coefficient, a node, and a half."""
        nodes = {"both": 4 * num_steps - 2, "reverse": 2 * num_steps, "forward": 2 * num_steps - 2}[self.halves]
        return self.iterations * self.epochs * self.batches * nodes * batch_size


@final
@dataclass(frozen=True)
class ExactIPF(Forbid):
    """The same half-iterations solved in closed form, from moments that one call a node and an image gives.

    Attributes:
        iterations, halves: as for `IPF`.
        images: of a half.
        solve: joint: a and b together; coordinate: b at the present a, then a at the new b, as published.
        damping: share of the way, in log a and log b, that a half goes.
        trust: largest change of log a and log b in a half.
        steps: with which the network learns the solved ratios; a table takes them as they are.
    """

    iterations: int = 2
    halves: Halves = "both"
    images: int = 12_800
    solve: Literal["joint", "coordinate"] = "joint"
    damping: float = 1.0
    trust: float = 0.5
    steps: int = 500
    kind: Literal["ipf_exact"] = field(default="ipf_exact", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _at_least_one(self, "iterations", "images", "steps")
        require(0 < self.damping <= 1, f"damping must be in (0, 1], got {self.damping}")
        require(self.trust > 0, f"trust must be > 0, got {self.trust}")

    def cost(self, num_steps: int, batch_size: int) -> int:
        """The denoiser's evaluations, at most: one an image, a node, and a half."""
        nodes = {"both": 2 * num_steps - 1, "reverse": num_steps, "forward": num_steps - 1}[self.halves]
        return self.iterations * nodes * self.images


@final
@dataclass(frozen=True)
class TeacherFit(Forbid):
    """What the subspace can do: its scalars fitted through the N-step sampler to a many-step teacher's end points.

    Minimises the mean distance of x̂(z) from x_teacher(z) over noise z; the teacher is the same denoiser's probability
    flow.

    Attributes:
        epochs: of the pairs; each ends with a candidate for selection.
        pairs: of noise and the teacher's end, made once.
        generation: how the teacher is integrated.
        learning_rate: Adam's, annealed.
        learn_times: the times at which the denoiser is called, too.
        order: 2 adds a scalar a node: the image estimate is extrapolated along its change since the last node.
        distance: pixels: the mean square. features: in the layers of the denoiser's own network, see
            `sbbridge.objectives.features.FeatureDistance`.
        feature_time: at which that network is asked for them.
        shared: numbers of steps that one pair of networks serves; the loss is the mean over them. The networks then say
            rates per unit of time in place of ratios per step (`sbbridge.methods.ldsb_paths.path_of`), and any other
            number of steps can be asked of them, too. Empty: ratios of `num_steps` alone.
    """

    epochs: int = 8
    pairs: int = 8192
    generation: Generation = Generation("heun", 50, "trailing_quadratic")
    learning_rate: float = 0.02
    learn_times: bool = False
    order: int = 1
    distance: Literal["pixels", "features"] = "pixels"
    feature_time: float = 0.1
    shared: tuple[int, ...] = ()
    kind: Literal["teacher"] = field(default="teacher", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _at_least_one(self, "epochs", "pairs")
        require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}")
        require(self.order in (1, 2), f"order must be 1 or 2, got {self.order}")
        require(0 < self.feature_time < 1, f"feature_time must be in (0, 1), got {self.feature_time}")
        distinct = len(set(self.shared)) == len(self.shared)
        require(distinct and min(self.shared, default=2) >= 2,
                f"shared must be different numbers of steps >= 2, got {list(self.shared)}")  # fmt: skip
        require(not self.shared or (self.order == 1 and not self.learn_times),
                "shared networks say rates alone: order must be 1 and learn_times false, which belong to one number of "
                "steps")  # fmt: skip
        scheme = self.generation.scheme
        require(scheme in ODE_SCHEMES, f"generation.scheme must be one of {', '.join(ODE_SCHEMES)}, got {scheme}")

    def cost(self, num_steps: int, batch_size: int) -> int:
        """The denoiser's evaluations: the teacher's paths once, then the student's in every epoch."""
        steps = self.shared or (num_steps,)
        calls = sum(steps) / len(steps) + (FeatureDistance.calls if self.distance == "features" else 0)
        drawn = min(self.pairs, max(1, self.pairs // batch_size) * batch_size)
        return self.pairs * backward_calls(self.generation) + round(self.epochs * drawn * calls)


@final
@dataclass(frozen=True)
class RandomPaths(Forbid):
    """A control that learns nothing: the original path and random changes of its log-ratios, best on validation wins.

    Attributes:
        candidates: paths tried beside the original.
        scale: standard deviation of the change of each log a_k / a_{k−1} and log b_k / b_{k+1}.
        steps: with which a network learns a candidate's ratios; a table takes them as they are.
    """

    candidates: int = 20
    scale: float = 0.1
    steps: int = 500
    kind: Literal["random"] = field(default="random", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        _at_least_one(self, "candidates", "steps")
        require(self.scale > 0, f"scale must be > 0, got {self.scale}")

    def cost(self, num_steps: int, batch_size: int) -> int:
        """Network evaluations: none; judging the candidates is not training."""
        return 0


PathFit: TypeAlias = Annotated[
    NoFit | IPF | ExactIPF | TeacherFit | RandomPaths, pydantic.Field(discriminator="kind")
]
"""Any way to fit a path, as a configuration `{"kind": none | ipf | ipf_exact | teacher | random, …}`."""

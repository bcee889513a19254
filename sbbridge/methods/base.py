"""A method is a generator of stages; a run is what its stages see; a solution is what they leave."""

import abc
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sbbridge.arguments import whole
from sbbridge.config import Forbid
from sbbridge.coupling import AbstractSource, Batch, SimulatedCoupling, Simulation, Workers
from sbbridge.data.arrays import as_argument
from sbbridge.networks import MLP, Network, Part, ResidualField
from sbbridge.objectives import Regression
from sbbridge.path import Denoiser, RatioNodes, RatioPath
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.solvers import Dynamics
from sbbridge.types import Field, Pair, State, Time

FIRST_TIME = 1e-5
"""Backward networks are trained for t in [FIRST_TIME, 1]."""


@dataclass
class Evaluations:
    """Network calls times samples, spent on simulating pairs and inside training steps."""

    simulation: int = 0
    optimisation: int = 0


@dataclass(frozen=True)
class Draw:
    """The random numbers of one training step: they depend on (stream, step, row) alone."""

    stream: Stream
    step: int
    rows: range
    total: int

    def time(self, low: float = 0.0, high: float = 1.0) -> Time:
        """One time a row, float64: uniform on [low, high] and stratified over the batch, row by row."""
        u = self.stream.child("t").uniform(self.step, self.rows)
        row = torch.arange(self.rows.start, self.rows.stop, device=u.device)
        return low + (high - low) * (row + u) / self.total

    def noise(self, like: State) -> State:
        """Standard normal numbers shaped as `like`."""
        return self.stream.child("noise").normal(self.step, self.rows, tuple(like.shape[1:]))


@dataclass
class TrainedNetwork:
    """A network and the average of its weights."""

    online: nn.Module
    average: AveragedModel


@dataclass
class Findings:
    """What a stage tells when it ends: numbers by name, and arrays for the report."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    n: int | None = None


Objective: TypeAlias = Callable[[Batch, Draw], Regression]
"""Batch and random numbers -> the regression to fit."""


def always(step: int) -> bool:
    """At every step."""
    return True


@dataclass(frozen=True)
class Follower:
    """A second network of a stage, trained on the same batches after the first, at the steps of an epoch that `due`."""

    network: str
    objective: Objective
    due: Callable[[int], bool] = always
    learning_rate: float | None = None


@dataclass(frozen=True)
class Stage:
    """One network, one objective, one source of batches, for a number of epochs.

    Attributes:
        name: unique within the method; names its random numbers, too.
        network: which of the run's networks is trained.
        source: where batches come from.
        objective: batch and random numbers -> the regression to fit.
        epochs: passes over what the source has ready.
        learning_rate: where it is not the run's.
        schedule: of the learning rate, where it is not the run's.
        gradient_clip: largest gradient norm, where it is not the run's.
        due: the steps of an epoch at which this network is trained.
        follower: another network that is trained in turn with this one (a generator after its fake score).
        at_start: runs when the stage begins afresh, not when it is resumed.
        at_end: what to measure when it is done.
        sampled: samples are drawn from this stage's network, so that its progress can be watched.
    """

    name: str
    network: str
    source: AbstractSource
    objective: Objective
    epochs: int
    learning_rate: float | None = None
    schedule: Literal["cosine", "constant"] | None = None
    gradient_clip: float | None = None
    due: Callable[[int], bool] = always
    follower: Follower | None = None
    at_start: Callable[[], None] | None = None
    at_end: Callable[[], Findings] | None = None
    sampled: bool = False


@dataclass
class Run:
    """What a method's stages see while they train.

    Attributes:
        findings: {stage: what it found when it ended}, of earlier sessions, too: a method may decide by them.
        autocast: the precision in which fields are simulated.
    """

    problem: BridgeProblem
    networks: dict[str, TrainedNetwork]
    stream: Stream
    workers: Workers
    batch_size: int
    evaluations: Evaluations = field(default_factory=Evaluations)
    findings: dict[str, dict[str, float]] = field(default_factory=dict)
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def copy_weights(self, source: str, *targets: str) -> None:
        """Weights and averages of one network into others."""
        for target in targets:
            self.networks[target].online.load_state_dict(self.networks[source].average.module.state_dict())
            self.networks[target].average.load_state_dict(self.networks[source].average.state_dict())

    def swap_weights(self, first: str, second: str) -> None:
        """Exchanges weights and averages of two networks, but for the counts of averaged steps: learners hold these."""
        for one, other in zip(vars(self.networks[first]).values(), vars(self.networks[second]).values(), strict=True):
            held, given = ({k: v.clone() for k, v in x.state_dict().items() if k != "n_averaged"} for x in (one, other))
            one.load_state_dict(given, strict=False)
            other.load_state_dict(held, strict=False)

    def steps(self, pairs: int) -> int:
        """Batches that make up so many pairs."""
        return max(1, pairs // self.batch_size)

    def simulated_field(self, name: str, ema: bool = True, count: bool = True) -> Field:
        """The network as a field without gradients whose calls are counted as simulation."""
        trained = self.networks[name]
        network: nn.Module = trained.average if ema else trained.online
        return self.simulated(network, count)

    def simulated(self, field: Field, count: bool = True) -> Field:
        """A field without gradients, in the run's precision, whose calls are counted as simulation."""

        @torch.no_grad()
        def call(t: Time, x: State) -> State:
            if count:
                self.evaluations.simulation += len(x)
            with self.autocast():
                value: State = field(t, x)
            return value.to(x)

        return call


class Method(abc.ABC, Forbid):
    """An algorithm for bridge problems; a frozen dataclass of its options. Knows no IO and no Ray."""

    kind: Any
    elastic: ClassVar[str]
    """The field of a whole number that `training.budget` stretches."""

    @property
    def sampled(self) -> str:
        """The network that samples are drawn from, before any distillation."""
        return "backward"

    @property
    def judged(self) -> tuple[str, ...]:
        """The networks whose weights count as the solution's size."""
        return (self.sampled,)

    @property
    def default_network(self) -> Network:
        """What a training takes that names none."""
        return MLP(width=64, depth=2)

    @property
    def selects(self) -> str | None:
        """What the judge is asked for, to choose among the candidates that sampled stages leave; None takes the last.

        validation or test: the quality on that split; teacher: the distance to the converged flow.
        """
        return None

    @abc.abstractmethod
    def cost(self, batch_size: int) -> int:
        """Network evaluations of a training: calls times samples, simulation included (an early stop costs less)."""

    @abc.abstractmethod
    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """The networks that this method trains, each with what is known of its field."""

    def network_for(self, name: str, network: Network) -> Network:
        """The configuration of one of this method's networks, given the run's."""
        return network

    def modules(self, problem: BridgeProblem, network: Network, initial: Callable[[str], int]) -> dict[str, nn.Module]:
        """New networks by name, given the seed of each one's weights."""
        return {
            name: ResidualField(self.network_for(name, network).build(problem.shape, initial(name)), part)
            for name, part in self.parts(problem).items()
        }

    @abc.abstractmethod
    def stages(self, run: Run) -> Iterator[Stage]:
        """The stages in order; code between two yields runs when the loop asks for the next stage, resumed or not."""

    @abc.abstractmethod
    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> "Solution":
        """What the trained networks mean."""


class Unsupported(AttributeError):
    """A method was asked for something that it does not have."""


@final
@dataclass(frozen=True)
class Solution:
    """A trained bridge: the fields it has, with numbers in and plain tensors out.

    Attributes:
        problem: what was solved.
        method: the method's kind.
        dynamics: the reference with the learned fields; those the method lacks are None.
        corrector_field: h(x) = ∇log phihat_1, if there is one.
        simulation: how forward paths are simulated.
        path: of the sampler ratio_path, with the `denoiser` that it was fitted for; None where there is none.
        path_nodes, path_grid: where it started from, and the name of that grid.
        device: where the networks live; inputs go there.
    """

    problem: BridgeProblem
    method: str
    dynamics: Dynamics
    corrector_field: Callable[[State], State] | None = None
    simulation: Simulation = Simulation()
    path: RatioPath | None = None
    path_nodes: RatioNodes | None = None
    path_grid: str = ""
    denoiser: Denoiser | None = None
    device: str = "cpu"

    @property
    def default_sampler(self) -> str:
        """The sampler that needs nothing but what the method has."""
        if self.path is not None:
            return "ratio_path"
        if self.dynamics.generator is not None:
            return "one_step"
        return "heun" if self.dynamics.velocity is not None else "exponential"

    def velocity(self, t: Any, x: Any) -> State:
        """dx/dt of a learned flow."""
        return self._call(self.dynamics.velocity, "velocity", t, x)

    def control(self, t: Any, x: Any) -> State:
        """∇log phi_t(x)."""
        return self._call(self.dynamics.control, "control", t, x)

    def backward_score(self, t: Any, x: Any) -> State:
        """∇log phihat_t(x)."""
        return self._call(self.dynamics.backward_score, "backward_score", t, x)

    def corrector(self, x: Any) -> State:
        """∇log phihat_1(x)."""
        if self.corrector_field is None:
            raise Unsupported(f"method {self.method} has no corrector")
        with torch.no_grad():
            return self.corrector_field(self._state(x))

    def couple(self, n: int, seed: int = 0) -> Pair:
        """n pairs (x0, x1): data through the learned forward SDE.

        Raises:
            Unsupported: the method has no control.
            ValueError: n is not a whole number >= 1.
        """
        n, seed = whole("n", n), whole("seed", seed, None)
        if self.dynamics.control is None:
            raise Unsupported(f"method {self.method} has no forward control, so it cannot couple")
        coupling = SimulatedCoupling(self.problem.data, self.dynamics, self.simulation)
        return coupling.draw(0, range(n), Stream(seed, ("couple",), self.device))

    def _call(self, field: Field | None, name: str, t: Any, x: Any) -> State:
        if field is None:
            raise Unsupported(f"method {self.method} has no {name}")
        with torch.no_grad():
            return field(torch.as_tensor(t, dtype=torch.float64, device=self.device), self._state(x))

    def _state(self, x: Any) -> State:
        return as_argument("x", x, self.problem.shape, self.device, finite=False)

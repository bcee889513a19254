"""From a solution to samples, with every network call counted."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from sbbridge.integrations.multistep import MULTISTEP, MultistepScheme, multistep
from sbbridge.methods import Solution
from sbbridge.path import node_times
from sbbridge.rng import Stream
from sbbridge.solvers import (
    BACKWARD,
    FORWARD,
    MEMORYLESS,
    BackwardScheme,
    Dynamics,
    Step,
    ddim,
    integrate,
    time_grid,
)
from sbbridge.types import Field, State, Time

Sampler: TypeAlias = Literal[BackwardScheme, MultistepScheme]
SAMPLERS: tuple[str, ...] = get_args(Sampler)


@final
@dataclass(frozen=True)
class Samples:
    """What a sampler made.

    Attributes:
        x: samples of the data, `[n, *shape]`.
        nfe: network calls a sample, counted (a sampler that calls two networks counts both).
        trajectory: `[num_steps + 1, n, *shape]` from prior to data, if asked for.
    """

    x: State
    nfe: int
    trajectory: Tensor | None = None


@torch.no_grad()
def sample(solution: Solution, n: int | None = None, num_steps: int = 20, *, sampler: str | None = None,
           grid: str = "trailing_uniform", seed: int = 0, x1: Any = None, batch_size: int = 8192,
           trajectory: bool = False, eta: float = 0.0, end_time: float = 0.0) -> Samples:  # fmt: skip
    """Runs the learned backward process from the prior to the data.

    Args:
        n: how many; may be left out where x1 says it.
        num_steps: steps of the grid.
        sampler: of SDEs: exponential, exponential_heun, ancestral (DDPM's where the reference is memoryless),
            euler_maruyama; of probability-flow ODEs: euler, heun; of denoisers (memoryless references, flows): ddim,
            edm_heun, dpm_solver_pp, dpm_solver_pp_3, unipc; of distilled methods: one_step. By default the method's.
        grid: a name of `sbbridge.path.NODE_GRIDS`.
        seed: sample i depends on (seed, i), not on n or batch_size.
        x1: prior points to start from, `[n, *shape]`; drawn from the prior when left out.
        trajectory: keep all states.
        eta: of ddim: 0 deterministic, 1 DDPM.
        end_time: where the last step ends; at 0 an SDE's is the denoised x0hat, at `sbbridge.solvers.SMALLEST_TIME` it
            keeps its noise, as the law of broad data wants.

    Raises:
        ValueError: an unknown sampler or grid, fewer than one step, or a sampler that needs a field the method lacks.
    """
    x1 = None if x1 is None else torch.as_tensor(x1, dtype=torch.get_default_dtype()).to(solution.device)
    n = len(x1) if x1 is not None else n
    if n is None or n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    times = node_times(grid, num_steps, solution.dynamics.log_snr)
    times = times.clamp(min=end_time)
    stream = Stream(seed, ("sample",), solution.device)

    def start(rows: range) -> State:
        return solution.problem.prior.draw(0, rows, stream.child("prior")) if x1 is None else x1[rows.start : rows.stop]

    return _run(solution, sampler, eta, times, start, n, stream.child("noise"), batch_size, trajectory)


@torch.no_grad()
def round_trip(solution: Solution, x0: Any, t: float, num_steps: int = 20, *, sampler: str | None = None,
               seed: int = 0) -> State:  # fmt: skip
    """Carries data to time t by the method's own forward process, and back: the localised coupling of ASBM's Fig. 5.

    Forward: the controlled SDE where there is a control, the reference where it is memoryless; for flows
    (1 − t) x0 + t x1, with x1 from the controlled SDE if the flow was learned from its pairs, from the prior if not.

    Args:
        x0: data, `[n, *shape]`.
        t: how far, in (0, 1].
        num_steps: steps of a uniform grid, either way.

    Raises:
        ValueError: t is not in (0, 1], the method's forward process is not known, or its only field is a generator and
            t < 1.
    """
    if not 0 < t <= 1:
        raise ValueError(f"t must be in (0, 1], got {t}")
    if solution.dynamics.generator is not None and t < 1:
        raise ValueError(f"a distilled {solution.method} only comes back from t = 1, got t = {t}")
    x0 = torch.as_tensor(x0, dtype=torch.get_default_dtype(), device=solution.device)
    stream = Stream(seed, ("round trip",), solution.device)
    x = _noised(solution, x0, t, num_steps, stream)
    times = t * node_times("trailing_uniform", num_steps)
    return _run(solution, sampler, 0.0, times, lambda rows: x[rows.start : rows.stop], len(x0),
                stream.child("backward"), 8192, False).x  # fmt: skip


def _noised(solution: Solution, x0: State, t: float, num_steps: int, stream: Stream) -> State:
    """Data carried to t by the method's forward process."""
    dynamics, rows = solution.dynamics, range(len(x0))

    def controlled(end: float) -> State:
        step, times = FORWARD[solution.simulation.scheme], end * time_grid(num_steps)
        return integrate(step, dynamics, times, x0, rows, stream.child("forward"))[0]

    if dynamics.velocity is not None:
        known = dynamics.control is not None
        x1 = controlled(1.0) if known else solution.problem.prior.draw(0, rows, stream.child("prior"))
        return (1 - t) * x0 + t * x1
    if dynamics.control is not None:
        return controlled(t)
    if not dynamics.reference.is_memoryless(MEMORYLESS):
        raise ValueError(f"method {solution.method} has no control, so its forward process is not known")
    return dynamics.reference.transition(0.0, t, x0, stream.child("forward").normal(0, rows, tuple(x0.shape[1:])))


def _run(solution: Solution, sampler: str | None, eta: float, times: Tensor, start: Any, n: int, noise: Stream,
         batch_size: int, trajectory: bool) -> Samples:  # fmt: skip
    sampler = sampler or solution.default_sampler
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r} (allowed: {', '.join(SAMPLERS)})")
    if not 0 <= eta <= 1 or (eta and sampler != "ddim"):
        raise ValueError(f"eta is of ddim, in [0, 1]; got {eta} with {sampler}")
    counter = _Counter()
    dynamics = counter.count(solution.dynamics)
    parts, paths, calls = [], [], 0
    for first in range(0, n, batch_size):
        rows = range(first, min(first + batch_size, n))
        counter.calls = 0
        step = _step(sampler, eta, dynamics, times)
        x0, path = integrate(step, dynamics, times, start(rows), rows, noise, trajectory)
        calls = counter.calls
        parts.append(x0)
        paths.append(path)
    whole = torch.cat([path for path in paths if path is not None], dim=1) if trajectory else None
    return Samples(torch.cat(parts), calls, whole)


def _step(sampler: str, eta: float, dynamics: Dynamics, times: Tensor) -> Step:
    if sampler in MULTISTEP:
        return multistep(sampler, dynamics, times)
    return partial(ddim.backward, eta=eta) if sampler == "ddim" else BACKWARD[sampler]


class _Counter:
    """Counts network calls for one batch."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, dynamics: Dynamics) -> Dynamics:
        wrapped = [
            self._wrap(field)
            for field in (dynamics.control, dynamics.backward_score, dynamics.velocity, dynamics.generator)
        ]
        return Dynamics(dynamics.reference, *wrapped)

    def _wrap(self, field: Field | None) -> Field | None:
        if field is None:
            return None

        def counted(t: Time, x: State) -> State:
            self.calls += 1
            return field(t, x)

        return counted

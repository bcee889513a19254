"""From a solution to samples, with every network call counted."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Literal, TypeAlias, final, get_args

import torch
from torch import Tensor

from sbbridge.arguments import instance, number, whole
from sbbridge.data.arrays import as_argument
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
from sbbridge.solvers.ratio_path import descend
from sbbridge.types import Field, State, Time

Sampler: TypeAlias = Literal[BackwardScheme, MultistepScheme, "ratio_path"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
STOCHASTIC = ("ddim", "ratio_path")
"""Samplers that draw a share eta of their noise anew."""


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
def sample(solution: Solution, n: int | None = None, num_steps: int | None = None, *, sampler: str | None = None,
           grid: str = "trailing_uniform", seed: int = 0, x1: Any = None, batch_size: int = 8192,
           trajectory: bool = False, eta: float = 0.0, end_time: float = 0.0) -> Samples:  # fmt: skip
    """Runs the learned backward process from the prior to the data.

    Args:
        n: how many; may be left out where x1 says it.
        num_steps: steps of the grid; 20 by default, or those that the method's own path has.
        sampler: of SDEs: exponential, exponential_heun, ancestral (DDPM's where the reference is memoryless),
            euler_maruyama; of probability-flow ODEs: euler, heun; of denoisers (memoryless references, flows): ddim,
            edm_heun, dpm_solver_pp, dpm_solver_pp_3, unipc; of distilled methods: one_step; of LDSB: ratio_path, whose
            nodes are its own: `grid` is not used, and `num_steps` must be theirs. By default the method's.
        grid: a name of `sbbridge.path.NODE_GRIDS`.
        seed: sample i depends on (seed, i), not on n or batch_size.
        x1: prior points to start from, `[n, *shape]`; drawn from the prior when left out.
        trajectory: keep all states.
        eta: of ddim and ratio_path: 0 deterministic, 1 DDPM.
        end_time: where the last step ends; at 0 an SDE's is the denoised x0hat, at `sbbridge.solvers.SMALLEST_TIME` it
            keeps its noise, as the law of broad data wants.

    Raises:
        ValueError: an argument of a wrong type or range, x1 of another shape or number than n, an unknown sampler or
            grid, a sampler that needs a field the method lacks, or a prior that is not where noised data end though the
            method starts from there.
    """
    instance("solution", solution, Solution, "a Solution such as fit(…) returns")
    n, x1 = _starts(solution, n, x1)
    sampler = solution.default_sampler if sampler is None else sampler
    num_steps = None if num_steps is None else whole("num_steps", num_steps)
    seed, batch_size = whole("seed", seed, None), whole("batch_size", batch_size)
    eta = number("eta", eta, "[0, 1]", -math.inf, math.inf)  # its range is the sampler's, see below
    end_time = number("end_time", end_time, "[0, 1)", 0, 1, open_high=True)
    instance("trajectory", trajectory, bool, "True or False")
    if num_steps is None:
        num_steps = len(solution.path) if sampler == "ratio_path" and solution.path is not None else 20
    if sampler == "ratio_path":
        _refuse_eta(eta, sampler)
        if end_time:
            raise ValueError(f"end_time is not of ratio_path, whose nodes are its own; got {end_time}")
        return _along_path(solution, n, num_steps, x1, seed, batch_size, trajectory, eta)
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
        ValueError: an argument of a wrong type, range or shape, the method's forward process is not known, or its only
            field is a generator and t < 1.
    """
    instance("solution", solution, Solution, "a Solution such as fit(…) returns")
    t = number("t", t, "(0, 1]", 0, 1, open_low=True)
    num_steps, seed = whole("num_steps", num_steps), whole("seed", seed, None)
    if solution.dynamics.generator is not None and t < 1:
        raise ValueError(f"a distilled {solution.method} only comes back from t = 1, got t = {t}")
    x0 = as_argument("x0", x0, solution.problem.shape, solution.device)
    stream = Stream(seed, ("round trip",), solution.device)
    x = _noised(solution, x0, t, num_steps, stream)
    times = t * node_times("trailing_uniform", num_steps)
    return _run(solution, sampler, 0.0, times, lambda rows: x[rows.start : rows.stop], len(x0),
                stream.child("backward"), 8192, False).x  # fmt: skip


def _starts(solution: Solution, n: Any, x1: Any) -> tuple[int, State | None]:
    """How many samples, and the given starts; else the prior must be one that they can start from."""
    if x1 is not None:
        x1 = as_argument("x1", x1, solution.problem.shape, solution.device)
        if n is not None and whole("n", n) != len(x1):
            raise ValueError(f"n must be the number of rows of x1, {len(x1)}, or be left out; got {n}")
        return len(x1), x1
    dynamics = solution.dynamics
    scored = dynamics.backward_score is not None and dynamics.control is None and dynamics.velocity is None
    if scored and solution.denoiser is None and dynamics.reference.is_memoryless(MEMORYLESS):
        solution.problem.require_noise(f"sample of {solution.method}")
    return whole("n", n), None


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
    sampler = solution.default_sampler if sampler is None else sampler
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r} (allowed: {', '.join(SAMPLERS)})")
    if sampler == "ratio_path":
        raise ValueError("sampler ratio_path starts from noise at its own first node: name another sampler")
    _refuse_eta(eta, sampler)
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


def _refuse_eta(eta: float, sampler: str) -> None:
    if not 0 <= eta <= 1 or (eta and sampler not in STOCHASTIC):
        raise ValueError(f"eta is of {' and '.join(STOCHASTIC)}, in [0, 1]; got {eta} with {sampler}")


def _along_path(solution: Solution, n: int, num_steps: int, x1: State | None, seed: int, batch_size: int,
                trajectory: bool, eta: float) -> Samples:  # fmt: skip
    """LDSB's sampler, whose path belongs to one number of steps."""
    path, denoiser = solution.path, solution.denoiser
    if path is None or denoiser is None:
        raise ValueError(f"sampler ratio_path needs a path, which method {solution.method} does not have")
    if num_steps != len(path):
        raise ValueError(f"this path was fitted for {len(path)} steps, not for {num_steps}")
    counter, stream = _Counter(), Stream(seed, ("sample",), solution.device)
    counted = replace(denoiser, field=counter.wrap(denoiser.field))
    parts, shape, anew = [], solution.problem.prior.shape, stream.child("noise")
    for first in range(0, n, batch_size):
        rows = range(first, min(first + batch_size, n))
        prior, steps = solution.problem.prior, count()

        def noise(rows: range = rows, steps: Iterator[int] = steps) -> State:
            return anew.normal(next(steps), rows, shape)

        x = prior.draw(0, rows, stream.child("prior")) if x1 is None else x1[rows.start : rows.stop]
        counter.calls = 0
        states = [x, *descend(counted, path, x, eta, noise)]
        parts.append(torch.stack(states if trajectory else states[-1:]))
    whole = torch.cat(parts, dim=1)
    return Samples(whole[-1], counter.calls, whole if trajectory else None)


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
            None if field is None else self.wrap(field)
            for field in (dynamics.control, dynamics.backward_score, dynamics.velocity, dynamics.generator)
        ]
        return Dynamics(dynamics.reference, *wrapped)

    def wrap(self, field: Field) -> Field:
        """The field, counting."""

        def counted(t: Time, x: State) -> State:
            self.calls += 1
            return field(t, x)

        return counted

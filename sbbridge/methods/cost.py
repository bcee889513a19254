"""What a training costs before it runs: network evaluations of the stages' sources and of their optimiser steps."""

import dataclasses
from typing import Any, TypeVar

from sbbridge.config import ConfigurationError
from sbbridge.coupling import Generation, Simulation

M = TypeVar("M", bound=Any)


def fresh(pairs: int, epochs: int, batch_size: int) -> int:
    """Of `epochs` passes over `pairs` fresh pairs, in whole batches."""
    return epochs * max(1, pairs // batch_size) * batch_size


def buffer(new: int, capacity: int, epochs: int, batch_size: int, *, calls: int = 0, every: int = 1) -> int:
    """Of `epochs` over a FIFO buffer that gets `new` pairs every so many epochs, each at `calls` network calls."""
    capacity, total = max(capacity, new), 0
    for epoch in range(epochs):
        held = min(capacity, new * (1 + epoch // every))
        total += min(held, max(1, held // batch_size) * batch_size)
    return total + -(-epochs // every) * new * calls


def forward_calls(simulation: Simulation) -> int:
    """Network calls of one simulated forward path."""
    return simulation.num_steps * (2 if simulation.scheme == "exponential_heun" else 1)


def backward_calls(generation: Generation, networks: int = 1, velocity: bool = False) -> int:
    """Network calls of one generated path.

    Args:
        generation: how it is integrated.
        networks: that a call of the probability flow takes.
        velocity: it is a learned flow: `edm_heun`'s first step, from infinite sigma, is then DDIM's.
    """
    n, calls = generation.num_steps, generation.num_steps
    if generation.scheme in ("heun", "edm_heun", "exponential_heun"):
        leading = generation.grid.startswith("leading")
        calls = 2 * n - min(n, 2 if leading or (velocity and generation.scheme == "edm_heun") else 1)
    return calls * (networks if generation.scheme in ("heun", "euler") else 1)


def within(method: M, budget: int, batch_size: int) -> M:
    """The method with its elastic field at the largest value whose cost is within the budget.

    Raises:
        ConfigurationError: even the smallest value costs more.
    """
    name = method.elastic
    if not name:
        raise ConfigurationError(f"training.budget: {method.kind} trains scalars; set the options of method.fit")

    def at(value: int) -> M:
        return dataclasses.replace(method, **{name: value})

    least = at(1).cost(batch_size)
    if least > budget:
        raise ConfigurationError(
            f"training.budget = {budget}: {method.kind} with these options needs at least {least} network evaluations"
        )
    low, high = 1, 2
    while at(high).cost(batch_size) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle).cost(batch_size) <= budget else (low, middle)
    return at(low)

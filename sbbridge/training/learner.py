"""A network in training: its optimiser, its average, and how often it learns."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sbbridge.methods import Method, Stage, TrainedNetwork
from sbbridge.methods.base import Follower, Objective
from sbbridge.networks import Averaging, Network, averaged
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.training.compute import Compute
from sbbridge.training.config import Training


@dataclass(frozen=True)
class Learner:
    """One network that a stage trains.

    Attributes:
        network: its name in the run.
        names: what its random numbers are called below the stage's; empty for the stage's own network.
        model: what is called in training (parallel, compiled).
        averaging: moves the average.
        drops: whether it has dropout.
        rate: learning rate at the start of the stage.
        schedule: how it goes on.
    """

    network: str
    names: tuple[str, ...]
    objective: Objective
    due: Callable[[int], bool]
    trained: TrainedNetwork
    model: nn.Module
    optimiser: torch.optim.Optimizer
    averaging: Averaging
    drops: bool
    rate: float
    schedule: str

    @property
    def online(self) -> nn.Module:
        """The network itself."""
        return self.trained.online

    def set_learning_rate(self, progress: float) -> None:
        """By the schedule, at this share of the stage."""
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
        factor = cosine if self.schedule == "cosine" else 1.0
        for group in self.optimiser.param_groups:
            group["lr"] = factor * self.rate

    def synchronised(self, last: bool) -> AbstractContextManager[Any]:
        """Workers exchange gradients only after the last part of a batch."""
        if last or not isinstance(self.model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()


def learners_of(stage: Stage, networks: dict[str, TrainedNetwork], training: Training, compute: Compute,
                workers: int) -> list[Learner]:  # fmt: skip
    """The stage's own network, and its follower."""
    first = Follower(stage.network, stage.objective, stage.due, stage.learning_rate)
    learners = []
    for follower in (first, stage.follower) if stage.follower else (first,):
        trained = networks[follower.network]
        trained.online.train()
        parameters = [p for p in trained.online.parameters() if p.requires_grad]
        rate = follower.learning_rate or training.learning_rate
        optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=training.weight_decay, fused=True)
        model = compute.compiled(trained.online)
        if workers > 1:
            model = nn.parallel.DistributedDataParallel(model)
        names = () if follower is first else (follower.network,)
        averaging = Averaging(trained.average, trained.online, training.ema_decay)
        drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in trained.online.modules())
        learners.append(
            Learner(follower.network, names, follower.objective, follower.due, trained, model, optimiser, averaging,
                    drops, rate, stage.schedule or training.schedule)
        )  # fmt: skip
    return learners


def build_networks(method: Method, problem: BridgeProblem, network: Network, training: Training, seed: int,
                   compute: Compute) -> dict[str, TrainedNetwork]:  # fmt: skip
    """The method's networks with weights that depend on the seed and their names alone."""

    def initial(name: str) -> int:
        return int(torch.randint(2**31, (), generator=Stream(seed, ("weights", name)).generator()))

    networks = {}
    for name, module in method.modules(problem, network, initial).items():
        online = compute.prepare(module.to(compute.device))
        networks[name] = TrainedNetwork(online, averaged(online))
    return networks

"""A reporter that keeps what the loop tells it, checkpoints as bytes."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sbbridge.coupling import Simulation, Workers
from sbbridge.methods import ASBM
from sbbridge.networks import MLP
from sbbridge.problems import GaussianBridge
from sbbridge.sde import VPSDE
from sbbridge.training import Reporter, Trainer, Training
from sbbridge.training.checkpoint import from_bytes, to_bytes


class Killed(Exception):
    """Stands for the signal that ends a worker."""


class Recorder(Reporter):
    """Keeps every checkpoint; may die after some of them, and may start from one."""

    def __init__(
        self, start: bytes | None = None, die_after: int | None = None, workers: Workers | None = None
    ) -> None:
        super().__init__(workers)
        self.start, self.die_after = start, die_after
        self.saved: list[bytes] = []
        self.told: list[tuple[str, int, dict[str, float], int | None]] = []
        self.kept: dict[str, dict[str, Tensor]] = {}

    def save(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        self.saved.append(to_bytes(tensors, position))
        if len(self.saved) == self.die_after:
            raise Killed

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return from_bytes(self.start) if self.start else None

    def metrics(self, stage: str, step: int, values: Mapping[str, float], n: int | None = None) -> None:
        self.told.append((stage, step, dict(values), n))

    def arrays(self, name: str, arrays: Mapping[str, Tensor]) -> None:
        self.kept.setdefault(name, {}).update(arrays)


SMALL_NETWORK = MLP(width=8, depth=1, time_frequencies=4)
EVERY_STEP = 1e-9
"""checkpoint_seconds that saves after every step."""


def problem() -> GaussianBridge:
    return GaussianBridge(0.7, 2.0, 0.0, 1.0, VPSDE())


def tiny(**options: Any) -> ASBM:
    """A whole ASBM run of some forty steps."""
    settings = {
        "cycles": 2, "corrector_epochs": 1, "adjoint_epochs": 2, "new_pairs": 64, "buffer_size": 96,
        "backward_epochs": 2, "backward_pairs": 64, "reuse": 1, "terminal_samples": 64,
        "simulation": Simulation(num_steps=2),
    }  # fmt: skip
    return ASBM(**(settings | options))


def trainer(method: ASBM, reporter: Reporter, batch_size: int = 16, **options: Any) -> Trainer:
    training = Training(batch_size=batch_size, checkpoint_seconds=EVERY_STEP, **options)
    return Trainer(method, problem(), SMALL_NETWORK, training, 3, reporter)


def weights(trained: Trainer) -> dict[str, Tensor]:
    """Every number that training changes, copied."""
    return {
        f"{name}/{kind}/{key}": value.clone()
        for name, network in trained.networks.items()
        for kind, module in (("online", network.online), ("average", network.average))
        for key, value in module.state_dict().items()
    }


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The names whose tensors are not equal bit for bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]

"""Every implementation of an interface: a subclass without an instance here fails the contracts."""

import importlib
import inspect
import pkgutil
from typing import Any

import torch

from sbbridge.coupling import (
    AbstractCoupling,
    IndependentCoupling,
    MinibatchOTCoupling,
    ReferenceCoupling,
    SimulatedCoupling,
    Simulation,
)
from sbbridge.data import AbstractDistribution, Gaussian, GaussianMixture, StandardNormal, TensorData, Toy2D
from sbbridge.problems import GaussianBridge, MixtureBridge
from sbbridge.sde import VPSDE
from sbbridge.solvers import Dynamics
from tests.oracles import REFERENCES

PROBLEM = GaussianBridge(
    [0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], VPSDE(beta_max=20.0)
)
DYNAMICS = Dynamics(PROBLEM.reference, PROBLEM.control, PROBLEM.backward_score)

DISTRIBUTIONS: dict[str, AbstractDistribution] = {
    "standard normal": StandardNormal((1, 2, 2), 1.3),
    "gaussian": PROBLEM.data,
    "mixture": GaussianMixture([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.5, 0.3]),
    "tensor": TensorData(torch.arange(12.0).reshape(3, 1, 2, 2)),
    "checkerboard": Toy2D("checkerboard"), "moons": Toy2D("moons"), "swiss roll": Toy2D("swiss_roll"),
    "mixture bridge's end": MixtureBridge([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.5, 0.3], VPSDE()).data,
}  # fmt: skip
COUPLINGS: dict[str, AbstractCoupling] = {
    "independent": IndependentCoupling(PROBLEM.data, PROBLEM.prior),
    "reference": ReferenceCoupling(PROBLEM.data, PROBLEM.reference),
    "minibatch": MinibatchOTCoupling(IndependentCoupling(PROBLEM.data, PROBLEM.prior)),
    "simulated": SimulatedCoupling(PROBLEM.data, DYNAMICS, Simulation(num_steps=2, batch_size=100)),
}
WITH_DENSITY = {
    name: law for name, law in DISTRIBUTIONS.items() if isinstance(law, StandardNormal | Gaussian | GaussianMixture)
}
REFERENCE_INSTANCES = REFERENCES


def members(interface: type[Any], package: Any) -> set[type[Any]]:
    """Every concrete class of the package that implements the interface, private ones included."""
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

    def below(class_: type[Any]) -> set[type[Any]]:
        return {class_}.union(*map(below, class_.__subclasses__()))

    return {c for c in below(interface) if not inspect.isabstract(c) and c.__module__.startswith("sbbridge")}

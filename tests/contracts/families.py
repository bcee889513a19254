"""Every implementation of an interface: a subclass without an instance here fails the contracts."""

import importlib
import inspect
import pkgutil
from typing import Any

import torch

from sbbridge.coupling import (
    AbstractCoupling,
    GeneratedCoupling,
    Generation,
    IndependentCoupling,
    MinibatchOTCoupling,
    MinibatchSinkhornCoupling,
    ReferenceCoupling,
    SimulatedCoupling,
    Simulation,
)
from sbbridge.data import (
    AbstractDistribution,
    DoubleWell,
    EnergyPrior,
    Gaussian,
    GaussianMixture,
    ImageData,
    StandardNormal,
    TensorData,
    Toy2D,
)
from sbbridge.data.latents import LatentData, LatentShard
from sbbridge.methods import (
    ASBM,
    DSB,
    DSBMIMF,
    DSBMIPF,
    LDSB,
    OTCFM,
    Distillation,
    FlowMatching,
    Method,
    RectifiedFlow,
    ScoreMatchingVE,
    ScoreMatchingVP,
    SimplifiedDSB,
    TeacherFit,
)
from sbbridge.methods.denoisers import exact_denoiser
from sbbridge.problems import BridgeProblem, DenoisingProblem, GaussianBridge, MixtureBridge
from sbbridge.sde import VESDE, VPSDE
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
    "images": ImageData(torch.arange(72, dtype=torch.uint8).reshape(6, 3, 2, 2), flip=True),
    "latents": LatentData([LatentShard(torch.ones(n, 4, 2, 2).half(), torch.ones(n, 4, 2, 2).half()) for n in (2, 1)],
                          scale=0.2),
    "energy": EnergyPrior(lambda x: x.square().sum((1, 2, 3)) / 2, (1, 2, 2), StandardNormal((1, 2, 2))),
    "double well": DoubleWell(),
    "checkerboard": Toy2D("checkerboard"), "moons": Toy2D("moons"), "swiss roll": Toy2D("swiss_roll"),
    "mixture bridge's end": MixtureBridge([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.5, 0.3], VPSDE()).data,
}  # fmt: skip
COUPLINGS: dict[str, AbstractCoupling] = {
    "independent": IndependentCoupling(PROBLEM.data, PROBLEM.prior),
    "reference": ReferenceCoupling(PROBLEM.data, PROBLEM.reference),
    "minibatch": MinibatchOTCoupling(IndependentCoupling(PROBLEM.data, PROBLEM.prior)),
    "minibatch sinkhorn": MinibatchSinkhornCoupling(IndependentCoupling(PROBLEM.data, PROBLEM.prior), VPSDE()),
    "simulated": SimulatedCoupling(PROBLEM.data, DYNAMICS, Simulation(num_steps=2, batch_size=100)),
    "generated": GeneratedCoupling(PROBLEM.prior, DYNAMICS, Generation(num_steps=2, batch_size=100)),
}
METHODS: dict[str, Method] = {
    "asbm": ASBM(),
    "asbm, flow, distilled": ASBM(student="flow", reflow=1, damping=0.5, distillation=Distillation()),
    "score_matching_vp": ScoreMatchingVP(),
    "score_matching_ve": ScoreMatchingVE(warm_start="gaussian"),
    "flow_matching": FlowMatching(distillation=Distillation(weight="bridge")),
    "rectified_flow": RectifiedFlow(), "ot_cfm": OTCFM(), "dsb": DSB(), "simplified_dsb": SimplifiedDSB(),
    "dsbm_ipf": DSBMIPF(), "dsbm_imf": DSBMIMF(generation=Generation("ancestral")),
    "ldsb": LDSB(num_steps=3), "ldsb to a teacher": LDSB(num_steps=3, fit=TeacherFit(order=2, learn_times=True)),
}  # fmt: skip


def problem_for(method: Method) -> BridgeProblem:
    """The memoryless problem, with the reference or the denoiser that the method is for."""
    if method.kind == "ldsb":
        one = torch.ones(1)
        exact = exact_denoiser(one, PROBLEM.mean0[None], PROBLEM.cov0[None], "vp", PROBLEM.reference)
        return DenoisingProblem(PROBLEM.data, PROBLEM.prior, PROBLEM.reference, exact)
    if method.kind != "score_matching_ve":
        return PROBLEM
    reference = VESDE(sigma_max=30.0)
    prior = reference.terminal_variance * torch.eye(2)
    return GaussianBridge(PROBLEM.mean0, PROBLEM.cov0, [0.0, 0.0], prior, reference)


WITH_DENSITY = {
    name: law
    for name, law in DISTRIBUTIONS.items()
    if isinstance(law, DoubleWell | EnergyPrior | StandardNormal | Gaussian | GaussianMixture)
}
REFERENCE_INSTANCES = REFERENCES


def members(interface: type[Any], package: Any) -> set[type[Any]]:
    """Every concrete class of the package that implements the interface, private ones included.

    Bases of several methods are called Abstract…, though none of their functions is.
    """
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)

    def below(class_: type[Any]) -> set[type[Any]]:
        return {class_}.union(*map(below, class_.__subclasses__()))

    concrete = (c for c in below(interface) if not inspect.isabstract(c) and not c.__name__.startswith("Abstract"))
    return {c for c in concrete if c.__module__.startswith("sbbridge")}

"""Which (x0, x1) are paired, and where training takes its batches from."""

from sbbridge.coupling.base import AbstractCoupling
from sbbridge.coupling.buffer import AbstractSource, Batch, BufferSource, FreshSource
from sbbridge.coupling.generated import ODE_SCHEMES, GeneratedCoupling, Generation
from sbbridge.coupling.independent import IndependentCoupling, ReferenceCoupling
from sbbridge.coupling.minibatch_ot import MinibatchOTCoupling
from sbbridge.coupling.simulated import SimulatedCoupling, Simulation
from sbbridge.coupling.sinkhorn import MinibatchSinkhornCoupling
from sbbridge.coupling.terminal import TerminalTest, match_moments, terminal_test
from sbbridge.coupling.trajectories import TrajectorySource, step_pair
from sbbridge.coupling.two_sample import ClassifierTest, SlicedWasserstein, classifier_two_sample, sliced_wasserstein
from sbbridge.coupling.workers import DistributedWorkers, Workers

__all__ = [
    "ODE_SCHEMES", "AbstractCoupling", "AbstractSource", "Batch", "BufferSource", "ClassifierTest",
    "DistributedWorkers", "FreshSource", "GeneratedCoupling", "Generation", "IndependentCoupling",
    "MinibatchOTCoupling", "MinibatchSinkhornCoupling", "ReferenceCoupling", "SimulatedCoupling", "Simulation",
    "SlicedWasserstein", "TerminalTest", "TrajectorySource", "Workers", "classifier_two_sample", "match_moments",
    "sliced_wasserstein", "step_pair", "terminal_test",
]  # fmt: skip

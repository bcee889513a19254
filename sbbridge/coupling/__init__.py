"""Which (x0, x1) are paired, and where training takes its batches from."""

from sbbridge.coupling.base import AbstractCoupling
from sbbridge.coupling.buffer import AbstractSource, Batch, BufferSource, FreshSource
from sbbridge.coupling.independent import IndependentCoupling, ReferenceCoupling
from sbbridge.coupling.minibatch_ot import MinibatchOTCoupling
from sbbridge.coupling.simulated import SimulatedCoupling, Simulation
from sbbridge.coupling.terminal import TerminalTest, match_moments, terminal_test
from sbbridge.coupling.workers import DistributedWorkers, Workers

__all__ = [
    "AbstractCoupling", "AbstractSource", "Batch", "BufferSource", "DistributedWorkers", "FreshSource",
    "IndependentCoupling", "MinibatchOTCoupling", "ReferenceCoupling", "SimulatedCoupling", "Simulation",
    "TerminalTest", "Workers", "match_moments", "terminal_test",
]  # fmt: skip

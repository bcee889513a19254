"""The only optimiser loop, its checkpoints, and what it sees of the world."""

from sbbridge.training.config import Training
from sbbridge.training.fit import fit, selected, solution_of
from sbbridge.training.loop import DivergenceError, Trainer
from sbbridge.training.reporter import Reporter

__all__ = ["DivergenceError", "Reporter", "Trainer", "Training", "fit", "selected", "solution_of"]

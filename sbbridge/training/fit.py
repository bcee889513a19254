"""From a method and a problem to a solution."""

from collections.abc import Callable
from dataclasses import replace

from sbbridge.arguments import instance, whole
from sbbridge.methods import Method, Solution
from sbbridge.networks import Network
from sbbridge.problems import BridgeProblem
from sbbridge.training.config import Training
from sbbridge.training.loop import Trainer
from sbbridge.training.reporter import Reporter


def fit(method: Method, problem: BridgeProblem, *, seed: int = 0, network: Network | None = None,
        training: Training | None = None, reporter: Reporter | None = None,
        judge: Callable[[Solution, str], float] | None = None) -> Solution:  # fmt: skip
    """Trains a method on a problem, with averaged weights in the solution.

    Args:
        seed: of weights, data order and noise; equal seeds give equal solutions on one CPU.
        network: every network of the method is built from this; by default the method's `default_network`.
        training: options of the optimiser loop.
        reporter: where checkpoints and numbers go, and where to continue from; none by default.
        judge: (candidate, criterion) -> a score, less is better; a method that selects among candidates asks it for
            what its `selects` names, and takes the last of them without one.

    Raises:
        ValueError: an argument of a wrong type, or a problem that is not one for this method.
        DivergenceError: a loss is not finite.
    """
    instance("method", method, Method, "a method such as ASBM()")
    instance("problem", problem, BridgeProblem, "a BridgeProblem")
    if network is not None and (isinstance(network, type) or not hasattr(network, "build")):
        instance("network", network, (), "a network such as MLP()")
    instance("training", training, (Training, type(None)), "a Training")
    instance("reporter", reporter, (Reporter, type(None)), "a Reporter")
    seed = whole("seed", seed, None)
    if judge is not None and not callable(judge):
        raise ValueError(f"judge must be a function (candidate, criterion) -> score, got {type(judge).__name__}")
    chosen = network or method.default_network
    trainer = Trainer(method, problem, chosen, training or Training(), seed, reporter or Reporter())
    if judge is not None:
        trainer.judge = lambda criterion: judge(solution_of(trainer), criterion)
    trainer.train()
    return selected(trainer)


def selected(trainer: Trainer) -> Solution:
    """The best candidate where some were judged, else what was trained last."""
    for name, state in trainer.best.items():
        trainer.networks[name].average.load_state_dict(state)
    return solution_of(trainer)


def solution_of(trainer: Trainer) -> Solution:
    """What a trainer's averaged networks mean, as they are now."""
    averages = {name: trained.average for name, trained in trainer.networks.items()}
    return replace(trainer.method.solution(trainer.run.problem, averages), device=trainer.reporter.device)

"""The stages of ASBM: where each takes its pairs and what it fits."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from sbbridge.coupling import (
    AbstractCoupling,
    AbstractSource,
    Batch,
    BufferSource,
    FreshSource,
    IndependentCoupling,
    MinibatchOTCoupling,
    MinibatchSinkhornCoupling,
    ReferenceCoupling,
    SimulatedCoupling,
    Simulation,
    match_moments,
    terminal_test,
)
from sbbridge.methods.base import Draw, Findings, Run, Stage
from sbbridge.methods.flow import flow_stages
from sbbridge.methods.prediction import BackwardScore
from sbbridge.objectives import Regression, adjoint_matching, corrector_matching, forward_bridge_matching
from sbbridge.solvers import Dynamics
from sbbridge.types import Field, Pair

if TYPE_CHECKING:
    from sbbridge.methods.asbm import ASBM

LAST_TIME = 1 - 1e-3
"""Forward bridge matching is trained for t in [0, LAST_TIME]: its target is unbounded at 1."""


_SHOWN = ("terminal_norm_mean_error", "terminal_norm_variance_error", "terminal_covariance_error",
          "terminal_sliced_wasserstein", "terminal_classifier_accuracy")  # fmt: skip


class TerminalTestError(RuntimeError):
    """Stage 1 did not reach the prior's law, which `must_pass` demands."""


def forward_bridge(method: "ASBM", run: Run) -> Stage:
    """The control, fitted to bridges between independent ends."""
    independent = IndependentCoupling(run.problem.data, run.problem.prior)

    def objective(batch: Batch, draw: Draw) -> Regression:
        t = draw.time(0.0, LAST_TIME)
        return forward_bridge_matching(run.problem.reference, t, batch["x0"], batch["x1"], draw.noise(batch["x0"]))

    return Stage(
        name="forward bridge",
        network="control",
        source=FreshSource(independent, run.steps(method.new_pairs), run.stream.child("forward bridge"), run.workers),
        objective=objective,
        epochs=method.cycles * (method.corrector_epochs + method.adjoint_epochs),
        at_end=lambda: terminal(method, run, 0),
    )


def corrector(method: "ASBM", run: Run, cycle: int) -> Stage:
    """h, fitted to pairs of the present forward process; at first those of the reference itself."""
    name = f"cycle {cycle}: corrector"
    coupling: AbstractCoupling = simulated(method, run, method.corrector_simulation)
    if cycle == 1 and method.warm_start == "none":
        coupling = ReferenceCoupling(run.problem.data, run.problem.reference)

    def objective(batch: Batch, draw: Draw) -> Regression:
        return corrector_matching(run.problem.reference, batch["x0"], batch["x1"])

    return Stage(name, "corrector", _buffer(method, run, coupling, name), objective, method.corrector_epochs)


def adjoint(method: "ASBM", run: Run, cycle: int) -> Stage:
    """u, fitted to the adjoints of its own end points."""
    name = f"cycle {cycle}: adjoint"
    field = run.simulated_field("corrector")

    def terminal_adjoint(pair: Pair) -> Batch:
        one = torch.ones((), dtype=torch.float64)
        return {"adjoint": field(one, pair.x1) - run.problem.prior.score(pair.x1)}

    def objective(batch: Batch, draw: Draw) -> Regression:
        regression = adjoint_matching(
            run.problem.reference, draw.time(), batch["x0"], batch["x1"], batch["adjoint"], draw.noise(batch["x0"])
        )
        return regression if method.damping == 1 else _damped(regression, previous, method.damping)

    previous = run.simulated_field("previous_control") if method.damping < 1 else field
    return Stage(
        name,
        "control",
        _buffer(method, run, simulated(method, run), name, terminal_adjoint),
        objective,
        method.adjoint_epochs,
        at_start=(lambda: run.copy_weights("control", "previous_control")) if method.damping < 1 else None,
        at_end=lambda: terminal(method, run, cycle),
    )


def student(method: "ASBM", run: Run) -> Iterator[Stage]:
    """Stage 2: the backward network, or a flow, on the coupling that stage 1 has found."""
    source = _student_source(method, run)
    if method.student == "flow":
        yield from flow_stages(
            run, source, method.backward_epochs, method.reflow, method.reflow_epochs, method.backward_pairs,
            method.reuse, method.generation, method.backward_learning_rate,
        )  # fmt: skip
        return
    yield Stage(
        name="backward",
        network="backward",
        source=source,
        objective=BackwardScore(run.problem.reference).regression,
        epochs=method.backward_epochs,
        learning_rate=method.backward_learning_rate,
        sampled=True,
    )


def simulated(method: "ASBM", run: Run, simulation: Simulation | None = None, count: bool = True) -> SimulatedCoupling:
    """Pairs of the present forward process."""
    control = run.simulated_field("control", method.ema_simulation, count)
    return SimulatedCoupling(
        run.problem.data, Dynamics(run.problem.reference, control), simulation or method.simulation
    )


def terminal(method: "ASBM", run: Run, cycle: int) -> Findings:
    """How far the forward process is from the prior; nothing where the prior cannot be sampled."""
    rows, stream = range(method.terminal_samples), run.stream.child("terminal test", cycle)
    try:
        prior = run.problem.prior.draw(0, rows, stream.child("prior"))
    except TypeError:
        return Findings()
    x1 = simulated(method, run, count=False).draw(0, rows, stream).x1
    test = terminal_test(x1, prior)
    metrics = {
        "terminal_top_eigenvalue": test.top_eigenvalue,
        "terminal_top_eigenvalue_prior": test.top_eigenvalue_prior,
        "terminal_norm_mean_error": test.norm_mean_error,
        "terminal_norm_variance_error": test.norm_variance_error,
        "terminal_covariance_error": test.covariance_error,
        "terminal_sliced_wasserstein": test.sliced_wasserstein,
        "terminal_sliced_wasserstein_prior": test.sliced_wasserstein_prior,
        "terminal_classifier_accuracy": test.classifier_accuracy,
        "terminal_passed": float(test.passed),
        "terminal_passed_strict": float(test.passed_strict),
    }
    return Findings(metrics, {f"cycle_{cycle}": test.spectrum, "prior": test.spectrum_prior}, len(rows))


def passed(method: "ASBM", run: Run, cycle: int) -> bool:
    """Whether stage 1 may stop after this cycle."""
    if method.stop == "never":
        return False
    name = "terminal_passed" if method.stop == "paper" else "terminal_passed_strict"
    return run.findings.get(f"cycle {cycle}: adjoint", {}).get(name) == 1.0


def require_passed(method: "ASBM", run: Run) -> None:
    """After the last cycle.

    Raises:
        TerminalTestError: it has not passed, and must have.
    """
    if method.must_pass and not passed(method, run, method.cycles):
        found = run.findings.get(f"cycle {method.cycles}: adjoint", {})
        shown = ", ".join(f"{name.removeprefix('terminal_')} {found[name]:.3g}" for name in _SHOWN if name in found)
        raise TerminalTestError(
            f"stage 1 did not pass its terminal test (stop {method.stop}) within {method.cycles} cycles: {shown}; "
            "more cycles or epochs, a finer simulation, or must_pass=false"
        )


def _buffer(method: "ASBM", run: Run, coupling: AbstractCoupling, name: str,
            annotate: Callable[[Pair], Batch] | None = None) -> AbstractSource:  # fmt: skip
    stream = run.stream.child(name)
    return BufferSource(coupling, method.new_pairs, method.buffer_size, stream, run.workers, annotate=annotate)


def _student_source(method: "ASBM", run: Run) -> AbstractSource:
    stream = run.stream.child("backward")
    if method.has_control:
        correct = (lambda pair: _corrected(run, pair)) if method.affine_correction else None
        return BufferSource(
            simulated(method, run), method.backward_pairs, method.backward_pairs, stream, run.workers, method.reuse,
            correct=correct,
        )  # fmt: skip
    independent = IndependentCoupling(run.problem.data, run.problem.prior)
    couplings: dict[str, AbstractCoupling] = {
        "independent": independent,
        "minibatch_ot": MinibatchOTCoupling(independent),
        "minibatch_sinkhorn": MinibatchSinkhornCoupling(independent, run.problem.reference),
    }
    return FreshSource(couplings[method.coupling], run.steps(method.backward_pairs), stream, run.workers)


def _corrected(run: Run, pair: Pair) -> Pair:
    return match_moments(
        pair, run.problem.prior.draw(0, range(len(pair.x1)), run.stream.child("affine correction"))
    )


def _damped(regression: Regression, previous: Field, damping: float) -> Regression:
    target = (1 - damping) * previous(regression.t, regression.x) + damping * regression.target
    return Regression(regression.t, regression.x, target, regression.weight)

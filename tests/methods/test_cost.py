"""What a training costs is known before it runs, to the last network evaluation; a budget is kept."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from sbbridge.config import ConfigurationError
from sbbridge.coupling import Generation, Simulation
from sbbridge.methods import (
    ASBM,
    DSB,
    DSBMIMF,
    DSBMIPF,
    OTCFM,
    Distillation,
    FlowMatching,
    RectifiedFlow,
    ScoreMatchingVE,
    ScoreMatchingVP,
    SimplifiedDSB,
    cost,
)
from sbbridge.problems import GaussianBridge
from sbbridge.sde import VESDE, VPSDE
from sbbridge.training import Trainer, Training
from tests.training.recording import SMALL_NETWORK, Recorder

BATCH = 16
# sizes that no batch divides, buffers that fill up in the middle of a fit
ADJOINT: dict[str, Any] = {
    "cycles": 2, "corrector_epochs": 2, "adjoint_epochs": 2, "new_pairs": 44, "buffer_size": 94, "backward_epochs": 3,
    "backward_pairs": 56, "reuse": 2, "terminal_samples": 64, "simulation": Simulation(num_steps=2),
}  # fmt: skip
FLOW: dict[str, Any] = {"epochs": 2, "pairs": 56, "generation": Generation("heun", 3, "trailing_uniform")}
MATCHING: dict[str, Any] = {
    "iterations": 2, "epochs": 2, "final_epochs": 3, "new_pairs": 44, "buffer_size": 94,
    "simulation": Simulation(num_steps=2), "generation": Generation("exponential_heun", 3),
}  # fmt: skip
PATHS: dict[str, Any] = {"iterations": 2, "epochs": 2, "final_epochs": 3, "num_steps": 4, "paths": 30, "steps": 3}
TEACHER = Distillation(epochs=2, pairs=60, every=2, generation=Generation("heun", 3, "trailing_uniform"))


def asbm(**options: Any) -> ASBM:
    return ASBM(**(ADJOINT | options))


METHODS = {
    "asbm": asbm(),
    "asbm with one-call simulation": asbm(simulation=Simulation("exponential", 3), ema_simulation=False),
    "asbm with another corrector simulation": asbm(corrector_simulation=Simulation("euler_maruyama", 5)),
    "asbm damped": asbm(damping=0.5),
    "asbm gaussian": asbm(warm_start="gaussian", damping=0.5, affine_correction=True),
    "asbm after bridge matching": asbm(warm_start="bridge_matching"),
    "asbm after bridge matching, flow, reflow": asbm(
        warm_start="bridge_matching", student="flow", reflow=2, reflow_epochs=3, generation=Generation("euler", 3)
    ),
    "bridge matching, distilled": asbm(coupling="bridge_matching", distillation=TEACHER),
    "asbm flow, distilled": asbm(student="flow", distillation=replace(TEACHER, weight="bridge")),
    "asbm distilled by Euler's paths": asbm(distillation=replace(TEACHER, generation=Generation("euler", 3))),
    "independent, flow, reflow, distilled": asbm(
        coupling="independent", student="flow", reflow=1, distillation=TEACHER, warm_start="bridge_matching"
    ),
    "minibatch_ot": asbm(coupling="minibatch_ot"),
    "minibatch_sinkhorn": asbm(coupling="minibatch_sinkhorn"),
    "flow_matching": FlowMatching(**FLOW),
    "flow_matching distilled": FlowMatching(**FLOW, distillation=TEACHER, warm_start="gaussian"),
    "distilled with fewer pairs than a batch": FlowMatching(**FLOW, distillation=replace(TEACHER, pairs=10)),
    "fewer pairs than a batch": FlowMatching(**(FLOW | {"pairs": 10}), reflow=1, reflow_epochs=2),
    "ot_cfm": OTCFM(**FLOW, distillation=replace(TEACHER, weight="bridge", every=5)),
    "rectified_flow": RectifiedFlow(**FLOW, reflow=2, reflow_epochs=3, reuse=2),
    "score_matching_vp": ScoreMatchingVP(epochs=2, pairs=56, distillation=replace(TEACHER, time=0.5)),
    "score_matching_ve": ScoreMatchingVE(epochs=2, pairs=56, warm_start="gaussian"),
    "dsbm_imf": DSBMIMF(**MATCHING), "dsbm_imf reusing": DSBMIMF(**MATCHING, reuse=2),
    "dsbm_ipf": DSBMIPF(
        **(MATCHING | {"simulation": Simulation("exponential", 3), "generation": Generation("ancestral", 4)})
    ),
    "dsbm_ipf denoised at the end": DSBMIPF(
        **(MATCHING | {"generation": Generation("exponential_heun", 3, final_noise=False)})
    ),
    "dsb": DSB(**PATHS), "dsb reusing": DSB(**PATHS, reuse=2),
    "simplified_dsb": SimplifiedDSB(**PATHS, reuse=2),
}  # fmt: skip


def problem_for(method: Any) -> GaussianBridge:
    if method.kind == "score_matching_ve":
        reference = VESDE(sigma_max=30.0)
        return GaussianBridge(0.7, 2.0, 0.0, reference.terminal_variance, reference)
    return GaussianBridge(0.7, 2.0, 0.0, 1.0, VPSDE(beta_max=20.0 if method.kind == "score_matching_vp" else 4.0))


def counted(method: Any, **options: Any) -> int:
    """The evaluations of a whole training."""
    training = Training(batch_size=BATCH, **options)
    trainer = Trainer(method, problem_for(method), SMALL_NETWORK, training, 0, Recorder())
    trainer.train()
    position = trainer.position
    assert trainer.evaluations() == position.simulation + position.optimisation
    return trainer.evaluations()


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_the_cost_is_that_of_the_training_to_the_last_evaluation(method):
    assert counted(method) == method.cost(BATCH)


@pytest.mark.parametrize("scheme", ["heun", "euler", "ddim", "edm_heun"])
@pytest.mark.parametrize("grid", ["trailing_uniform", "trailing_quadratic", "leading_uniform", "trailing_karras"])
def test_the_cost_of_reflow_is_exact_for_every_generation(scheme, grid):
    method = RectifiedFlow(epochs=1, pairs=32, reflow_epochs=1, generation=Generation(scheme, 4, grid))
    assert counted(method) == method.cost(BATCH)


@pytest.mark.parametrize("method", [METHODS["asbm damped"], METHODS["ot_cfm"], METHODS["dsb"]], ids=lambda m: m.kind)
def test_computing_a_batch_in_parts_costs_the_same(method):
    assert counted(method, accumulate=3) == method.cost(BATCH)


def test_an_early_stop_costs_less_than_foreseen():
    method = asbm(cycles=4, stop="paper")
    assert counted(method) <= method.cost(BATCH)


# -- budgets


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_within_a_budget_the_elastic_fit_is_as_long_as_it_can_be(method):
    name = method.elastic
    lengths = (1, 2, 7, 40)
    for length in lengths:
        price = replace(method, **{name: length}).cost(BATCH)
        after = replace(method, **{name: length + 1}).cost(BATCH)
        assert getattr(cost.within(method, price, BATCH), name) == length
        assert getattr(cost.within(method, after - 1, BATCH), name) == length
        assert replace(cost.within(method, price, BATCH), **{name: 1}) == replace(method, **{name: 1})


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_budget_that_is_too_small_is_refused_with_the_least(method):
    least = replace(method, **{method.elastic: 1}).cost(BATCH)
    with pytest.raises(
        ConfigurationError, match=rf"training.budget = {least - 1}: {method.kind} .* at least {least} network"
    ):
        cost.within(method, least - 1, BATCH)
    assert getattr(cost.within(method, least, BATCH), method.elastic) == 1


@pytest.mark.parametrize("name", ["asbm damped", "rectified_flow", "dsbm_imf", "dsb"])
def test_a_training_keeps_its_budget_and_nearly_spends_it(name):
    method = METHODS[name]
    budget = method.cost(BATCH) + 500
    spent = counted(method, budget=budget)
    one_more = cost.within(method, budget, BATCH)
    one_more = replace(one_more, **{method.elastic: getattr(one_more, method.elastic) + 1})
    assert method.cost(BATCH) < spent <= budget < one_more.cost(BATCH)


def test_budgets_of_two_methods_buy_equal_trainings_in_evaluations():
    """What comparisons rest on: within one epoch of the costlier method."""
    budget = 10_000
    spent = [counted(method, budget=budget) for method in (METHODS["flow_matching"], METHODS["dsbm_imf"])]
    assert all(0.93 * budget < evaluations <= budget for evaluations in spent)
    assert torch.get_default_dtype() == torch.float32

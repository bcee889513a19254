"""One-step generators: better than one step of their teacher, and what their stage is made of."""

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch

from sbbridge.coupling import Generation, Simulation
from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import ASBM, OTCFM, Distillation, FlowMatching, ScoreMatchingVP, Unsupported
from sbbridge.networks import MLP
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import VPSDE
from sbbridge.training import Trainer, Training, fit
from tests.training.recording import SMALL_NETWORK, Recorder, weights

N = 20_000
SHORT: dict[str, Any] = {
    "warm_start": "gaussian", "cycles": 1, "corrector_epochs": 1, "adjoint_epochs": 1, "new_pairs": 512,
    "buffer_size": 512, "backward_epochs": 1, "backward_pairs": 512, "terminal_samples": 64,
    "simulation": Simulation("exponential", 2),
}  # fmt: skip
TEACHER = Distillation(epochs=6, pairs=2048, learning_rate=3e-3, generation=Generation("heun", 10, "trailing_uniform"))
METHODS = {
    "ot_cfm": OTCFM(epochs=1, pairs=512, warm_start="gaussian", distillation=TEACHER),
    "flow_matching": FlowMatching(epochs=1, pairs=512, warm_start="gaussian", distillation=TEACHER),
    "asbm": ASBM(**SHORT, distillation=TEACHER),
    "asbm, paper's weight": ASBM(**SHORT, distillation=replace(TEACHER, weight="bridge")),
    "score_matching_vp": ScoreMatchingVP(
        epochs=1, pairs=512, warm_start="gaussian", distillation=replace(TEACHER, time=0.5)
    ),
}  # fmt: skip


def problem_for(method):
    beta_max = 20.0 if method.kind == "score_matching_vp" else 4.0
    return GaussianBridge([0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], torch.eye(2), VPSDE(beta_max=beta_max))


@cache
def solved(name, distilled=True):
    method = METHODS[name] if distilled else replace(METHODS[name], distillation=None)
    network, training = MLP(width=24, depth=1, time_frequencies=4), Training(batch_size=256, learning_rate=1e-6)
    return fit(method, problem_for(method), network=network, training=training)


def wasserstein(x, problem):
    """W2 between Gaussians of the samples' moments and the data's: 0 at the data's law, in its units."""
    mean, cov = x.double().mean(0), torch.cov(x.double().mT)
    values, vectors = torch.linalg.eigh(problem.cov0)
    root = (vectors * values.sqrt()) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ cov @ root).clamp(min=0).sqrt().sum()
    return float((mean - problem.mean0).square().sum() + cov.trace() + problem.cov0.trace() - 2 * cross)


@pytest.mark.parametrize("name", METHODS)
def test_a_generator_beats_one_step_of_its_teacher(name):
    """The teachers begin exact, so one step of theirs is E[x0 | x1]: too narrow, unless pairs are optimal."""
    problem = problem_for(METHODS[name])
    x1 = problem.prior.sample(N, seed=5)
    made = sample(solved(name), x1=x1, num_steps=1)
    assert made.nfe == 1
    teacher = solved(name, distilled=False)
    sampler = "ddim" if teacher.dynamics.velocity is not None else "ancestral"
    one_step = sample(teacher, x1=x1, num_steps=1, sampler=sampler).x
    many = wasserstein(sample(teacher, x1=x1, num_steps=40).x, problem)
    # a generator of independent pairs has everything to learn anew: in 48 steps it has left the mean
    share = 0.95 if name == "flow_matching" else 0.5
    assert wasserstein(made.x, problem) < max(share * wasserstein(one_step, problem), 2 * many + 0.01)


def test_a_distilled_method_has_its_generator_and_no_field_of_the_teacher():
    solution = solved("ot_cfm")
    assert solution.default_sampler == "one_step"
    for name in ("velocity", "backward_score"):
        with pytest.raises(Unsupported, match=f"method ot_cfm has no {name}"):
            getattr(solution, name)(0.5, [[0.0, 0.0]])
    assert solved("asbm").couple(5).x1.shape == (5, 2)


def line():
    return GaussianBridge(0.7, 2.0, 0.0, 1.0, VPSDE())


def tiny(**options):
    settings = {"epochs": 2, "pairs": 64, "every": 3, "generation": Generation("heun", 3, "trailing_uniform")}
    return OTCFM(epochs=1, pairs=32, distillation=Distillation(**(settings | options)))


def trainer(method, recorder, **options):
    return Trainer(method, line(), SMALL_NETWORK, Training(batch_size=16, **options), 3, recorder)


def stage_of(method):
    run = trainer(method, Recorder()).run
    return run, list(method.stages(run))[-1]


def test_both_networks_start_as_the_teacher():
    run, stage = stage_of(tiny())
    with torch.no_grad():
        for parameter in run.networks["velocity"].average.parameters():
            parameter.add_(0.3)
    stage.at_start()
    teacher = run.networks["velocity"].average.module.state_dict()
    for name in ("generator", "fake"):
        for key, value in run.networks[name].online.state_dict().items():
            assert torch.equal(value, teacher[key]), (name, key)


def test_the_generator_learns_at_every_third_step_and_the_fake_network_at_each():
    recorder = Recorder()
    run = trainer(tiny(epochs=1, pairs=96), recorder, checkpoint_seconds=1e-9)
    run.train()
    from sbbridge.training.checkpoint import from_bytes

    steps = [from_bytes(data) for data in recorder.saved if b"optimiser/fake" in data]
    assert len(steps) == 6
    changed: dict[str, list[bool]] = {"fake": [], "generator": []}
    for (before, _), (after, _) in pairwise(steps):
        for name, seen in changed.items():
            key = f"online/{name}/network.outer.bias"
            seen.append(not torch.equal(before[key], after[key]))
    assert changed["fake"] == [True] * 5
    assert changed["generator"] == [False, False, True, False, False]  # steps 0 and 3 of the epoch


def test_the_teacher_is_left_as_it_is():
    plain, distilled = (trainer(method, Recorder()) for method in (replace(tiny(), distillation=None), tiny()))
    for run in (plain, distilled):
        run.train()
    kept = {name: value for name, value in weights(distilled).items() if name.startswith("velocity/")}
    assert kept
    assert all(torch.equal(value, weights(plain)[name]) for name, value in kept.items())


def test_the_pair_term_is_the_squared_distance_to_the_teachers_pairs():
    """With weight w, its part of the loss is ½ w |G(z) − x0|² at the mean over both parts of the batch."""
    from sbbridge.methods.base import Draw
    from sbbridge.rng import Stream

    run, stage = stage_of(tiny(pair_weight=0.8))
    stage.at_start()
    generator = torch.Generator().manual_seed(0)
    z, x0 = torch.randn(16, 1, generator=generator), torch.randn(16, 1, generator=generator)
    regression = stage.follower.objective({"x0": x0, "x1": z}, Draw(Stream(0), 0, range(16), 16))
    network = run.networks["generator"].online
    with torch.no_grad():
        value = network(regression.t, regression.x)
    made = z - value[16:]  # time 1: G(z) = z − v(1, z)
    error = (value - regression.target)[16:].square() * regression.weight[16:, None].float()
    torch.testing.assert_close(error, 0.4 * (made - x0).square(), atol=1e-5, rtol=1e-4)


def test_memoryless_teachers_noise_the_image_towards_a_fresh_point_and_others_towards_their_own():
    """Given z, x_t is between G(z) and z where pairs know each other."""
    from sbbridge.methods.base import Draw
    from sbbridge.rng import Stream

    for method, own in ((tiny(), True), (FlowMatching(epochs=1, pairs=32, distillation=tiny().distillation), False)):
        run, stage = stage_of(method)
        stage.at_start()
        draw = Draw(Stream(0, ("s",)), 0, range(16), 16)
        regression = stage.objective({}, draw)
        z = run.problem.prior.draw(0, range(16), draw.stream.child("z"))
        with torch.no_grad():
            made = z - run.networks["generator"].online(torch.ones(16), z)
        t = regression.t[:, None].float()
        on_the_line = torch.allclose(regression.x, (1 - t) * made + t * z, atol=1e-5)
        assert on_the_line is own


@pytest.mark.parametrize(
    ("options", "field"),
    [({name: 0}, name) for name in ("epochs", "pairs", "every", "learning_rate", "time")]
    + [({"time": 1.1}, "time"), ({"pair_weight": -1.0}, "pair_weight")],
)
def test_impossible_distillations_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Distillation(**options)


@pytest.mark.parametrize("scheme", ["heun", "ddim"])
def test_a_teacher_without_a_flow_is_refused_before_it_is_trained(scheme):
    """Independent pairs teach no control: only a reference that forgets has a flow without one."""
    one, settings = torch.zeros(1, 2), Distillation(generation=Generation(scheme, 3, "trailing_uniform"))
    method = ASBM(coupling="independent", distillation=settings)
    ends = TensorData(one), StandardNormal((2,))
    forgets, remembers = (BridgeProblem(*ends, VPSDE(beta_max=beta)) for beta in (20.0, 4.0))
    assert set(method.parts(forgets)) == {"backward", "generator", "fake"}
    with pytest.raises(ValueError, match=f"distillation: .*{scheme}"):
        method.parts(remembers)

"""What the loop counts, reports and refuses."""

import math
from itertools import pairwise

import pytest
import torch

from sbbridge.coupling import Simulation
from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import ScoreMatchingVP
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sde import VPSDE
from sbbridge.training import DivergenceError, Reporter, Training, fit
from tests.training.recording import SMALL_NETWORK, Recorder, problem, tiny, trainer

CALLS = {"exponential_heun": 2, "exponential": 1, "euler_maruyama": 1}


@pytest.mark.parametrize("scheme", CALLS)
def test_evaluations_are_those_counted_by_hand(scheme):
    """Two cycles of 1 corrector and 2 adjoint epochs, 64 new pairs, a buffer of 96, 3 steps; batches of 16."""
    method = tiny(simulation=Simulation(scheme, num_steps=3))
    run = trainer(method, Recorder())
    run.train()
    a_path = 3 * CALLS[scheme]
    corrector_of_cycle_one = 0  # the reference is drawn in closed form
    adjoint = 2 * 64 * (a_path + 1)  # two epochs of new pairs, and the corrector once at each end point
    corrector_of_cycle_two = 1 * 64 * a_path
    backward = 2 * 64 * a_path
    assert run.run.evaluations.simulation == corrector_of_cycle_one + 2 * adjoint + corrector_of_cycle_two + backward
    # steps: 64 / 16 in a first epoch, 96 / 16 once the buffer is full, and 64 / 16 in both epochs of stage 2
    steps = 2 * (4 + (4 + 6)) + 2 * 4
    assert run.position.total_steps == steps
    assert run.run.evaluations.optimisation == 16 * steps


def test_simulation_with_reuse_is_counted_once():
    run = trainer(tiny(coupling="bridge_matching", backward_epochs=4, reuse=2), Recorder())
    run.train()
    assert run.run.evaluations.simulation == 2 * 64 * 2 * 2  # epochs 0 and 2, two steps of two calls


def test_damping_counts_the_previous_control_as_simulation():
    plain, damped = (trainer(tiny(damping=d), Recorder()) for d in (1.0, 0.5))
    for run in (plain, damped):
        run.train()
    inside_adjoint_steps = 16 * 2 * (4 + 6)
    assert damped.run.evaluations.simulation - plain.run.evaluations.simulation == inside_adjoint_steps


def test_couplings_without_simulation_cost_none():
    for coupling in ("independent", "minibatch_ot"):
        run = trainer(tiny(coupling=coupling), Recorder())
        run.train()
        assert run.run.evaluations.simulation == 0
        assert run.run.evaluations.optimisation == 16 * 2 * 4


def test_every_epoch_reports_a_loss_and_every_cycle_its_terminal_test():
    recorder = Recorder()
    trainer(tiny(), recorder).train()
    losses = [(stage, values["loss"]) for stage, _, values, _ in recorder.told if "loss" in values]
    assert [stage for stage, _ in losses] == [
        "cycle 1: corrector",
        "cycle 1: adjoint",
        "cycle 1: adjoint",
        "cycle 2: corrector",
        "cycle 2: adjoint",
        "cycle 2: adjoint",
        "backward",
        "backward",
    ]
    assert all(math.isfinite(loss) for _, loss in losses)
    tests = [(stage, values, n) for stage, _, values, n in recorder.told if "terminal_passed" in values]
    assert [stage for stage, _, _ in tests] == ["cycle 1: adjoint", "cycle 2: adjoint"]
    assert all(n == 64 for _, _, n in tests)
    assert set(recorder.kept["spectrum"]) == {"cycle_1", "cycle_2", "prior"}
    steps = [step for _, step, _, _ in recorder.told]
    assert steps == sorted(steps)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_ends_the_training():
    data = TensorData(torch.full((4, 2), 1e30, dtype=torch.float32))
    broken = BridgeProblem(data, StandardNormal((2,)), VPSDE(beta_max=20.0))
    with pytest.raises(DivergenceError, match=r"the loss of stage 'backward' is (inf|nan)"):
        fit(tiny(coupling="independent"), broken, network=SMALL_NETWORK, training=Training(batch_size=16))


def test_a_learning_rate_that_explodes_is_noticed():
    with pytest.raises(DivergenceError, match=r"stage 'score matching'"):
        fit(
            ScoreMatchingVP(epochs=30, pairs=256),
            GaussianBridge(0.0, 1.0, 0.0, 1.0, VPSDE(beta_max=20.0)),
            network=SMALL_NETWORK,
            training=Training(batch_size=16, learning_rate=1e18, schedule="constant"),
        )


def test_times_cover_the_whole_interval_when_pairs_are_fewer_than_a_batch(monkeypatch):
    """64 pairs and batches of 256: times must still be uniform on [0, 1], and evaluations those that were made."""
    import sbbridge.methods.asbm_stages as module

    seen, true = [], module.adjoint_matching

    def spy(reference, t, *rest):
        seen.append(t)
        return true(reference, t, *rest)

    monkeypatch.setattr(module, "adjoint_matching", spy)
    run = trainer(tiny(buffer_size=64), Recorder(), batch_size=256)
    run.train()
    times = torch.cat(seen)
    assert float(times.max()) > 0.9
    assert run.run.evaluations.optimisation == 64 * run.position.total_steps


def test_weights_in_the_solution_are_the_averages():
    run = trainer(tiny(coupling="independent"), Recorder())
    run.train()
    from sbbridge.training import solution_of

    solution = solution_of(run)
    x, t = torch.linspace(-1, 1, 5)[:, None], torch.tensor(0.5, dtype=torch.float64)
    variance = run.run.problem.reference.variance(0.0, 0.5)
    with torch.no_grad():
        average = run.networks["backward"].average(t, x) / variance.sqrt().float()
        online = run.networks["backward"].online(t, x) / variance.sqrt().float()
    torch.testing.assert_close(solution.backward_score(0.5, x), average)
    assert not torch.allclose(online, average)


def test_the_cosine_schedule_falls_to_a_hundredth_in_every_stage():
    """Seen from outside: AdamW's steps shrink with the rate, so late weight changes are far smaller than early ones."""
    from sbbridge.training.checkpoint import from_bytes

    recorder = Recorder()
    trainer(tiny(coupling="independent", backward_epochs=20), recorder).train()
    heads = [from_bytes(data)[0]["online/backward/network.outer.bias"] for data in recorder.saved[:-1]]
    changes = [float((b - a).abs().max()) for a, b in pairwise(heads)]
    assert max(changes[-3:]) < 0.1 * max(changes[:10])


def test_gradient_clipping_bounds_the_gradients_that_are_used():
    run = trainer(tiny(coupling="independent"), Recorder(), gradient_clip=1e-3)
    run.train()
    gradients = [p.grad for p in run.networks["backward"].online.parameters() if p.grad is not None]
    assert sum(float(g.square().sum()) for g in gradients) ** 0.5 <= 1e-3 * (1 + 1e-4)


def test_a_reporter_keeps_nothing_by_default():
    reporter = Reporter()
    assert reporter.load() is None
    assert reporter.workers.size == 1
    assert reporter.save({}, {}) is reporter.metrics("s", 0, {}) is reporter.arrays("a", {}) is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"gradient_clip": -1.0}, "gradient_clip"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"checkpoint_seconds": 0.0}, "checkpoint_seconds"),
    ],
)
def test_impossible_training_options_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Training(**options)


def test_starting_networks_do_not_depend_on_the_method_around_them():
    """Named seeds: the backward network starts equally whether or not there is a control."""
    one = trainer(tiny(coupling="independent"), Recorder())
    other = trainer(tiny(), Recorder())
    for key, value in one.networks["backward"].online.state_dict().items():
        assert torch.equal(value, other.networks["backward"].online.state_dict()[key])
    assert problem().shape == (1,)

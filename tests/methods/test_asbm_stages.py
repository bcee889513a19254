"""What ASBM's stages ask for: their order, their targets, and the control that damping keeps."""

import pytest
import torch

from sbbridge.methods.base import Draw
from sbbridge.training.checkpoint import from_bytes
from tests.training.recording import Recorder, tiny, trainer


def names(**options):
    method = tiny(**options)
    return [(stage.name, stage.network) for stage in method.stages(trainer(method, Recorder()).run)]


def test_stages_follow_the_coupling_and_the_warm_start():
    cycles = [
        ("cycle 1: corrector", "corrector"),
        ("cycle 1: adjoint", "control"),
        ("cycle 2: corrector", "corrector"),
        ("cycle 2: adjoint", "control"),
    ]
    backward, forward = [("backward", "backward")], [("forward bridge", "control")]
    assert names() == cycles + backward
    assert names(warm_start="gaussian") == cycles + backward
    assert names(warm_start="bridge_matching") == forward + cycles + backward
    assert names(coupling="bridge_matching") == forward + backward
    for coupling in ("independent", "minibatch_ot"):
        assert names(coupling=coupling) == names(coupling=coupling, warm_start="bridge_matching") == backward


def adjoint_stage(method):
    """The adjoint stage of cycle 1 with its first batch, on networks that are zero nowhere."""
    run = trainer(method, Recorder()).run
    generator = torch.Generator().manual_seed(0)
    for _, network in sorted(run.networks.items()):
        for parameter in network.average.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    stage = list(method.stages(run))[1]
    assert stage.name == "cycle 1: adjoint"
    stage.source.refresh(0)
    batch, rows, _ = stage.source.batch(0, 0, 16)
    return run, stage, batch, Draw(run.stream, 0, rows, 16)


def test_the_adjoint_that_is_stored_is_corrector_plus_energy_gradient():
    run, _, batch, _ = adjoint_stage(tiny())
    with torch.no_grad():
        corrector = run.networks["corrector"].average(torch.tensor(1.0), batch["x1"])
    torch.testing.assert_close(
        batch["adjoint"], corrector + batch["x1"]
    )  # the prior is N(0, 1): its energy's slope is x1


@pytest.mark.parametrize("damping", [0.25, 0.8])
def test_damping_mixes_the_target_with_the_previous_control(damping):
    run, damped, batch, draw = adjoint_stage(tiny(damping=damping))
    plain = list(tiny().stages(run))[1]
    one, other = plain.objective(batch, draw), damped.objective(batch, draw)
    with torch.no_grad():
        previous = run.networks["previous_control"].average(one.t, one.x)
    torch.testing.assert_close(other.target, previous + damping * (one.target - previous))
    assert torch.equal(other.x, one.x)


def test_the_previous_control_is_that_of_the_cycle_before():
    """After a run it is the control as it stood when the last adjoint stage began."""
    recorder = Recorder()
    run = trainer(tiny(damping=0.5), recorder)
    run.train()
    at_the_last_stage = next(
        tensors
        for tensors, position in map(from_bytes, recorder.saved)
        if (position["stage"], position["step"]) == (3, 0)
    )
    kept = run.networks["previous_control"].average.state_dict()
    for key, value in kept.items():
        assert torch.equal(value, at_the_last_stage[f"average/control/{key}"]), key
    assert any(bool((value != 0).any()) for key, value in kept.items() if "outer" in key)


def test_simulation_uses_the_averaged_or_the_online_control_as_asked():
    """Two stage-2 sources on one run whose averages and weights differ: they simulate different pairs."""
    pairs = []
    for ema in (True, False):
        method = tiny(ema_simulation=ema)
        run, *_ = adjoint_stage(method)
        backward = list(method.stages(run))[-1]
        backward.source.refresh(0)
        pairs.append(backward.source.state())
        expected_online = run.networks["control"].online(torch.tensor(0.5), torch.ones(1, 1))
        assert not torch.equal(expected_online, run.networks["control"].average(torch.tensor(0.5), torch.ones(1, 1)))
    assert torch.equal(pairs[0]["x0"], pairs[1]["x0"])
    assert not torch.allclose(pairs[0]["x1"], pairs[1]["x1"])


def test_affine_correction_gives_stage_two_the_priors_moments():
    method = tiny(affine_correction=True, backward_pairs=256)
    run, *_ = adjoint_stage(method)
    backward = list(method.stages(run))[-1]
    backward.source.refresh(0)
    x1 = backward.source.state()["x1"]
    # as many prior samples: their moments scatter by 6 % and 9 %, 4 standard errors
    assert abs(float(x1.mean())) < 0.25
    assert abs(float(x1.var()) - 1) < 0.36
    plain = list(tiny(backward_pairs=256).stages(run))[-1]
    plain.source.refresh(0)
    assert not torch.allclose(plain.source.state()["x1"], x1)

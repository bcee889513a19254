"""How a step is computed does not change what it computes: parts of a batch, precision, memory format, compilation."""

import pytest
import torch

from sbbridge.coupling import Generation
from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import DSB, OTCFM, Distillation, FlowMatching, ScoreMatchingVP
from sbbridge.networks import UNet
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sde import VPSDE
from sbbridge.training import DivergenceError, Trainer, Training
from sbbridge.training.checkpoint import from_bytes
from tests.training.recording import EVERY_STEP, SMALL_NETWORK, Killed, Recorder, differing, tiny, weights

TEACHER = Distillation(
    epochs=2, pairs=64, every=3, learning_rate=2e-3, generation=Generation("heun", 3, "trailing_uniform")
)
METHODS = {
    "asbm damped": tiny(damping=0.5),
    "distilled": OTCFM(epochs=1, pairs=64, distillation=TEACHER),
    "distilled, independent": FlowMatching(epochs=1, pairs=64, distillation=TEACHER),
    "dsb": DSB(iterations=1, epochs=1, final_epochs=1, num_steps=4, paths=32, steps=4),
}  # fmt: skip


def line(beta_max=4.0):
    return GaussianBridge(0.7, 2.0, 0.0, 1.0, VPSDE(beta_max=beta_max))


def trained(method, problem=None, network=SMALL_NETWORK, reporter=None, **options):
    training = Training(**({"batch_size": 16, "learning_rate": 1e-3} | options))
    run = Trainer(method, problem or line(), network, training, 3, reporter or Recorder())
    run.train()
    return run


def losses(run):
    return [values["loss"] for _, _, values, _ in run.reporter.told if "loss" in values]


# -- parts of a batch


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_batch_in_parts_gives_the_weights_of_the_whole(method):
    """Also with a second network that follows the first; 16 rows in 4 parts and, unevenly, in 3."""
    whole = trained(method)
    for parts in (4, 3):
        other = trained(method, accumulate=parts)
        for name, value in weights(whole).items():
            torch.testing.assert_close(weights(other)[name], value, atol=1e-5, rtol=1e-5)
        assert losses(other) == pytest.approx(losses(whole), rel=1e-4)
        assert other.evaluations() == whole.evaluations()
        assert other.position.total_steps == whole.position.total_steps


def test_as_many_parts_as_rows_and_batches_smaller_than_that_are_served():
    method = tiny(coupling="bridge_matching", new_pairs=10, backward_pairs=10)
    whole, single = trained(method), trained(method, accumulate=16)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(single)[name], value, atol=1e-5, rtol=1e-5)


def test_gradients_are_clipped_once_for_the_whole_batch():
    method = tiny(coupling="independent")
    whole, parts = (trained(method, gradient_clip=1e-3, accumulate=n) for n in (1, 4))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=1e-5, rtol=1e-5)


# -- resuming a stage with two networks


@pytest.mark.parametrize("name", ["distilled", "distilled, independent"])
def test_resuming_in_the_middle_of_a_distillation_is_bit_equal(name):
    method, recorder = METHODS[name], Recorder()
    whole = trained(method, reporter=recorder, checkpoint_seconds=EVERY_STEP)
    exact = weights(whole)
    inside = [data for data in recorder.saved if b"optimiser/generator" in data]
    positions = [(from_bytes(data)[1]["epoch"], from_bytes(data)[1]["step"]) for data in inside]
    assert {(0, 2), (1, 1)} <= set(positions)
    for data in inside:
        resumed = trained(method, reporter=Recorder(start=data), checkpoint_seconds=EVERY_STEP)
        assert differing(weights(resumed), exact) == [], from_bytes(data)[1]
        assert resumed.evaluations() == whole.evaluations()


@pytest.mark.parametrize("name", ["asbm damped", "dsb"])
def test_resuming_a_batch_in_parts_is_bit_equal(name):
    method, recorder = METHODS[name], Recorder()
    exact = weights(trained(method, reporter=recorder, checkpoint_seconds=EVERY_STEP, accumulate=3))
    for data in recorder.saved[:: len(recorder.saved) // 4]:
        resumed = trained(method, reporter=Recorder(start=data), checkpoint_seconds=EVERY_STEP, accumulate=3)
        assert differing(weights(resumed), exact) == []


def test_dsb_dies_and_rises_with_its_paths():
    method, recorder = METHODS["dsb"], Recorder(die_after=6)
    exact = weights(trained(method))
    with pytest.raises(Killed):
        trained(method, reporter=recorder, checkpoint_seconds=EVERY_STEP)
    assert any("source/path" in from_bytes(data)[0] for data in recorder.saved)
    assert differing(weights(trained(method, reporter=Recorder(start=recorder.saved[-1]))), exact) == []


# -- precision


def test_bfloat16_trains_in_float32_weights_to_nearly_the_same_loss():
    method, problem = ScoreMatchingVP(epochs=6, pairs=2048), line(20.0)
    runs = {
        precision: trained(method, problem, batch_size=64, learning_rate=4e-3, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    single, half = (losses(runs[precision]) for precision in ("float32", "bfloat16"))
    assert half[-1] < 0.75 * half[0]
    assert half[-1] == pytest.approx(single[-1], rel=0.05)
    assert half != single
    stored = weights(runs["bfloat16"])
    assert all(value.dtype == torch.float32 for value in stored.values() if value.is_floating_point())


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_kind_of_stage_runs_in_bfloat16_and_its_pairs_stay_float32(method):
    recorder = Recorder()
    run = trained(method, reporter=recorder, precision="bfloat16", checkpoint_seconds=EVERY_STEP)
    assert all(torch.isfinite(torch.tensor(losses(run))))
    pairs = {
        name: value.dtype
        for data in recorder.saved
        for name, value in from_bytes(data)[0].items()
        if name.startswith("source/")
    }
    assert set(pairs.values()) <= {torch.float32}


# -- memory format and compilation, on images

IMAGES = UNet(channels=(8, 8), layers_per_block=1, attention=(), head_channels=8, dropout=0.0)


def images():
    x = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5
    return BridgeProblem(TensorData(x), StandardNormal((1, 4, 4)), VPSDE())


def close_to_plain(**options):
    method = FlowMatching(epochs=1, pairs=64)
    plain, other = (trained(method, images(), IMAGES, **changed) for changed in ({}, options))
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(other)[name], value, atol=2e-4, rtol=2e-4)
    assert losses(other) == pytest.approx(losses(plain), rel=1e-3)
    return other


def test_channels_last_changes_the_format_and_not_the_result():
    run = close_to_plain(channels_last=True)
    kernels = [p for p in run.networks["velocity"].online.parameters() if p.dim() == 4 and min(p.shape[1:3]) > 1]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.slow
def test_compilation_does_not_change_the_result():
    close_to_plain(compile=True)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_compilation_does_not_change_any_kind_of_stage(method):
    plain, compiled = trained(method), trained(method, compile=True)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be in 1 … batch_size = 16, got 0"),
        ({"accumulate": 17}, "accumulate must be in 1 … batch_size = 16, got 17"),
        ({"budget": 0}, "budget must be >= 1, got 0"),
    ],
)
def test_impossible_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Training(batch_size=16, **options)


# -- divergence, and watching


class Explosive(Recorder):
    """Keeps checkpoints, and makes the weights infinite after the third."""

    def save(self, tensors, position):
        super().save(tensors, position)
        if len(self.saved) == 3:
            self.explode()


def test_divergence_names_stage_step_and_the_last_good_checkpoint():
    """Saved after every step; the weights become infinite after step 3, and the next save notices."""
    reporter = Explosive()
    training = Training(batch_size=16, checkpoint_seconds=EVERY_STEP)
    run = Trainer(FlowMatching(epochs=4, pairs=64), line(), SMALL_NETWORK, training, 3, reporter)

    def explode():
        with torch.no_grad():
            for parameter in run.networks["velocity"].online.parameters():
                parameter.fill_(float("inf"))

    reporter.explode = explode
    with pytest.raises(
        DivergenceError, match=r"stage 'flow' is nan after 4 steps; the last good checkpoint is that of step 3$"
    ):
        run.train()
    assert from_bytes(reporter.saved[-1])[1]["total_steps"] == 3


def test_only_stages_that_are_sampled_from_are_watched_at_their_epochs():
    seen = []

    def watch(before, after):
        assert before < after
        seen.append(after)

    method = tiny(cycles=1, backward_epochs=4)
    Trainer(method, line(), SMALL_NETWORK, Training(batch_size=16), 3, Recorder(), watch=watch).train()
    assert seen == [0.25, 0.5, 0.75, 1.0]
    seen.clear()
    Trainer(METHODS["distilled"], line(), SMALL_NETWORK, Training(batch_size=16), 3, Recorder(), watch=watch).train()
    assert seen == [1.0, 0.5, 1.0]


def test_watching_does_not_change_the_training():
    method = tiny(cycles=1)
    exact = weights(trained(method))
    training = Training(batch_size=16, learning_rate=1e-3)
    watched = Trainer(method, line(), SMALL_NETWORK, training, 3, Recorder(), watch=lambda before, after: torch.rand(3))
    watched.train()
    assert differing(weights(watched), exact) == []

"""An LDSB path in diffusers' stock pipelines against our own sampler, its JSON, and what it refuses."""

import copy
import hashlib
import json
from dataclasses import replace

import diffusers
import pytest
import torch

from sbbridge.integrations.diffusers import LDSBScheduler
from sbbridge.path import LINEAR, Denoiser, RatioPath, ratio_nodes
from sbbridge.path.denoiser import Timesteps
from sbbridge.path.scheduler import scheduler_config
from sbbridge.rng import isolated
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path
from sbbridge.solvers.ratio_path import carry, descend

SHAPE = (3, 1, 8, 8)
OUR_NAMES = {"epsilon": "noise", "sample": "image", "velocity": "velocity"}
# diffusers and numpy 2 disagree about __array__
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
with_and_without_momentum = pytest.mark.parametrize("momentum", [False, True])


@pytest.fixture(scope="module")
def unet():
    """A random U-Net for 8 x 8 images."""
    with isolated(0):
        return diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
            norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        ).eval()  # fmt: skip


def nodes_of(steps, boundary="code"):
    return ratio_nodes(reference_path(DDPM()), "leading_uniform", steps, boundary, chain=1000)


def chain_path(steps=5, momentum=False):
    """Near to the original path, but not on it."""
    nodes = nodes_of(steps)
    wiggle = 0.02 * torch.linspace(0, 9, steps, dtype=torch.float64).sin()
    path = nodes.compose(nodes.image_ratio * (1 - wiggle.abs()), nodes.noise_ratio * (1 - wiggle.abs() / 2))
    c = torch.linspace(-0.2, 0.3, steps - 1, dtype=torch.float64) if momentum else None
    return RatioPath(path.times, path.image, path.noise, c)


def linear_path(steps=4, momentum=False, start=False):
    """Flow matching's, with the pure noise of t = 1 or without."""
    times = torch.linspace(0.05, 1.0 if start else 0.83, steps, dtype=torch.float64)
    c = torch.linspace(0.3, -0.2, steps - 1, dtype=torch.float64) if momentum else None
    return RatioPath(times, 1 - times, times**1.1, c)


def scheduler_of(path, prediction="epsilon", chain=True, **options):
    return LDSBScheduler.from_path(path, prediction=prediction, chain=chain, **options)


def noise_of(seed=0, dtype=torch.float32):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def toy(t, x):
    """A network that depends on both arguments."""
    return (0.7 + 0.3 * t) * torch.tanh(x) + 0.1 * x.roll(1, -1)


def looped(scheduler, network, x, **options):
    """States and image estimates of a pipeline's loop; the network is told diffusers' timesteps."""
    scheduler.set_timesteps(len(scheduler.path))
    states, images = [], []
    for t in scheduler.timesteps:
        out = scheduler.step(network(t, scheduler.scale_model_input(x, t)), t, x, **options)
        x = out.prev_sample
        states.append(x)
        images.append(out.pred_original_sample)
    return states, images


def one_line(message):
    assert "\n" not in str(message.value)


@with_and_without_momentum
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("kind", ["DDPMPipeline", "DDIMPipeline"])
@torch.no_grad()
def test_stock_pipelines_make_the_images_that_our_sampler_makes(unet, kind, steps, momentum):
    """DDIMPipeline gets its scheduler after construction. Before the pipelines clamp their images, and after."""
    path, seen = chain_path(steps, momentum), []
    if kind == "DDPMPipeline":
        pipeline = diffusers.DDPMPipeline(unet, scheduler_of(path))
    else:
        pipeline = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler())
        pipeline.scheduler = scheduler_of(path)
    step = pipeline.scheduler.step

    def recorded(*arguments, **options):
        seen.append(step(*arguments, **options))
        return seen[-1]

    pipeline.scheduler.step = recorded
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(3, torch.Generator().manual_seed(0), num_inference_steps=steps, output_type="pt").images
    denoiser = Denoiser(
        reference_path(DDPM()), "noise", lambda t, x: unet(x, (1000 * t - 1).round().long()).sample, chain=1000
    )
    ours = carry(denoiser, path, noise_of())
    assert len(seen) == steps
    torch.testing.assert_close(seen[-1].prev_sample, ours, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made, (ours / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


@with_and_without_momentum
@pytest.mark.parametrize("prediction", OUR_NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_prediction_on_a_chain_takes_our_samplers_steps(prediction, momentum, dtype):
    path = chain_path(10, momentum)
    scheduler, x = scheduler_of(path, prediction), noise_of(1, dtype)
    denoiser = Denoiser(reference_path(DDPM()), OUR_NAMES[prediction], toy, chain=1000)
    states, images = looped(scheduler, lambda t, x: toy((float(t) + 1) / 1000, x), x)
    assert scheduler.timesteps.tolist() == [900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    for ours, theirs in zip(descend(denoiser, path, x), states, strict=True):
        assert theirs.dtype == dtype
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)
    if not momentum:
        torch.testing.assert_close(images[-1], states[-1])


@with_and_without_momentum
@pytest.mark.parametrize(("prediction", "start"), [
    ("epsilon", False), ("sample", False), ("velocity", False), ("sample", True), ("velocity", True),
])  # fmt: skip
def test_every_prediction_in_continuous_time_takes_our_samplers_steps(prediction, start, momentum):
    """Timestep t is 1000 t, also where that is no whole number."""
    path = linear_path(4, momentum, start)
    scheduler, x = scheduler_of(path, prediction, chain=False), noise_of(2)
    denoiser = Denoiser(LINEAR, OUR_NAMES[prediction], toy)
    states, _ = looped(scheduler, lambda t, x: toy(float(t) / 1000, x), x)
    torch.testing.assert_close(scheduler.timesteps, 1000 * path.times.flip(0).float())
    for ours, theirs in zip(descend(denoiser, path, x), states, strict=True):
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_the_estimate_of_each_node_is_given_as_well():
    path = chain_path(5, momentum=True)
    scheduler, x = scheduler_of(path), noise_of()
    states, images = looped(scheduler, lambda t, x: toy(float(t), x), x)
    for k, state, image in zip(range(4, -1, -1), [x, *states], images, strict=False):
        wanted = (state - float(path.noise[k]) * toy(1000 * k / 5, state)) / float(path.image[k])
        torch.testing.assert_close(image, wanted, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddims_own_path_is_ddim_but_for_its_last_coefficient(unet, eta):
    """On the original path, a_0 = sqrt(1 − beta_0) included, every step, its noise and the image are DDIM's."""
    steps = 10
    ddim = diffusers.DDIMScheduler(clip_sample=False)
    ddim.set_timesteps(steps)
    scheduler = scheduler_of(nodes_of(steps).original)
    assert scheduler.timesteps.tolist() == ddim.timesteps.tolist()
    ours_of, theirs_of = (torch.Generator().manual_seed(5) for _ in range(2))
    states, _ = looped(scheduler, lambda t, x: unet(x, t).sample, noise_of(), eta=eta, generator=ours_of)
    x = noise_of()
    for t, ours in zip(ddim.timesteps, states, strict=True):
        x = ddim.step(unet(x, t).sample, t, x, eta=eta, generator=theirs_of).prev_sample
        torch.testing.assert_close(ours, x, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_forcing_the_last_coefficient_to_one_moves_the_last_state_alone(unet):
    """The release's a_0 = 1 adds (1 − a_0) x0hat_1 to the state at node 0, and that state is not divided by a_0."""
    steps, nodes = 10, nodes_of(10)
    path = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
    a0, b0 = float(nodes.original.image[0]), float(path.noise[0])
    assert path.image[0] == 1
    assert a0 == pytest.approx((1 - 1e-4) ** 0.5)
    ddim = diffusers.DDIMScheduler(clip_sample=False)
    ddim.set_timesteps(steps)
    states, _ = looped(scheduler_of(path), lambda t, x: unet(x, t).sample, noise_of())
    x = noise_of()
    for t, ours in zip(ddim.timesteps[:-1], states, strict=False):
        out = ddim.step(unet(x, t).sample, t, x)
        x = out.prev_sample
        if t > 100:
            torch.testing.assert_close(ours, x, atol=1e-4, rtol=1e-4)
    at_zero = x + (1 - a0) * out.pred_original_sample
    torch.testing.assert_close(states[-2], at_zero, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(states[-1], at_zero - b0 * unet(at_zero, 0).sample, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_ddim_that_does_not_end_at_one_returns_our_state_at_node_zero(unet):
    ddim = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=False)
    ddim.set_timesteps(5)
    states, _ = looped(scheduler_of(nodes_of(5).original), lambda t, x: unet(x, t).sample, noise_of())
    x = noise_of()
    for t in ddim.timesteps:
        x = ddim.step(unet(x, t).sample, t, x).prev_sample
    torch.testing.assert_close(states[-2], x, atol=1e-4, rtol=1e-4)


@with_and_without_momentum
def test_a_scheduler_is_saved_and_loaded_exactly(tmp_path, momentum):
    scheduler = scheduler_of(chain_path(5, momentum), denoiser_digest="abc123", num_train_timesteps=1000)
    scheduler.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["scheduler_config.json"]
    config = scheduler.config
    for other in (LDSBScheduler.from_pretrained(tmp_path), LDSBScheduler.from_config(config), copy.deepcopy(scheduler)):
        for name in ("times", "image", "noise"):
            assert torch.equal(getattr(other.path, name), getattr(chain_path(5, momentum), name))
        assert (other.path.momentum is None) == (not momentum)
        if momentum:
            assert torch.equal(other.path.momentum, chain_path(5, momentum).momentum)
        assert other.config["denoiser_digest"] == "abc123"
        assert other.timesteps.tolist() == [800, 600, 400, 200, 0]
        ours, theirs = (looped(s, lambda t, x: toy(float(t), x), noise_of())[0][-1] for s in (scheduler, other))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("prediction", ["sample", "velocity"])
def test_what_the_network_predicts_and_its_time_are_kept(tmp_path, prediction):
    scheduler_of(linear_path(), prediction, chain=False, num_train_timesteps=500).save_pretrained(tmp_path)
    config = LDSBScheduler.from_pretrained(tmp_path).config
    assert (config["prediction"], config["chain"], config["num_train_timesteps"]) == (prediction, False, 500)


def test_the_json_is_small_and_numbers(tmp_path):
    scheduler_of(chain_path(20, momentum=True), denoiser_digest="0" * 64).save_pretrained(tmp_path)
    file = tmp_path / "scheduler_config.json"
    assert file.stat().st_size < 10_000
    config = json.loads(file.read_text())
    assert {name: len(config[name]) for name in ("times", "image", "noise", "momentum")} == {
        "times": 20, "image": 20, "noise": 20, "momentum": 19
    }  # fmt: skip


@pytest.mark.parametrize("first", [2e-4, 9.9e-4, 1.02e-3])
def test_a_learned_time_before_the_chains_first_is_the_first_timestep(first):
    """As our own sampler calls the network there."""
    path = chain_path()
    path = replace(path, times=torch.cat([path.times.new_tensor([first]), path.times[1:]]))
    scheduler = LDSBScheduler.from_config(scheduler_config(path, Timesteps("noise", chain=True)))
    assert float(scheduler.timesteps[-1]) == pytest.approx(max(0.0, 1000 * first - 1), abs=1e-6)
    assert torch.equal(scheduler.path.image, path.image)


def test_a_path_serves_the_denoiser_that_it_was_fitted_for(unet, tmp_path):
    unet.save_pretrained(tmp_path / "one")
    other = copy.deepcopy(unet)
    other.conv_in.weight.data += 1e-3
    other.save_pretrained(tmp_path / "other")
    weights = (tmp_path / "one" / "diffusion_pytorch_model.safetensors").read_bytes()
    fitted = hashlib.sha256(weights).hexdigest()[:16]
    scheduler = scheduler_of(chain_path(), denoiser_digest=fitted)
    scheduler.require_denoiser(tmp_path / "one")
    with pytest.raises(ValueError, match=f"fitted for the denoiser {fitted}, the weights of .*other are") as why:
        scheduler.require_denoiser(str(tmp_path / "other"))
    one_line(why)
    with pytest.raises(ValueError, match="absent cannot be read"):
        scheduler.require_denoiser(tmp_path / "absent")
    with pytest.raises(ValueError, match="does not say which denoiser"):
        scheduler_of(chain_path()).require_denoiser(tmp_path / "one")


@torch.no_grad()
def test_a_pipeline_is_saved_and_loaded_with_its_path(unet, tmp_path):
    """As `DDPMPipeline`: `DDIMPipeline` would convert the scheduler."""
    pipeline = diffusers.DDPMPipeline(unet, scheduler_of(chain_path()))
    pipeline.save_pretrained(tmp_path)
    loaded = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    assert type(loaded.scheduler) is LDSBScheduler
    images = []
    for one in (pipeline, loaded):
        one.set_progress_bar_config(disable=True)
        images.append(one(2, torch.Generator().manual_seed(3), num_inference_steps=5, output_type="pt").images)
    torch.testing.assert_close(*images)


def test_ddim_pipelines_constructor_is_refused_rather_than_sampling_without_the_path(unet):
    scheduler = scheduler_of(chain_path())
    with pytest.raises(NotImplementedError, match=r"an LDSB path \(set pipeline\.scheduler after construction") as why:
        diffusers.DDIMPipeline(unet, scheduler)
    one_line(why)
    with pytest.raises(NotImplementedError):
        diffusers.DDPMScheduler.from_config(scheduler.config)


def test_it_has_what_pipelines_look_for():
    scheduler = scheduler_of(chain_path(), num_train_timesteps=1000)
    assert len(scheduler) == 1000
    assert len(scheduler.path) == 5
    assert (scheduler.order, scheduler.init_noise_sigma) == (1, 1.0)
    x = noise_of()
    assert scheduler.scale_model_input(x, 800) is x
    scheduler.set_timesteps(5, device="meta")
    assert scheduler.timesteps.device.type == "meta"
    assert scheduler.num_inference_steps == 5
    scheduler.set_timesteps(num_inference_steps=5)
    assert scheduler.timesteps.dtype == torch.int64
    moved, image = scheduler.step(x, 800, x, eta=0.0, use_clipped_model_output=None, generator=None, return_dict=False)
    out = scheduler.step(x, torch.tensor(800), x, generator=torch.Generator())
    assert torch.equal(out.prev_sample, moved)
    assert torch.equal(out.pred_original_sample, image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_no_digits_of_the_path(dtype):
    path, x = chain_path(5, momentum=True), noise_of(4)
    halves, _ = looped(scheduler_of(path), lambda t, x: toy(float(t) / 1000, x), x.to(dtype))
    assert {state.dtype for state in halves} == {dtype}
    step = scheduler_of(path).step(toy(0.8, x.to(dtype)), 800, x.to(dtype)).prev_sample
    exact = scheduler_of(path).step(toy(0.8, x.to(dtype)).float(), 800, x.to(dtype).float()).prev_sample
    torch.testing.assert_close(step, exact.to(dtype))


def test_momentum_begins_anew_with_every_sample():
    """Where a sample was not finished as well, with set_timesteps or by another first timestep."""
    scheduler, x = scheduler_of(chain_path(5, momentum=True)), noise_of()
    network = lambda t, x: toy(float(t) / 1000, x)  # noqa: E731
    fresh, _ = looped(scheduler, network, x)
    again, _ = looped(scheduler, network, x)
    assert torch.equal(fresh[-1], again[-1])
    scheduler.step(3 * x, 800, x)
    scheduler.set_timesteps(5)
    plain = scheduler_of(chain_path(5)).step(x, 600, x).prev_sample
    assert torch.equal(scheduler.step(x, 600, x).prev_sample, plain)
    assert torch.equal(scheduler.step(x, 600, x).prev_sample, plain), "an estimate of node 3 was used at node 3"
    assert not torch.equal(scheduler.step(x, 400, x).prev_sample, scheduler_of(chain_path(5)).step(x, 400, x)[0])


def test_noise_is_added_along_the_learned_path():
    path, scheduler = chain_path(), scheduler_of(chain_path())
    x0, eps = noise_of(5), noise_of(6)
    mixed = scheduler.add_noise(x0, eps, torch.tensor([0, 400, 800]))
    for row, k in enumerate((0, 2, 4)):
        torch.testing.assert_close(mixed[row], float(path.image[k]) * x0[row] + float(path.noise[k]) * eps[row])
    torch.testing.assert_close(scheduler.add_noise(x0, eps, torch.tensor(400))[1], mixed[1])
    continuous = scheduler_of(linear_path(), "velocity", chain=False)
    torch.testing.assert_close(continuous.add_noise(x0, eps, continuous.timesteps[[-1]]), 0.95 * x0 + 0.05**1.1 * eps)
    with pytest.raises(ValueError, match=r"timestep 401 is no node of this path \(nodes: 0, 200, 400, 600, 800\)") as e:
        scheduler.add_noise(x0, eps, torch.tensor([400, 401, 0]))
    one_line(e)
    with pytest.raises(ValueError, match="3 images and 2 timesteps"):
        scheduler.add_noise(x0, eps, torch.tensor([400, 0]))


@pytest.mark.parametrize(("call", "said"), [
    (lambda s, x: s.set_timesteps(50), r"num_inference_steps is 50, but this path was fitted for 5 steps: pass num"),
    (lambda s, x: s.step(x, 800, x, eta=1.5), r"eta must be in \[0, 1\], got 1\.5"),
    (lambda s, x: s.step(x, 800, x, use_clipped_model_output=True), "use_clipped_model_output must stay off"),
    (lambda s, x: s.step(x, 801, x), r"timestep 801 is no node of this path \(nodes: 0, 200, 400, 600, 800\)"),
    (lambda s, x: s.step(x, float("nan"), x), "timestep nan is no node"),
    (lambda s, x: s.step(x, torch.tensor([800, 600, 0]), x), "step takes one timestep for all states, got 3"),
    (lambda s, x: s.step(x.repeat(1, 2, 1, 1), 800, x), r"the model's output is \[3, 2, 8, 8\], the state \[3, 1, 8"),
    (lambda s, x: s.step(x * torch.nan, 400, x), "the model's output is not finite at timestep 400"),
    (lambda s, x: s.step(x / 0, 0, x), "the model's output is not finite at timestep 0"),
])  # fmt: skip
def test_a_wrong_call_is_one_line(call, said):
    with pytest.raises(ValueError, match=said) as message:
        call(scheduler_of(chain_path()), noise_of())
    one_line(message)


@pytest.mark.parametrize(("change", "said"), [
    ({"image": [1.0, 0.8, 0.9, 0.2, 0.1]}, "a must be positive, finite and falling with k"),
    ({"image": [1.0, 0.8, 0.5, 0.2, -0.1]}, "a must be positive, finite and falling"),
    ({"image": [1.0, 0.8, 0.0, 0.0, 0.0]}, "a must be positive, finite and falling"),
    ({"image": [1.0, 0.8, 0.5, 0.2, 0.0]}, "prediction epsilon needs a > 0 at every node"),
    ({"image": [1.0, 0.8, 0.5, 0.2, float("nan")]}, "image must be finite"),
    ({"image": [1.0, 0.8, 0.5, 0.2]}, r"a path of 5 nodes needs as many a and b, and one c less; got \[4, 5\]"),
    ({"image": [1.0, 0.8, 0.5, 0.2, "0.1"]}, "image must be a list of numbers"),
    ({"image": 1.0}, "image must be a list of numbers"),
    ({"noise": [0.1, 0.5, 0.4, 0.9, 1.0]}, "b must be positive, finite and rising with k"),
    ({"noise": [-0.1, 0.5, 0.8, 0.9, 1.0]}, "b must be positive"),
    ({"noise": [0.0, 0.0, 0.8, 0.9, 1.0]}, "b must be positive"),
    ({"noise": [0.0, 0.1, 0.8, 0.9, float("inf")]}, "noise must be finite"),
    ({"noise": None}, "noise must be a list of numbers"),
    ({"times": [0.001, 0.201, 0.601, 0.401, 0.801]}, "times must rise with k within"),
    ({"times": [0.0, 0.201, 0.401, 0.601, 0.801]}, "times must rise from the first of 1000 timesteps"),
    ({"times": []}, "no times, image and noise"),
    ({"momentum": [0.1] * 5}, "one c less"),
    ({"momentum": [0.1, 0.1, 0.1, float("nan")]}, "momentum must be finite"),
    ({"prediction": "v_prediction"}, r"unknown prediction 'v_prediction' \(allowed: epsilon, sample, velocity\)"),
    ({"num_train_timesteps": 0}, "num_train_timesteps must be a whole number >= 1, got 0"),
    ({"chain": "yes"}, "chain must be true or false, got 'yes'"),
])  # fmt: skip
def test_a_configuration_that_is_no_path_is_one_line(change, said):
    config = {**scheduler_of(chain_path()).config, **change}
    with pytest.raises(ValueError, match=said) as message:
        LDSBScheduler.from_config(config)
    one_line(message)


def test_another_schedulers_configuration_is_refused():
    with pytest.raises(ValueError, match=r"comes from LDSBScheduler\.from_path or its JSON"):
        LDSBScheduler.from_config(diffusers.DDIMScheduler().config)


def test_a_path_that_is_not_monotone_is_refused():
    path = chain_path()
    with pytest.raises(ValueError, match="b must be positive, finite and rising"):
        scheduler_of(RatioPath(path.times, path.image, path.noise.flip(0)))


def test_a_path_with_gradients_is_taken_without_them():
    path = chain_path()
    learned = RatioPath(path.times, path.image.requires_grad_(), path.noise.requires_grad_())
    assert not scheduler_of(learned).path.image.requires_grad

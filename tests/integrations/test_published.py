"""Other people's networks as denoisers, against diffusers' own samplers and U-Net."""

import hashlib
import json
import os
import shlex
import shutil

import diffusers
import pytest
import safetensors.torch
import torch

from sbbridge.data import DataError
from sbbridge.integrations.ddpm_unet import DDPMUNet, DDPMUNetSizes, read_ddpm_unet
from sbbridge.integrations.published import WEIGHTS, load_denoiser
from sbbridge.path import LINEAR, Denoiser, ratio_nodes
from sbbridge.rng import isolated
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path
from sbbridge.solvers.ratio_path import carry

# diffusers and numpy 2 disagree about __array__
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
SHAPE = (1, 8, 8)
INDICES = (0, 1, 349, 500, 999)
LINEAR_BETAS = {"beta_schedule": "linear", "clip_sample": False}
SIZES = DDPMUNetSizes(1, 1, first=32, widths=(32, 64), num_blocks=1, attention=frozenset({1}))
CIFAR10 = DDPMUNetSizes(3, 3, first=128, widths=(128, 256, 256, 256), num_blocks=2, attention=frozenset({1}))
PUBLISHED_KEYS = [
    "temb.dense.0.weight", "temb.dense.1.bias", "conv_in.weight", "conv_in.bias", "down.0.block.0.norm1.weight",
    "down.0.block.1.conv1.weight", "down.0.block.1.temb_proj.bias", "down.0.block.1.norm2.bias",
    "down.0.block.0.conv2.weight", "down.0.downsample.conv.weight", "down.1.block.0.nin_shortcut.weight",
    "down.1.attn.0.norm.weight", "down.1.attn.1.q.weight", "down.1.attn.0.k.bias", "down.1.attn.0.v.weight",
    "down.1.attn.0.proj_out.weight", "down.2.downsample.conv.bias", "mid.block_1.norm1.weight", "mid.attn_1.q.weight",
    "mid.block_2.conv2.bias", "up.0.block.2.nin_shortcut.weight", "up.1.attn.2.proj_out.bias",
    "up.1.upsample.conv.weight", "up.3.block.2.conv1.weight", "up.3.upsample.conv.bias", "norm_out.weight",
    "conv_out.weight", "conv_out.bias",
]  # fmt: skip


def images(n=3, shape=SHAPE, seed=1):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def times(indices=INDICES):
    return (torch.tensor(indices, dtype=torch.float64) + 1) / 1000


def unet(**options):
    with isolated(0):
        return diffusers.UNet2DModel(**{
            "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4,
            "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "attention_head_dim": 4, **options,
        }).eval()  # fmt: skip


def write_pipeline(folder, scheduler=None, kind="DDPMPipeline", **options):
    """The pipeline that was saved."""
    scheduler = scheduler or diffusers.DDPMScheduler(**LINEAR_BETAS)
    pipeline = getattr(diffusers, kind)(unet(**options), scheduler)
    pipeline.save_pretrained(str(folder))
    return pipeline


def edit(path, **changes):
    """Changes a JSON file; None removes a key."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def network(sizes=SIZES):
    """A checkpoint's network, all weights away from their start."""
    with isolated(0):
        made = DDPMUNet(sizes)
        for weight in made.parameters():
            weight.data += 0.05 * torch.randn_like(weight)
    return made.eval()


DDPM_CHAIN = DDPM()


def load(where, prediction=None, sha256=None, shape=SHAPE, schedule=DDPM_CHAIN) -> Denoiser:
    return load_denoiser(where, shape, prediction, sha256, "cpu", schedule)


def refusal(where, *words, **arguments):
    with pytest.raises(DataError) as caught:
        load(where, **arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert f"SB_DENOISER {where}: " in message
    for word in words:
        assert word in message, message
    return message


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pipeline and its folder; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("pipeline")
    return write_pipeline(folder), folder


@pytest.fixture
def pipeline(saved, tmp_path):
    shutil.copytree(saved[1], tmp_path / "copy")
    return tmp_path / "copy"


class TestDiffusersFolders:
    @pytest.mark.parametrize(("said", "told"), [("epsilon", "noise"), ("sample", "image")])
    def test_values_are_the_stock_networks_at_every_index(self, tmp_path, said, told):
        stock = write_pipeline(tmp_path, diffusers.DDPMScheduler(prediction_type=said, **LINEAR_BETAS))
        denoiser = load(tmp_path)
        assert (denoiser.prediction, denoiser.chain) == (told, 1000)
        x = images(len(INDICES))
        for i, t in zip(INDICES, times(), strict=True):
            torch.testing.assert_close(denoiser.field(t, x), stock.unet(x, i).sample, atol=1e-6, rtol=0)
            a = stock.scheduler.alphas_cumprod[i].double().sqrt()
            torch.testing.assert_close(denoiser.path.mean(t), a, atol=1e-5, rtol=1e-4)
        together = stock.unet(x, torch.tensor(INDICES)).sample
        torch.testing.assert_close(denoiser.field(times(), x), together, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("said", ["epsilon", "sample", "v_prediction"])
    def test_its_own_path_is_sampled_as_the_stock_pipeline_samples(self, tmp_path, said):
        scheduler = diffusers.DDIMScheduler(prediction_type=said, **LINEAR_BETAS)
        stock = write_pipeline(tmp_path, scheduler, "DDIMPipeline")
        denoiser = load(tmp_path)
        start = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(7))
        path = ratio_nodes(denoiser.path, "leading_uniform", 5, chain=denoiser.chain).original
        made = carry(denoiser, path, start)
        x = start
        stock.scheduler.set_timesteps(5)
        for i in stock.scheduler.timesteps:
            x = stock.scheduler.step(stock.unet(x, i).sample, i, x).prev_sample
        torch.testing.assert_close(made, x, atol=2e-5, rtol=2e-5)
        shown = stock(2, torch.Generator().manual_seed(7), num_inference_steps=5, output_type="np").images
        expected = (made / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        torch.testing.assert_close(torch.from_numpy(shown), expected, atol=2e-5, rtol=0)

    def test_v_becomes_noise_as_the_stock_scheduler_reads_it(self, tmp_path):
        scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction", **LINEAR_BETAS)
        stock = write_pipeline(tmp_path, scheduler, "DDIMPipeline")
        denoiser = load(tmp_path)
        assert denoiser.prediction == "noise"
        x = images()
        scheduler.set_timesteps(1000)
        for i, t in zip(INDICES, times(), strict=True):
            x0 = scheduler.step(stock.unet(x, i).sample, i, x).pred_original_sample
            mine, _ = denoiser.estimates(t, x, denoiser.path.mean(t), denoiser.path.scale(t))
            a = float(denoiser.path.mean(t))
            torch.testing.assert_close(a * mine, a * x0, atol=1e-5, rtol=1e-5)

    def test_another_linear_schedule_is_read(self, tmp_path):
        betas = {"beta_start": 1e-3, "beta_end": 0.2, "num_train_timesteps": 100}
        stock = write_pipeline(tmp_path, diffusers.DDPMScheduler(**LINEAR_BETAS, **betas))
        denoiser = load(tmp_path)
        assert denoiser.chain == 100
        t = torch.tensor(0.31, dtype=torch.float64)
        assert denoiser.path.mean(t) == reference_path(DDPM(100, 1e-3, 0.2)).mean(t)
        torch.testing.assert_close(denoiser.field(t, images()), stock.unet(images(), 30).sample, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("kind", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
    def test_flow_matching_is_a_velocity_told_its_time_in_steps(self, tmp_path, kind):
        stock = write_pipeline(tmp_path, getattr(diffusers, kind)(num_train_timesteps=500, shift=3.0))
        denoiser = load(tmp_path)
        assert (denoiser.prediction, denoiser.path, denoiser.chain) == ("velocity", LINEAR, None)
        x, t = images(2), torch.tensor([0.25, 0.9], dtype=torch.float64)
        expected = stock.unet(x, torch.tensor([125.0, 450.0])).sample
        torch.testing.assert_close(denoiser.field(t, x), expected, atol=1e-6, rtol=0)

    def test_a_flow_is_followed_as_the_stock_scheduler_follows_it(self, tmp_path):
        stock = write_pipeline(tmp_path, diffusers.FlowMatchEulerDiscreteScheduler())
        denoiser, x = load(tmp_path), images()
        y = x.clone()
        stock.scheduler.set_timesteps(4)
        sigmas = stock.scheduler.sigmas.double()
        for i, timestep in enumerate(stock.scheduler.timesteps):
            x = stock.scheduler.step(stock.unet(x, timestep).sample, timestep, x).prev_sample
            y = y + (sigmas[i + 1] - sigmas[i]).float() * denoiser.field(sigmas[i], y)
        torch.testing.assert_close(y, x, atol=1e-5, rtol=1e-5)

    def test_all_in_one_folder_as_the_oldest_pipelines(self, saved, tmp_path):
        for path in saved[1].glob("*/*"):
            shutil.copy(path, tmp_path)
        shutil.copy(saved[1] / "model_index.json", tmp_path)
        x, t = images(), times()[2]
        torch.testing.assert_close(load(tmp_path).field(t, x), load(saved[1]).field(t, x), atol=0, rtol=0)

    @pytest.mark.parametrize("prediction", ["noise", "image", "velocity"])
    def test_a_network_without_a_scheduler_is_what_the_user_says(self, saved, prediction):
        denoiser = load(saved[1] / "unet", prediction)
        assert denoiser.prediction == prediction
        assert denoiser.chain == (None if prediction == "velocity" else 1000)
        t = torch.tensor(0.3, dtype=torch.float64)
        expected = LINEAR if prediction == "velocity" else reference_path(DDPM())
        assert denoiser.path.mean(t) == expected.mean(t)
        timestep = 300 if prediction == "velocity" else 299
        x = images()
        torch.testing.assert_close(denoiser.field(t, x), saved[0].unet(x, timestep).sample, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("prediction", ["noise", "image"])
    def test_a_schedule_that_the_files_do_not_tell_is_demanded(self, saved, prediction):
        said = ["a network without a scheduler does not tell its noise schedule", "reference.kind=ddpm", "first_beta"]
        refusal(saved[1] / "unet", *said, prediction=prediction, schedule=None)
        denoiser = load(saved[1] / "unet", prediction, schedule=DDPM(100, 1e-3, 0.2))
        t = torch.tensor(0.3, dtype=torch.float64)
        betas = torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)
        assert float(denoiser.path.mean(t)) == pytest.approx(float((1 - betas[:30]).prod().sqrt()))
        x = images()
        torch.testing.assert_close(denoiser.field(t, x), saved[0].unet(x, 29).sample, atol=1e-6, rtol=0)
        assert load(saved[1] / "unet", "velocity", schedule=None).path == LINEAR

    def test_timesteps_of_the_network_and_of_the_schedule_must_agree(self, pipeline):
        edit(pipeline / "unet" / "config.json", num_train_timesteps=500)
        refusal(pipeline / "unet", "num_train_timesteps 500, the reference has 1000", prediction="noise")
        assert load(pipeline / "unet", "noise", schedule=DDPM(500)).chain == 500

    def test_a_reversed_velocity_is_turned_round_once(self, saved):
        """x0 − eps at s = 1 − t: straight lines of known ends are the same from either side."""
        denoiser = load(saved[1] / "unet", "reversed_velocity")
        assert (denoiser.prediction, denoiser.path, denoiser.chain) == ("velocity", LINEAR, None)
        x, t = images(), torch.tensor(0.3, dtype=torch.float64)
        torch.testing.assert_close(denoiser.field(t, x), -saved[0].unet(x, 700).sample, atol=1e-6, rtol=0)

    def test_a_prediction_that_agrees_with_the_files_is_fine(self, saved):
        assert load(saved[1], "noise").prediction == "noise"

    def test_weights_in_half_precision_are_read_as_float32(self, tmp_path):
        unet().half().save_pretrained(str(tmp_path))
        assert load(tmp_path, "noise").field(times()[2], images()).dtype == torch.float32

    @pytest.mark.usefixtures("float64", "global_state_untouched")
    def test_double_precision_as_default_and_the_global_seed_are_left_alone(self, saved):
        x = images().double()
        value = load(saved[1]).field(times()[1], x)
        assert value.dtype == torch.float64


class TestFields:
    @pytest.fixture(params=["noise", "v_prediction", "velocity", "checkpoint"])
    def denoiser(self, request, tmp_path):
        if request.param == "checkpoint":
            torch.save(network().state_dict(), tmp_path / "weights.pt")
            return load(tmp_path / "weights.pt")
        if request.param == "velocity":
            write_pipeline(tmp_path, diffusers.FlowMatchEulerDiscreteScheduler())
        else:
            said = "epsilon" if request.param == "noise" else "v_prediction"
            write_pipeline(tmp_path, diffusers.DDPMScheduler(prediction_type=said, **LINEAR_BETAS))
        return load(tmp_path)

    @pytest.mark.parametrize("time", [0.3005, 0.4], ids=["between", "on the chain"])
    def test_gradients_reach_states_and_times(self, denoiser, time):
        x = images(2).requires_grad_()
        t = torch.tensor(time, dtype=torch.float64, requires_grad=True)
        weights = images(2, seed=3)
        by_x, by_t = torch.autograd.grad((weights * denoiser.field(t, x)).sum(), (x, t))
        assert torch.isfinite(by_x).all()
        assert by_x.abs().min(0).values.max() > 0
        h = 5e-5  # the network's fastest wave turns by 1 radian an index
        with torch.no_grad():
            ends = [(weights * denoiser.field(t + s, x)).sum().double() for s in (h, -h)]
        slope = float(ends[0] - ends[1]) / (2 * h)
        assert float(by_t) == pytest.approx(slope, rel=0.02)

    def test_one_time_is_every_rows_time_and_nothing_is_changed(self, denoiser):
        x, t = images(3), torch.tensor(0.4, dtype=torch.float64)
        before = x.clone()
        value = denoiser.field(t, x)
        assert not value.requires_grad
        assert torch.equal(x, before)
        torch.testing.assert_close(denoiser.field(t.expand(3), x), value, atol=1e-6, rtol=0)
        torch.testing.assert_close(denoiser.field(t, x.double()), value.double(), atol=1e-6, rtol=0)

    def test_times_before_the_chain_are_its_first_index(self, saved):
        field, x = load(saved[1]).field, images()
        first = field(times()[0], x)
        for t in (0.0, 1e-5):
            torch.testing.assert_close(field(torch.tensor(t, dtype=torch.float64), x), first, atol=0, rtol=0)

    def test_dropout_is_off(self, tmp_path):
        write_pipeline(tmp_path, dropout=0.5)
        field, x = load(tmp_path).field, images()
        assert torch.equal(field(times()[1], x), field(times()[1], x))


class TestDigests:
    def test_the_digest_begins_the_weights_sha256(self, saved, tmp_path):
        weights = saved[1] / "unet" / WEIGHTS
        sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        assert load(saved[1], sha256=sha256.upper()).digest == sha256[:16]
        torch.save(network().state_dict(), tmp_path / "weights.pt")
        sha256 = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
        assert load(tmp_path / "weights.pt", sha256=sha256).digest == sha256[:16]

    def test_other_weights_are_refused(self, saved, tmp_path):
        torch.save(network().state_dict(), tmp_path / "weights.pt")
        for where in (saved[1], tmp_path / "weights.pt"):
            refusal(where, "has SHA-256", "method.denoiser.sha256 says " + "0" * 64, sha256="0" * 64)


class TestRefusedFolders:
    def test_absent_and_empty(self, tmp_path):
        refusal(tmp_path / "absent", "does not exist", "config.json", WEIGHTS, "checkpoint")
        refusal(tmp_path, "no config.json", "model_index.json")

    def test_what_the_files_do_not_tell_is_demanded(self, saved, pipeline):
        words = ("method.denoiser.prediction", "allowed: noise, velocity, image, reversed_velocity")
        refusal(saved[1] / "unet", *words)
        refusal(saved[1] / "unet", *words, "got score", prediction="score")
        edit(pipeline / "scheduler" / "scheduler_config.json", prediction_type=None)
        refusal(pipeline, "method.denoiser.prediction", "allowed: noise, image")
        assert load(pipeline, "image").prediction == "image"

    @pytest.mark.parametrize("said", ["epsilon", "v_prediction"])
    def test_a_contradiction(self, pipeline, said):
        edit(pipeline / "scheduler" / "scheduler_config.json", prediction_type=said)
        refusal(pipeline, "method.denoiser.prediction says image", "DDPMScheduler says", prediction="image")

    def test_a_contradicted_flow(self, tmp_path):
        write_pipeline(tmp_path, diffusers.FlowMatchEulerDiscreteScheduler())
        refusal(tmp_path, "says velocity", "says noise", prediction="noise")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"beta_schedule": "scaled_linear"}, ("beta_schedule scaled_linear", "allowed: linear")),
            ({"beta_schedule": "squaredcos_cap_v2"}, ("beta_schedule squaredcos_cap_v2", "allowed: linear")),
            ({"trained_betas": [0.1, 0.2]}, ("trained_betas", "allowed: linear")),
            ({"rescale_betas_zero_snr": True}, ("rescale_betas_zero_snr", "allowed: linear")),
            ({"beta_start": None}, ("must give beta_start as a number",)),
            ({"num_train_timesteps": "many"}, ("must give num_train_timesteps as a number, got many",)),
            ({"beta_end": 1.5}, ("no usable noise schedule", "last_beta")),
            ({"prediction_type": "flow_prediction"}, ("prediction_type flow_prediction", "epsilon, sample")),
            ({"_class_name": "ScoreSdeVeScheduler"}, ("ScoreSdeVeScheduler is not supported", "DDIMScheduler")),
            ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, ("invert_sigmas",)),
        ],
    )
    def test_schedules(self, pipeline, changes, words):
        edit(pipeline / "scheduler" / "scheduler_config.json", **changes)
        refusal(pipeline, *words)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"_class_name": "UNet2DConditionModel"}, ("UNet2DConditionModel", "allowed: UNet2DModel")),
            ({"time_embedding_type": "fourier"}, ("time_embedding_type fourier", "allowed: positional")),
            ({"num_class_embeds": 10}, ("class labels",)),
            ({"layers_per_block": 2}, ("no usable UNet2DModel", "size mismatch")),
            ({"act_fn": "none"}, ("no usable UNet2DModel",)),
            ({"add_attention": False}, ("is not of config.json", "unexpected_keys, the first mid_block")),
            ({"block_out_channels": [8, 32]}, ("no usable UNet2DModel",)),
            ({"block_out_channels": [8, 18]}, ("no usable UNet2DModel",)),
        ],
    )
    def test_networks(self, pipeline, changes, words):
        edit(pipeline / "unet" / "config.json", **changes)
        refusal(pipeline, *words)

    @pytest.mark.parametrize(
        ("shape", "words"),
        [((3, 8, 8), "1 -> 1 channels"), ((1, 16, 16), "8 x 8"), ((2,), "[channels, height, width]")],
    )
    def test_other_images(self, saved, shape, words):
        refusal(saved[1], words, str(list(shape)), shape=shape)

    def test_learned_variance(self, tmp_path):
        write_pipeline(tmp_path, out_channels=2)
        refusal(tmp_path, "2 output channels for 1", "variance")

    def test_sides_that_the_network_cannot_halve(self, tmp_path):
        unet(sample_size=None).save_pretrained(str(tmp_path))
        assert load(tmp_path, "noise", shape=(1, 4, 4))
        refusal(tmp_path, "fails on images [1, 5, 5]", prediction="noise", shape=(1, 5, 5))

    def test_weights_that_would_be_unpickled(self, tmp_path):
        unet().save_pretrained(str(tmp_path), safe_serialization=False)
        message = refusal(tmp_path, "no " + WEIGHTS, ".bin", prediction="noise")
        python, option, code = shlex.split(message.split("(convert it: ")[1].removesuffix(")"))
        assert (python, option) == ("python", "-c")
        exec(code, {})
        assert load(tmp_path, "noise")

    def test_torn_files(self, pipeline):
        weights = pipeline / "unet" / WEIGHTS
        whole = weights.read_bytes()
        weights.write_bytes(whole[: len(whole) // 2])
        refusal(pipeline, "no usable UNet2DModel")
        weights.unlink()
        refusal(pipeline, "no " + WEIGHTS)
        (pipeline / "unet" / "config.json").write_text('{"_class_name": ')
        refusal(pipeline, "config.json cannot be read")
        (pipeline / "scheduler" / "scheduler_config.json").write_text("[]")
        refusal(pipeline, "scheduler_config.json must be a JSON object")
        (pipeline / "scheduler" / "scheduler_config.json").unlink()
        refusal(pipeline, "scheduler/scheduler_config.json is not")
        edit(pipeline / "model_index.json", _class_name="StableDiffusionPipeline")
        refusal(pipeline, "StableDiffusionPipeline", "DDPMPipeline, DDIMPipeline")

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda state: state["conv_out.bias"].fill_(float("nan")), ("conv_out.bias holds NaN", "finite")),
            (lambda state: state.pop("conv_out.bias"), ("is not of config.json", "missing_keys, the first conv_out")),
        ],
    )
    def test_weights_that_do_not_work(self, pipeline, change, words):
        weights = pipeline / "unet" / WEIGHTS
        state = safetensors.torch.load_file(str(weights))
        change(state)
        safetensors.torch.save_file(state, str(weights), metadata={"format": "pt"})
        refusal(pipeline, *words)


def in_diffusers(ours):
    """diffusers' own U-Net with this network's weights: the layout of the converted CIFAR-10 model."""
    sizes, last = ours.sizes, len(ours.sizes.widths) - 1
    kinds = ["Attn" if i in sizes.attention else "" for i in range(last + 1)]
    theirs = diffusers.UNet2DModel(
        in_channels=sizes.in_channels, out_channels=sizes.out_channels, layers_per_block=sizes.num_blocks,
        block_out_channels=sizes.widths, down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)], attention_head_dim=None, norm_eps=1e-6,
        flip_sin_to_cos=False, freq_shift=1, downsample_padding=0,
    ).eval()  # fmt: skip
    parts = {
        "temb_proj": "time_emb_proj", "nin_shortcut": "conv_shortcut", "norm": "group_norm", "q": "to_q", "k": "to_k",
        "v": "to_v", "proj_out": "to_out.0", "downsample": "downsamplers.0", "upsample": "upsamplers.0",
        "block": "resnets", "attn": "attentions", "block_1": "resnets.0", "block_2": "resnets.1",
        "attn_1": "attentions.0", "mid": "mid_block", "down": "down_blocks", "up": "up_blocks",
        "norm_out": "conv_norm_out",
    }  # fmt: skip
    state = {}
    for name, weight in ours.state_dict().items():
        words = name.split(".")
        if words[0] == "up":
            words[1] = str(last - int(words[1]))
        renamed = ".".join(parts.get(word, word) for word in words)
        for i in (0, 1):
            renamed = renamed.replace(f"temb.dense.{i}", f"time_embedding.linear_{i + 1}")
        linear = any(f".{part}." in renamed for part in ("to_q", "to_k", "to_v", "to_out.0"))
        state[renamed] = weight.flatten(1) if linear and weight.dim() == 4 else weight
    theirs.load_state_dict(state)
    return theirs


class TestCheckpoints:
    def test_names_and_weights_are_the_published_ones(self):
        with torch.device("meta"):
            state = DDPMUNet(CIFAR10).state_dict()
        assert set(PUBLISHED_KEYS) <= set(state)
        assert not any(name.startswith(("down.3.downsample", "up.0.upsample", "down.0.attn")) for name in state)
        assert sum(weight.numel() for weight in state.values()) == 35_746_307

    @pytest.mark.parametrize(
        "sizes",
        [SIZES, DDPMUNetSizes(3, 3, first=32, widths=(32, 64, 64), num_blocks=2, attention=frozenset({0, 2}))],
    )
    def test_values_are_those_of_diffusers_u_net_of_the_same_weights(self, sizes):
        ours = network(sizes)
        x, index = images(3, (sizes.in_channels, 8, 8)), torch.tensor([0.0, 400.0, 999.0])
        with torch.no_grad():
            torch.testing.assert_close(ours(x, index), in_diffusers(ours)(x, index).sample, atol=2e-5, rtol=1e-5)

    @pytest.mark.parametrize(
        "pack",
        [
            lambda state, other: state,
            lambda state, other: {f"module.{name}": weight for name, weight in state.items()},
            lambda state, other: {"state_dict": state, "epoch": 3},
            lambda state, other: {"ema": state, "model": other},
            lambda state, other: {"model": {f"module.{name}": weight for name, weight in state.items()}, "ema": 0.99},
            lambda state, other: [other, {"state": {}, "param_groups": []}, 3, 1000, state],
            lambda state, other: [state, {"state": {}, "param_groups": []}, 3, 1000],
            lambda state, other: (state,),
        ],
        ids=["plain", "prefixed", "state_dict", "ema", "model", "list with ema", "list without", "tuple"],
    )
    def test_every_container_holds_the_same_network(self, tmp_path, pack):
        ours = network()
        other = {name: weight + 1 for name, weight in ours.state_dict().items()}
        torch.save(pack(ours.state_dict(), other), tmp_path / "weights.ckpt")
        denoiser = load(tmp_path / "weights.ckpt")
        assert (denoiser.prediction, denoiser.chain) == ("noise", 1000)
        assert read_ddpm_unet(tmp_path / "weights.ckpt").sizes == SIZES
        x = images(len(INDICES))
        expected = ours(x, torch.tensor(INDICES))
        torch.testing.assert_close(denoiser.field(times(), x), expected, atol=1e-6, rtol=0)
        t = torch.tensor(0.3, dtype=torch.float64)
        assert denoiser.path.mean(t) == reference_path(DDPM()).mean(t)
        other = load(tmp_path / "weights.ckpt", schedule=DDPM(1000, 1e-3, 0.01))
        assert other.path.mean(t) == reference_path(DDPM(1000, 1e-3, 0.01)).mean(t)
        refusal(tmp_path / "weights.ckpt", "a DDPM checkpoint does not tell its noise schedule", schedule=None)

    @pytest.mark.parametrize("name", ["weights.safetensors", "legacy.pt", "half.pt"])
    def test_other_ways_to_save_it(self, tmp_path, name):
        ours, state = network(), network().state_dict()
        if name == "weights.safetensors":
            safetensors.torch.save_file(state, str(tmp_path / name))
        elif name == "legacy.pt":
            torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
        else:
            torch.save({key: weight.half() for key, weight in state.items()}, tmp_path / name)
            ours = ours.half().float()
        value = load(tmp_path / name).field(times()[2], images())
        torch.testing.assert_close(value, ours(images(), torch.full((3,), 349.0)), atol=1e-6, rtol=0)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda s: s.pop("mid.attn_1.q.weight"), "lacks mid.attn_1.q.weight"),
            (lambda s: s.update({"up.0.attn.0.q.weight": torch.zeros(1)}), "has unknown up.0.attn.0.q.weight"),
            (lambda s: s.update({"temb.dense.1.bias": torch.zeros(7)}), "temb.dense.1.bias is [7], expected [128]"),
            (lambda s: s.pop("conv_in.weight"), "no convolution conv_in.weight"),
            (lambda s: s.update({"down.99999999.x": torch.zeros(1)}), "no convolution down.2.block.0.conv1.weight"),
            (lambda s: s["conv_out.bias"].fill_(float("nan")), "finite"),
            (lambda s: s.clear(), "no state dict"),
        ],
    )
    def test_weights_that_are_not_such_a_network(self, tmp_path, change, words):
        state = network().state_dict()
        change(state)
        torch.save(state, tmp_path / "weights.pt")
        refusal(tmp_path / "weights.pt", words)

    def test_other_networks_and_containers_are_named(self, tmp_path):
        where = tmp_path / "weights.pt"
        torch.save(torch.nn.Linear(2, 2).state_dict(), where)
        refusal(where, "weights.pt is no DDPM U-Net", "bias, weight")
        torch.save({"net": network().state_dict()}, where)
        refusal(where, "a dict of net", "ema, state_dict, model")
        torch.save([1, "two"], where)
        refusal(where, "a list of int, str")
        torch.save(torch.zeros(2), where)
        refusal(where, "but a Tensor")

    @pytest.mark.parametrize(
        ("sizes", "shape", "words"),
        [
            ((1, 2), SHAPE, "2 output channels for 1"),
            ((3, 3), SHAPE, "3 -> 3 channels"),
            ((1, 1), (1, 7, 7), "fails on images"),
        ],
    )
    def test_other_images(self, tmp_path, sizes, shape, words):
        made = network(DDPMUNetSizes(*sizes, first=32, widths=(32, 64), num_blocks=1, attention=frozenset({1})))
        torch.save(made.state_dict(), tmp_path / "weights.pt")
        refusal(tmp_path / "weights.pt", words, shape=shape)

    @pytest.mark.parametrize("prediction", ["image", "velocity"])
    def test_it_predicts_noise(self, tmp_path, prediction):
        torch.save(network().state_dict(), tmp_path / "weights.pt")
        refusal(tmp_path / "weights.pt", f"method.denoiser.prediction says {prediction}", prediction=prediction)

    def test_channels_that_groups_do_not_divide(self, tmp_path):
        state = {"conv_in.weight": torch.zeros(8, 1, 3, 3), "conv_out.weight": torch.zeros(1, 8, 3, 3),
                 "down.0.block.0.conv1.weight": torch.zeros(8, 8, 3, 3)}  # fmt: skip
        torch.save(state, tmp_path / "weights.pt")
        refusal(tmp_path / "weights.pt", "32 does not divide")

    @pytest.mark.parametrize("legacy", [False, True])
    def test_code_is_not_run(self, tmp_path, legacy):
        class Malicious:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        where = tmp_path / "weights.pt"
        torch.save({"state_dict": Malicious()}, where, _use_new_zipfile_serialization=not legacy)
        refusal(where, "needs code to be loaded", "mkdir", "not executed")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
    def test_torn_files(self, tmp_path, name):
        where, whole = tmp_path / name, tmp_path / "whole"
        if name == "weights.pt":
            torch.save(network().state_dict(), whole)
        else:
            safetensors.torch.save_file(network().state_dict(), str(whole))
        content = whole.read_bytes()
        for torn in (content[: len(content) // 2], content[:100], b"", b"<html>not found</html>\n"):
            where.write_bytes(torn)
            refusal(where, f"{name} is torn or no checkpoint")

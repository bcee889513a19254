"""Denoisers in every kind of folder that diffusers writes; tests/data/test_model_folders.py has what is refused."""

import diffusers
import pytest
import safetensors.torch
import torch

from sbbridge.data import DataError
from sbbridge.data.weights import WEIGHTS
from sbbridge.integrations.published import load_denoiser, weights_sha256
from tests.integrations.test_published import SHAPE, images, network, times, unet

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
OPTIONS = (
    {}, {"max_shard_size": "20KB"}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "20KB"},
)  # fmt: skip


def write(folder, options, kind=torch.float32, class_name="DDPMPipeline"):
    made = getattr(diffusers, class_name)(unet().to(kind), diffusers.DDPMScheduler(clip_sample=False))
    made.save_pretrained(str(folder), **options)
    return folder


def load(folder, sha256=None):
    return load_denoiser(folder, SHAPE, None, sha256, "cpu")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_a_pipeline_is_read_however_its_network_is_stored(tmp_path, options, kind):
    write(tmp_path, options, kind)
    if "max_shard_size" in options:
        assert len(list((tmp_path / "unet").glob("*-of-*"))) > 1
    stock = diffusers.UNet2DModel.from_pretrained(
        tmp_path / "unet", variant=options.get("variant"), low_cpu_mem_usage=False
    ).float()
    denoiser, x = load(tmp_path), images(5)
    expected = stock.eval()(x, torch.tensor([0, 1, 349, 500, 999])).sample
    torch.testing.assert_close(denoiser.field(times(), x), expected, atol=1e-6, rtol=0)


def test_the_digest_covers_all_shards_and_the_configuration(tmp_path):
    write(tmp_path, {"max_shard_size": "20KB"})
    whole = weights_sha256(tmp_path)
    assert load(tmp_path, whole).digest == whole[:16]
    assert weights_sha256(tmp_path / "unet") == whole
    seen = {whole}
    for path in ((tmp_path / "unet") / "config.json", *sorted((tmp_path / "unet").glob("*.safetensors"))):
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        seen.add(weights_sha256(tmp_path))
        with pytest.raises(DataError, match="all shards has SHA-256"):
            load(tmp_path, whole)
        path.write_bytes(content)
    assert len(seen) == 2 + len(list((tmp_path / "unet").glob("*.safetensors")))


@pytest.mark.parametrize("damage", ["lost", "torn", "unknown", "infinite"])
def test_damaged_shards_are_refused_in_one_line(tmp_path, damage):
    write(tmp_path, {"max_shard_size": "20KB"})
    shard = sorted((tmp_path / "unet").glob("*-of-*"))[1]
    if damage == "lost":
        shard.unlink()
    elif damage == "torn":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "unknown":
        shard.with_name("diffusion_pytorch_model-00007-of-00007.safetensors").write_bytes(shard.read_bytes())
    else:
        state = {name: weight.fill_(torch.inf) for name, weight in safetensors.torch.load_file(str(shard)).items()}
        safetensors.torch.save_file(state, str(shard))
    with pytest.raises(DataError, match=r"^SB_DENOISER .*diffusion_pytorch_model|^SB_DENOISER .*infinity") as caught:
        load(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_checkpoints_with_weights_that_are_no_numbers(tmp_path, value, suffix):
    state = network().state_dict()
    state["temb.dense.0.bias"][0] = value
    if suffix == "pt":
        torch.save(state, tmp_path / "a.pt")
    else:
        safetensors.torch.save_file(state, str(tmp_path / "a.safetensors"))
    from sbbridge.integrations.ddpm_unet import read_ddpm_unet

    with pytest.raises(DataError, match=r"temb\.dense\.0\.bias holds NaN or infinity"):
        read_ddpm_unet(tmp_path / f"a.{suffix}")


def test_checkpoints_of_whole_and_complex_numbers(tmp_path):
    from sbbridge.integrations.ddpm_unet import read_ddpm_unet

    for kind in (torch.int64, torch.complex64):
        torch.save({name: weight.to(kind) for name, weight in network().state_dict().items()}, tmp_path / "a.pt")
        with pytest.raises(DataError, match="expected floating-point numbers"):
            read_ddpm_unet(tmp_path / "a.pt")


def test_the_plain_weights_win_over_a_variant(tmp_path):
    write(tmp_path, {})
    before = weights_sha256(tmp_path)
    unet().half().save_pretrained(str(tmp_path / "unet"), variant="fp16")
    assert weights_sha256(tmp_path) == before
    (tmp_path / "unet" / WEIGHTS).unlink()
    assert weights_sha256(tmp_path) != before
    assert load(tmp_path)

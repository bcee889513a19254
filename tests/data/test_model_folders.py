"""Model folders: whatever diffusers writes is read, and only all of a model's weights, finite, in place."""

import json
import shlex
import shutil

import pytest
import safetensors.torch
import torch

from sbbridge.data import DataError
from sbbridge.data.autoencoder import Autoencoder
from sbbridge.data.encode_latents import main
from sbbridge.data.latents import LatentData, LatentShard, ffhq_latent
from sbbridge.data.normalisation import Normalisation
from sbbridge.data.weights import WEIGHTS, as_weights, find_model, load_model
from sbbridge.rng import isolated
from tests.data.autoencoders import write_autoencoder
from tests.data.folders import write_images

KIND = "AutoencoderKL"
IMAGES = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    return write_autoencoder(tmp_path / "vae")


def stock(folder, **options):
    from diffusers import AutoencoderKL

    return AutoencoderKL.from_pretrained(str(folder), local_files_only=True, low_cpu_mem_usage=False, **options)


def sharded(folder, **options):
    """The same model in shards."""
    model = stock(folder)
    shutil.rmtree(folder)
    model.save_pretrained(str(folder), max_shard_size="4KB", **options)
    assert len(list(folder.glob("*-of-*"))) > 2
    return folder


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rewrite(path, change):
    state = safetensors.torch.load_file(str(path))
    change(state)
    safetensors.torch.save_file(state, str(path), metadata={"format": "pt"})


def bias(value, kind=torch.float32):
    """Puts another bias of one convolution among the weights."""
    return lambda state: state.update({"quant_conv.bias": torch.full((8,), value).to(kind)})


def without(state, beginning):
    for name in [name for name in state if name.startswith(beginning)]:
        del state[name]


def refusal(folder, *words):
    with pytest.raises(DataError) as caught:
        Autoencoder(folder)
    message = str(caught.value)
    assert message.isprintable()
    assert str(folder) in message
    for word in words:
        assert word in message, message
    return message


class TestWhatDiffusersWrites:
    @pytest.mark.parametrize(
        "options",
        [{}, {"max_shard_size": "4KB"}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "4KB"},
         {"variant": "ema"}, {"max_shard_size": "20KB"}],
        ids=str,
    )  # fmt: skip
    @pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
    def test_is_read_as_diffusers_reads_it(self, folder, options, kind):
        stock(folder).to(kind).save_pretrained(str(folder.parent / "saved"), **options)
        found = Autoencoder(folder.parent / "saved")
        expected = stock(folder.parent / "saved", variant=options.get("variant")).float().eval()
        with torch.no_grad():
            posterior = expected.encode(IMAGES).latent_dist
        shard = found.encode(IMAGES)
        assert torch.equal(shard.mean, posterior.mean.half())
        assert torch.equal(shard.std, posterior.std.half())

    def test_weights_of_one_value_are_one_model_however_they_are_stored(self, folder):
        whole = Autoencoder(folder)
        in_shards = Autoencoder(sharded(folder))
        assert torch.equal(whole.encode(IMAGES).mean, in_shards.encode(IMAGES).mean)

    def test_the_vae_of_a_pipeline(self, folder, tmp_path):
        folder.rename(tmp_path / "moved")
        (tmp_path / "pipeline").mkdir()
        (tmp_path / "moved").rename(tmp_path / "pipeline" / "vae")
        (tmp_path / "pipeline" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
        assert Autoencoder(tmp_path / "pipeline").sha256 == Autoencoder(tmp_path / "pipeline" / "vae").sha256

    def test_a_variant_beside_the_weights_themselves_is_not_read(self, folder):
        before = Autoencoder(folder).sha256
        stock(folder).half().save_pretrained(str(folder.parent / "half"), variant="fp16")
        shutil.copy(folder.parent / "half" / "diffusion_pytorch_model.fp16.safetensors", folder)
        assert {path.name for path in find_model(folder, KIND).files} == {WEIGHTS}
        assert Autoencoder(folder).sha256 == before

    def test_names_of_attention_weights_of_2022(self, folder):
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        expected = Autoencoder(folder).encode(IMAGES).mean

        def renamed(state):
            for new, name in old.items():
                for key in [key for key in state if f"attentions.0.{new}." in key]:
                    state[key.replace(f".{new}.", f".{name}.")] = state.pop(key)

        rewrite(folder / WEIGHTS, renamed)
        assert any(".query." in key for key in safetensors.torch.load_file(str(folder / WEIGHTS)))
        assert torch.equal(Autoencoder(folder).encode(IMAGES).mean, expected)

    def test_the_global_seed_is_left_alone(self, folder, global_state_untouched):
        Autoencoder(folder)

    def test_the_checksum_of_one_file_is_that_of_the_first_release(self, folder):
        import hashlib

        parts = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("config.json", WEIGHTS)]
        assert Autoencoder(folder).sha256 == hashlib.sha256("".join(parts).encode()).hexdigest()

    def test_the_checksum_covers_the_configuration_and_every_shard(self, folder):
        sharded(folder)
        seen = {find_model(folder, KIND).sha256}
        for path in (folder / "config.json", *sorted(folder.glob("*.safetensors"))):
            content = path.read_bytes()
            path.write_bytes(content + b" ")
            seen.add(find_model(folder, KIND).sha256)
            path.write_bytes(content)
        assert len(seen) == 2 + len(list(folder.glob("*.safetensors")))
        assert Autoencoder(folder).sha256 in seen


class TestRefused:
    @pytest.mark.parametrize("shards", [False, True])
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda state: without(state, "encoder."), "missing_keys, the first encoder.conv_in.bias"),
            (lambda state: without(state, "quant_conv."), "2 missing_keys, the first quant_conv.bias"),
            (lambda state: state.update(extra=torch.zeros(1)), "unexpected_keys, the first extra"),
            (lambda state: state.update({"quant_conv.bias": torch.zeros(3)}), "size mismatch for quant_conv.bias"),
            (bias(torch.nan), "quant_conv.bias holds NaN or infinity"),
            (bias(-torch.inf), "quant_conv.bias holds NaN or infinity"),
            (bias(torch.nan, torch.bfloat16), "quant_conv.bias holds NaN or infinity"),
            (bias(1e5, torch.float16), "quant_conv.bias holds NaN or infinity"),
            (bias(3.4e38, torch.bfloat16), "quant_conv.bias holds NaN or infinity"),
            (lambda state: state.update({"quant_conv.bias": torch.full((8,), 1e300, dtype=torch.float64)}), "infinity"),
            (bias(1, torch.int8), "torch.int8"),
            (bias(1, torch.complex64), "torch.complex64"),
        ],
    )  # fmt: skip
    def test_weights_that_are_not_the_models(self, folder, change, words, shards, tmp_path):
        if shards:  # both halves, split by hand
            state = safetensors.torch.load_file(str(folder / WEIGHTS))
            change(state)
            (folder / WEIGHTS).unlink()
            names = sorted(state)
            places = {name: f"diffusion_pytorch_model-{1 + i % 2:05d}-of-00002.safetensors"
                      for i, name in enumerate(names)}  # fmt: skip
            for file in set(places.values()):
                part = {name: state[name] for name in names if places[name] == file}
                safetensors.torch.save_file(part, str(folder / file))
            (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
        else:
            rewrite(folder / WEIGHTS, change)
        refusal(folder, "no usable autoencoder", words)

    def test_shards_that_do_not_fit_their_index(self, folder):
        sharded(folder)
        index, files = folder / f"{WEIGHTS}.index.json", sorted(folder.glob("*-of-*"))
        whole = {path: path.read_bytes() for path in (index, *files)}

        def restored():
            for path, content in whole.items():
                path.write_bytes(content)

        files[1].unlink()
        refusal(folder, f"{index.name} names {files[1].name}, which is missing")
        restored()
        files[1].write_bytes(whole[files[1]][:-7])
        refusal(folder, f"{files[1].name} is torn")
        restored()
        files[1].write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        refusal(folder, "pointer of Git LFS")
        restored()
        shutil.copy(files[0], folder / "diffusion_pytorch_model-00099-of-00099.safetensors")
        refusal(folder, "00099-of-00099.safetensors is a shard that", "does not name")
        (folder / "diffusion_pytorch_model-00099-of-00099.safetensors").unlink()
        edit(index, lambda content: content["weight_map"].update({"quant_conv.bias": files[0].name}))
        refusal(folder, "quant_conv.bias")
        restored()
        edit(index, lambda content: content["weight_map"].pop("quant_conv.bias"))
        refusal(folder, "is not said by the index to hold quant_conv.bias")
        restored()
        for wrong in ("../x.safetensors", "/x.safetensors", "x.bin"):
            edit(index, lambda content, wrong=wrong: content["weight_map"].update(a=wrong))
            refusal(folder, f"names {wrong}, which is no safetensors file of this folder")
            restored()
        for content in ("", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": "a"}'):
            index.write_text(content)
            refusal(folder, index.name)
        index.unlink()
        refusal(folder, f"no {index.name}")
        restored()
        assert Autoencoder(folder)
        safetensors.torch.save_file({"a": torch.zeros(1)}, str(folder / WEIGHTS))
        refusal(folder, "holds both", WEIGHTS, index.name)

    def test_several_variants_and_none_of_them_plain(self, folder):
        (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
        assert Autoencoder(folder)
        shutil.copy(folder / "diffusion_pytorch_model.fp16.safetensors",
                    folder / "diffusion_pytorch_model.ema.safetensors")  # fmt: skip
        refusal(folder, "several variants (ema, fp16)")

    def test_what_would_be_unpickled_is_converted_by_the_line_that_is_given(self, tmp_path):
        folder = write_autoencoder(tmp_path / "it's a \"folder\" $(x)")
        model = stock(folder)
        (folder / WEIGHTS).unlink()
        model.save_pretrained(str(folder), safe_serialization=False)
        message = refusal(folder, f"no {WEIGHTS}, .bin is not read")
        _, _, code = shlex.split(message.split("(convert it: ")[1].removesuffix(")"))
        exec(code, {})
        assert Autoencoder(folder)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda config: config.update(_class_name="AutoencoderTiny"), "AutoencoderTiny (allowed: AutoencoderKL)"),
            (lambda config: config.pop("_class_name"), "allowed: AutoencoderKL"),
            (lambda config: config.update(quantization_config={"load_in_8bit": True}), "quantization_config"),
            (lambda config: config.update(scaling_factor=None), "scaling_factor must be a finite number, got null"),
            (lambda config: config.update(scaling_factor=float("nan")), "scaling_factor must be a finite number"),
            (lambda config: config.update(scaling_factor=0), "scaling_factor must be > 0"),
            (lambda config: config.update(scaling_factor=True), "scaling_factor must be a finite number"),
            (lambda config: config.update(scaling_factor="0.3"), "scaling_factor must be a finite number"),
            (lambda config: config.update(shift_factor="x"), "shift_factor must be a finite number"),
            (lambda config: config.update(latents_mean=[0.0] * 4), "latents_mean and latents_std must both"),
            (lambda config: config.update(latents_std=[1.0] * 4), "latents_mean and latents_std must both"),
            (lambda config: config.update(latents_mean=[0.0] * 3, latents_std=[1.0] * 3), "4 numbers"),
            (lambda config: config.update(latents_mean=[0.0] * 4, latents_std=[1.0, 1.0, 0.0, 1.0]), "must be > 0"),
            (lambda config: config.update(latents_mean=[0, 0, 0, None], latents_std=[1] * 4), "latents_mean[3]"),
            (lambda config: config.update(latents_mean=1.0, latents_std=1.0), "latents_mean must be null or 4 numbers"),
            (lambda config: config.update(shift_factor=0.1, latents_mean=[0] * 4, latents_std=[1] * 4), "which"),
            (lambda config: config.update(act_fn="none"), "no usable AutoencoderKL"),
        ],
    )  # fmt: skip
    def test_configurations(self, folder, change, words):
        edit(folder / "config.json", change)
        refusal(folder, words)

    def test_broken_and_absent_files(self, folder, tmp_path):
        refusal(tmp_path / "absent", "no autoencoder in")
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:100])
        refusal(folder, f"{WEIGHTS} is torn")
        (folder / WEIGHTS).unlink()
        refusal(folder, f"no {WEIGHTS} in")
        (folder / "config.json").write_text("{")
        refusal(folder, "config.json cannot be read")

    def test_other_models(self, folder):
        with pytest.raises(DataError, match="describes a AutoencoderKL"):
            load_model(folder, "UNet2DModel")

    def test_weights_that_are_no_numbers(self):
        for tensor in (torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(2, dtype=torch.int64)):
            with pytest.raises(DataError, match=r"a\.pt: w is torch"):
                as_weights({"w": tensor}, "a.pt")
        weights = as_weights({"w": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}, "a.pt")
        assert weights["w"].dtype == torch.float32
        assert not weights["w"].requires_grad


class TestNormalisation:
    """Against what diffusers' own pipelines do."""

    OPTIONS = (
        {"scaling_factor": 0.3},
        {"scaling_factor": 0.3, "shift_factor": 0.1},
        {"scaling_factor": 0.3, "latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [5.0, 6.0, 7.0, 8.0]},
    )

    @pytest.mark.parametrize("options", OPTIONS)
    def test_latents_are_normalised_and_back(self, options, tmp_path):
        found = Autoencoder(write_autoencoder(tmp_path / "vae", **options))
        z, config = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0)), stock(tmp_path / "vae").config
        if config.latents_mean:  # StableDiffusionXLImg2ImgPipeline
            mean, std = (torch.tensor(values).view(1, 4, 1, 1) for values in (config.latents_mean, config.latents_std))
            expected, back = (z - mean) * config.scaling_factor / std, z * std / config.scaling_factor + mean
        else:  # FluxImg2ImgPipeline, LDMPipeline
            shift = config.shift_factor or 0.0
            expected, back = (z - shift) * config.scaling_factor, z / config.scaling_factor + shift
        torch.testing.assert_close(found.normalisation.applied(z), expected)
        torch.testing.assert_close(found.normalisation.undone(z), back)
        with torch.no_grad():
            torch.testing.assert_close(found.decode(z), stock(tmp_path / "vae").eval().decode(back).sample)
        data = LatentData([LatentShard(z.half(), torch.zeros_like(z).half())], found.normalisation,
                          places=torch.tensor([[0, 1]]))  # fmt: skip
        torch.testing.assert_close(data.sample(1)[0], found.normalisation.applied(z.half().float())[1])

    @pytest.mark.parametrize("options", OPTIONS)
    def test_it_is_written_down_and_read_again(self, options, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
        write_images(tmp_path / "images", 360)
        vae = write_autoencoder(tmp_path / "vae", **options)
        output = tmp_path / "root" / "ffhq_latent"
        command = ["--images", str(tmp_path / "images"), "--autoencoder", str(vae), "--size", "4",
                   "--output", str(output)]  # fmt: skip
        assert main(command) == 0
        expected = Autoencoder(vae).normalisation
        latents = ffhq_latent(tmp_path / "root")
        assert latents.normalisation == latents.train.normalisation == expected
        assert latents.scale == 0.3
        for key in ("latents_mean", "shift_factor"):  # as it was encoded before these were known
            if key in options:
                edit(output / "manifest.json", lambda content, key=key: content.pop(key))
                assert main(command) == 2
                assert f"holds latents with {key} None, not {options[key]}" in capsys.readouterr().err
                return
        edit(output / "manifest.json", lambda content: content.update(scaling_factor=None))
        with pytest.raises(DataError, match=r"manifest\.json: scaling_factor must be a finite number, got null"):
            ffhq_latent(tmp_path / "root")

    def test_a_task_refuses_latents_that_were_encoded_without_it(self, tmp_path, monkeypatch):
        from sbbridge.study.tasks.latents import open_latents

        monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
        write_images(tmp_path / "images", 360)
        vae = write_autoencoder(tmp_path / "vae", **self.OPTIONS[2])
        output = tmp_path / "root" / "ffhq_latent"
        assert main(["--images", str(tmp_path / "images"), "--autoencoder", str(vae), "--size", "4",
                     "--output", str(output)]) == 0  # fmt: skip
        edit(output / "manifest.json", lambda content: content.pop("latents_mean") and content.pop("latents_std"))
        monkeypatch.setenv("SB_AUTOENCODER", str(vae))
        with pytest.raises(DataError, match=r"manifest says Normalisation\(scale=0\.3.*encode anew"):
            open_latents(None, tmp_path / "root", 1.0, "cpu")

    def test_numbers_that_need_no_normalisation_are_bit_equal_to_scaling(self):
        z = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
        assert torch.equal(Normalisation(0.18215).applied(z), 0.18215 * z)


class TestLatents:
    def test_beyond_float16_is_refused(self, folder, tmp_path, capsys):
        rewrite(folder / WEIGHTS, bias(1e5))
        with pytest.raises(DataError, match="beyond float16"):
            Autoencoder(folder).encode(IMAGES)
        write_images(tmp_path / "images", 3)
        assert main(["--images", str(tmp_path / "images"), "--autoencoder", str(folder), "--size", "8",
                     "--output", str(tmp_path / "out")]) == 2  # fmt: skip
        assert "error: images part0/0000.png and following: the autoencoder makes" in capsys.readouterr().err

    @pytest.mark.parametrize("part", [0, 1])
    def test_latents_that_are_nan_are_refused_when_they_are_opened(self, part):
        shard = [torch.zeros(5, 4, 1, 1).half() for _ in range(2)]
        shard[part][3] = torch.nan
        with pytest.raises(DataError, match="shard 0 holds latents that are NaN"):
            LatentData([LatentShard(*shard)], 1.0)

    def test_one_digest_means_the_same_latents(self, folder):
        with isolated(1):
            first = Autoencoder(folder)
        with isolated(2):
            second = Autoencoder(folder)
        assert first.sha256 == second.sha256
        assert torch.equal(first.encode(IMAGES).mean, second.encode(IMAGES).mean)

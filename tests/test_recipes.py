"""The paper's recipes: their numbers, their networks, and whole trials of them on stand-ins of the paper's data."""

import hashlib
import pickle

import numpy as np
import pytest
import torch

from sbbridge import config
from sbbridge.methods import asbm_stages
from sbbridge.metrics import require_inception
from sbbridge.networks import UNet
from sbbridge.study import cli, driver, requirements, tasks
from sbbridge.study.job import Job, execute
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.space import resolve, value_at
from sbbridge.study.tasks import images as image_tasks
from sbbridge.study.tasks import latents as latent_tasks
from sbbridge.study.tasks import paths
from sbbridge.study.trial import TrialConfig, digests
from studies.asbm_sweep import STUDY
from tests.study import tiny
from tests.training.recording import Killed, differing

DATASETS = ("cifar10", "ffhq_latent")


def recipe(dataset, assignments=None):
    """The plan of `--preset paper --dataset …`."""
    preset = STUDY.presets["paper"]
    given = config.parse_assignments(assignments or [])
    options = Options(dataset, "paper", "/nowhere", "/nowhere", preset.trials, preset.seeds, given)
    return make_plan(STUDY, options)


# -- the numbers, of spec/asbm.md: path, on CIFAR-10, on FFHQ's latents

NUMBERS = [
    # §1, last paragraph: VP 0.1 → 4, σ = 1, linear
    ("reference.kind", "vp", "vp"),
    ("reference.beta_min", 0.1, 0.1),
    ("reference.beta_max", 4.0, 4.0),
    ("reference.sigma", 1.0, 1.0),
    ("reference.schedule", "linear", "linear"),
    # §2, the table; 20 and 50 forward points are 19 and 49 steps, 100 are 99
    ("method.kind", "asbm", "asbm"),
    ("method.coupling", "asbm", "asbm"),
    ("method.corrector_epochs", 5, 8),
    ("method.adjoint_epochs", 15, 12),
    ("method.cycles", 50, 50),
    ("method.simulation.scheme", "euler_maruyama", "euler_maruyama"),
    ("method.simulation.num_steps", 19, 49),
    ("method.simulation.power", 1.0, 1.0),
    ("method.simulation.batch_size", 512, 512),
    ("method.corrector_simulation.scheme", "euler_maruyama", "euler_maruyama"),
    ("method.corrector_simulation.num_steps", 99, 99),
    ("method.corrector_simulation.power", 1.0, 1.0),
    ("method.corrector_simulation.batch_size", 512, 512),
    ("method.new_pairs", 4096, 4096),
    ("method.buffer_size", 20_000, 20_000),
    ("method.ema_simulation", True, True),
    ("training.batch_size", 128, 128),
    ("training.learning_rate", 1e-4, 1e-4),
    ("training.weight_decay", 0.0, 0.0),
    ("training.gradient_clip", 0.0, 0.0),
    ("training.schedule", "constant", "constant"),
    ("training.ema_decay", 0.999, 0.999),
    # §2, below the table: from epoch 300 of 20 a cycle on, by 51,200 points
    ("method.stop", "paper", "paper"),
    ("method.least_cycles", 15, 15),
    ("method.must_pass", False, False),
    ("method.terminal_samples", 51_200, 51_200),
    # §3
    ("method.student", "bridge", "bridge"),
    ("method.backward_pairs", 50_000, 70_000),
    ("method.backward_epochs", 600, 600),
    ("method.reuse", 1, 1),
    ("method.backward_learning_rate", 2e-4, 1e-4),
    # §6: 128 channels times (1, 2, 2, 2), attention at 16 x 16, 64 channels a head, fp32
    *(
        (f"{network}.{option}", value, value)
        for network, layers in (("network", 4), ("method.forward_network", 2))
        for option, value in {
            "kind": "unet", "channels": [128, 256, 256, 256], "layers_per_block": layers, "attention": [1],
            "head_channels": 64, "dropout": 0.1,
        }.items()
    ),
    ("training.precision", "float32", "float32"),
    # of this program, not of the paper: off
    ("method.warm_start", "none", "none"),
    ("method.damping", 1.0, 1.0),
    ("method.affine_correction", False, False),
    ("method.reflow", 0, 0),
    ("method.distillation", None, None),
    ("training.accumulate", 1, 1),
    ("training.budget", None, None),
]  # fmt: skip
WITHOUT_EFFECT = {
    "method.reflow_epochs", "method.generation.scheme", "method.generation.num_steps", "method.generation.grid",
    "method.generation.final_noise", "method.generation.batch_size", "training.checkpoint_seconds", "training.compile",
    "training.channels_last",
}  # fmt: skip
UNKNOWN = {"network.time_scale", "method.forward_network.time_scale"}
"""The paper does not say how the embedding sees the time."""


def leaves(tree, path=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


@pytest.mark.parametrize("column", [0, 1], ids=DATASETS)
def test_the_settings_are_the_papers(column):
    base = recipe(DATASETS[column]).base
    wanted = {path: values[column] for path, *values in NUMBERS}
    found = {path: value_at(base, path) for path in wanted}
    assert found == wanted
    # an option that comes to be must be thought of here
    trained = {path for name in ("reference", "method", "network", "training")
               for path, _ in leaves(base[name], f"{name}.")}  # fmt: skip
    assert trained == set(wanted) | WITHOUT_EFFECT | UNKNOWN


@pytest.mark.parametrize("dataset", DATASETS)
def test_stage_1_has_a_thousand_epochs_and_every_run_is_judged_by_inception(dataset):
    base = recipe(dataset).base
    assert base["method"]["cycles"] * (base["method"]["corrector_epochs"] + base["method"]["adjoint_epochs"]) == 1000
    assert base["evaluation"]["features"] == "inception"


def arm(name):
    (found,) = [arm for arm in STUDY.presets["paper"].arms if arm.name == name]
    return config.parse(TrialConfig, resolve(TrialConfig, recipe("cifar10").base, found.overrides))


def test_the_memoryless_baseline_has_the_papers_epochs_and_the_same_network():
    """§2, last paragraph of §3: VP 0.1 → 20, the same U-Net of 4 blocks, 3300 epochs."""
    baseline = arm("score matching VP")
    assert (baseline.reference.beta_min, baseline.reference.beta_max) == (0.1, 20.0)
    assert (baseline.method.epochs, baseline.method.pairs) == (3300, 50_000)
    assert baseline.network == UNet(layers_per_block=4)
    assert baseline.training.ema_decay == 0.999


def test_the_memoryless_baseline_has_its_own_learning_rate():
    """§3: lr 2e-4."""
    assert arm("score matching VP").training.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("name", "time"), [("ASBM, one step", 1.0), ("memoryless, one step", 0.5), ("flow matching, one step", 1.0)]
)
def test_distillation_has_the_papers_settings(name, time):
    """§4; the weight of the pairs is 0.1 of half the square, where the release has images of half the range."""
    distillation = arm(name).method.distillation
    assert (distillation.time, distillation.every, distillation.learning_rate) == (time, 5, 1e-5)
    assert (distillation.pairs, distillation.pair_weight) == (500_000, 0.05)
    assert (distillation.generation.scheme, distillation.generation.num_steps) == ("heun", 50)


@pytest.mark.parametrize("name", ["ASBM, one step", "memoryless, one step"])
def test_distillation_takes_the_papers_steps(name):
    """§4: 1000 epochs of 391 batches of 128."""
    chosen = arm(name)
    steps = chosen.method.distillation.epochs * (chosen.method.distillation.pairs // chosen.training.batch_size)
    assert steps == pytest.approx(391_000, rel=0.01)


@pytest.mark.parametrize(("layers", "millions"), [(2, 35.75), (4, 58.69)])
def test_the_networks_have_the_papers_weights(layers, millions):
    """§6; latents' fourth channel adds 128 x 3 x 3 going in, and 128 x 3 x 3 and a bias going out."""
    colour, latent = (
        sum(p.numel() for p in UNet(layers_per_block=layers).build((channels, 32, 32), 0).parameters())
        for channels in (3, 4)
    )
    assert colour == pytest.approx(millions * 1e6, abs=0.005e6)
    assert latent - colour == 2 * 128 * 9 + 1


# -- whole trials, on stand-ins


def write_cifar10(root, monkeypatch):
    """Six batches of 20 smooth images in torchvision's format, its checksums replaced by theirs."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch():
        coarse = generator.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
        return {"data": np.kron(coarse, np.ones((8, 8), np.uint8)).reshape(20, 3072), "labels": list(range(10)) * 2}

    monkeypatch.setattr(CIFAR10, "train_list", [write(f"data_batch_{i}", batch()) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch())])
    filename, md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": filename, "key": "label_names", "md5": md5})


def write_latents(folder):
    """400 images, and their latents of 4 x 32 x 32 as `encode_latents` writes them; the autoencoder's folder."""
    from sbbridge.data.encode_latents import main as encode
    from tests.data.autoencoders import write_autoencoder
    from tests.data.folders import write_images

    autoencoder = write_autoencoder(folder / "autoencoder")
    write_images(folder / "images", 400)
    assert encode(["--images", str(folder / "images"), "--autoencoder", str(autoencoder), "--size", "64",
                   "--output", str(folder / "root" / "ffhq_latent")]) == 0  # fmt: skip
    return autoencoder


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    return folder, write_latents(folder)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    for name in ("SB_DATA_ROOT", "SB_INCEPTION", "SB_AUTOENCODER", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))


@pytest.fixture
def there(request, tmp_path, monkeypatch):
    """{data set: its root}, in stand-ins, with the means of the channels instead of Inception's features."""

    def features(images):
        floats = images.float() if images.dtype == torch.uint8 else (images + 1) * 127.5
        return floats.mean((2, 3)).double().numpy()

    for module in (image_tasks, latent_tasks, tasks):
        monkeypatch.setattr(module, "image_features", lambda name, device: features)
    monkeypatch.setattr(requirements, "require_inception", lambda folder: None)
    write_cifar10(tmp_path / "root", monkeypatch)
    folder, autoencoder = request.getfixturevalue("latents")
    monkeypatch.setenv("SB_AUTOENCODER", str(autoencoder))
    return {"cifar10": str(tmp_path / "root"), "ffhq_latent": str(folder / "root")}


SMALL_NETWORKS = [
    f"{network}.{option}"
    for network in ("network", "method.forward_network")
    for option in ("channels=[32, 32, 32, 32]", "layers_per_block=1", "head_channels=32")
]
FEW_STEPS = [
    "training.batch_size=4", "method.cycles=1", "method.least_cycles=1", "method.corrector_epochs=1",
    "method.adjoint_epochs=1", "method.new_pairs=8", "method.buffer_size=12", "method.terminal_samples=16",
    "method.simulation.num_steps=2", "method.corrector_simulation.num_steps=2", "method.backward_pairs=8",
    "method.backward_epochs=2",
]  # fmt: skip
SHORT_EVALUATION = [
    "evaluation.nfe=[2]", "evaluation.samplers=[euler_maruyama]", "evaluation.draws=1", "evaluation.paths=2",
    "evaluation.localised_times=[]",
]  # fmt: skip


def job(folder, root, dataset, assignments, **changes):
    plan = recipe(dataset, [*assignments, *SHORT_EVALUATION])
    tree = resolve(TrialConfig, plan.base, changes)
    digest, training_digest = digests(tree)
    return Job(tree, 0, "ablation", digest, training_digest, str(folder), tiny.COLUMNS, "test", data_root=root)


def weights(folder, job_):
    return tiny.weights(folder, job_.training_digest)


def cheaper(monkeypatch):
    """The terminal test looks at 64 of the thousands of values (all take half a minute); paths have 3 steps, not 50."""
    monkeypatch.setattr(paths, "NUM_STEPS", 3)
    whole = asbm_stages.terminal_test
    monkeypatch.setattr(asbm_stages, "terminal_test", lambda *x: whole(*(part.flatten(1)[:, :64] for part in x)))


@pytest.mark.parametrize("evaluation", ["short", pytest.param("whole", marks=pytest.mark.slow)])
@pytest.mark.parametrize("dataset", DATASETS)
def test_a_whole_trial_of_few_steps_and_its_resuming(dataset, evaluation, there, tmp_path, monkeypatch):
    """Killed among the steps of the first adjoint and of stage 2: the weights are equal bit by bit."""
    if evaluation == "short":
        cheaper(monkeypatch)
    every_step = {"training.checkpoint_seconds": 1e-9}
    whole = job(tmp_path / "whole", there[dataset], dataset, [*SMALL_NETWORKS, *FEW_STEPS], **every_step)
    fields = execute(whole)
    assert fields["status"] == "completed", fields
    assert {(e["metric"], e["sampler"], e["nfe"]) for e in fields["entries"]} == {
        ("frechet_distance", "euler_maruyama", 2)
    }
    stages = {r["stage"] for r in tiny.metrics(tmp_path / "whole") if r["metric"] == "loss"}
    assert stages == {"cycle 1: corrector", "cycle 1: adjoint", "backward"}
    again = job(tmp_path / "again", there[dataset], dataset, [*SMALL_NETWORKS, *FEW_STEPS], **every_step)
    for moment in ((1, 0, 1), (2, 1, 1)):  # stage, epoch, step

        def save(reporter, tensors, position, original=StudyReporter.save, moment=moment):
            original(reporter, tensors, position)
            if (position["stage"], position["epoch"], position["step"]) == moment:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(StudyReporter, "save", save)
            assert execute(again)["error"] == "Killed"
    assert execute(again)["status"] == "completed"
    assert differing(weights(tmp_path / "again", again), weights(tmp_path / "whole", whole)) == []
    assert tiny.measured(tmp_path / "again") == tiny.measured(tmp_path / "whole")


def losses(folder, stage):
    rows = sorted((r["step"], r["value"]) for r in tiny.metrics(folder) if (r["metric"], r["stage"]) == ("loss", stage))
    return [value for _, value in rows]


FIFTY_STEPS = ["method.coupling=independent", "method.backward_epochs=5"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_loss_falls_over_fifty_steps(dataset, there, tmp_path, monkeypatch):
    """A network that says nothing has the loss 1: the target is standard normal noise."""
    monkeypatch.setattr(paths, "NUM_STEPS", 3)
    assignments = [*SMALL_NETWORKS, *FIFTY_STEPS, "training.batch_size=4", "method.backward_pairs=40"]
    fields = execute(job(tmp_path / "run", there[dataset], dataset, assignments))
    assert fields["status"] == "completed", fields
    found = losses(tmp_path / "run", "backward")
    assert len(found) == 5
    assert found[0] < 1.1
    assert found[-1] < 0.95 * found[0]


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_loss_of_the_full_network_falls_over_fifty_steps(dataset, there, tmp_path):
    """58.69 M weights, batches of 2; two minutes on one core."""
    assignments = [*FIFTY_STEPS, "training.batch_size=2", "method.backward_pairs=20"]
    fields = execute(job(tmp_path / "run", there[dataset], dataset, assignments))
    assert fields["status"] == "completed", fields
    assert fields["network_parameters"] == pytest.approx(58.69e6, abs=0.01e6)
    found = losses(tmp_path / "run", "backward")
    assert found[-1] < 0.9 * found[0]


# -- what is missing


def refused(capsys, *arguments):
    """The one line that a wrong command gets."""
    status = cli.main(STUDY, lambda folder: folder / "report.html", ["--preset", "paper", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    return err


class TestMissing:
    @pytest.mark.parametrize(
        ("dataset", "wanted"), [("cifar10", "cifar-10-batches-py"), ("ffhq_latent", "ffhq_latent/manifest.json")]
    )
    def test_data(self, dataset, wanted, capsys, tmp_path):
        output = tmp_path / "study"
        assert "--data-root" in refused(capsys, "--dataset", dataset, "--output", output)
        (tmp_path / "root").mkdir()
        err = refused(capsys, "--dataset", dataset, "--data-root", tmp_path / "root", "--output", output)
        assert str(tmp_path / "root" / wanted) in err
        assert not output.exists()

    @pytest.mark.parametrize("dataset", DATASETS)
    def test_inceptions_weights(self, dataset, there, capsys, tmp_path, monkeypatch):
        for module in (image_tasks, latent_tasks, tasks):
            monkeypatch.setattr(module, "image_features", ORIGINAL_FEATURES)
        monkeypatch.setattr(requirements, "require_inception", require_inception)
        (tmp_path / "weights").mkdir()
        monkeypatch.setenv("SB_INCEPTION", str(tmp_path / "weights"))
        err = refused(capsys, "--dataset", dataset, "--data-root", there[dataset], "--output", tmp_path / "study")
        assert "inception-2015-12-05.pt" in err
        assert str(tmp_path / "weights") in err
        assert not (tmp_path / "study").exists()

    def test_the_autoencoder(self, there, capsys, tmp_path, monkeypatch):
        arguments = ("--dataset", "ffhq_latent", "--data-root", there["ffhq_latent"], "--output", tmp_path / "study")
        monkeypatch.delenv("SB_AUTOENCODER")
        assert "needs SB_AUTOENCODER" in refused(capsys, *arguments)
        monkeypatch.setenv("SB_AUTOENCODER", str(tmp_path / "absent"))
        err = refused(capsys, *arguments)
        assert str(tmp_path / "absent") in err
        assert "diffusion_pytorch_model.safetensors" in err
        assert not (tmp_path / "study").exists()

    def test_a_data_set_that_the_paper_does_not_have(self, capsys, tmp_path):
        err = refused(capsys, "--dataset", "digits", "--output", tmp_path / "study")
        assert "cifar10, ffhq_latent" in err


ORIGINAL_FEATURES = image_tasks.image_features


def test_rivals_that_a_setting_makes_impossible_are_left_out_by_name(capsys):
    """Independent pairs leave no control, without which ASBM has no flow to distil; the paper's other arms stay."""
    arguments = ["--preset", "paper", "--dataset", "cifar10", "--dry-run"]
    counts = []
    for further in ([], ["--set", "method.coupling=independent"]):
        assert cli.main(STUDY, lambda folder: folder, [*arguments, *further]) == 2  # the data are not here
        out, err = capsys.readouterr()
        counts.append(int(out.split(" in the search, ")[1].split(" in the ablation")[0]))
        assert ("left out: ASBM, one step: " in err) == bool(further)
    # neither the second level of the coupling, nor this arm, each with three seeds
    assert counts[0] - counts[1] == 3 * (1 + 1)

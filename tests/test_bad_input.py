"""What a user may get wrong: one line that names it and says what is allowed, status 2, nothing overwritten."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sbbridge.study import cli, driver, requirements, tasks
from sbbridge.study.folder import lock
from studies.asbm_sweep import STUDY
from tests.data.folders import write_images
from tests.metrics.cached import cache_with_digits_cnn
from tests.study import tiny_study
from tests.study.tiny import files, trials, without_ray

ROOT = Path(__file__).parents[1]
LIMIT_S = 10
RUN_JOBS, START = driver.Driver._run_jobs, driver.Driver._start


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No variable of this shell says anything; no test starts Ray; a driver's signal handler is put back."""
    for name in ("RAY_ADDRESS", "SB_DATA_ROOT", "SB_INCEPTION", "SB_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SB_CACHE", str(cache_with_digits_cnn()))
    monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def call(*arguments, report=lambda folder: folder / "report.html"):
    try:
        return cli.main(STUDY, report, ["--preset", "smoke", *map(str, arguments)])
    except SystemExit as exit_:  # argparse's way
        return exit_.code


def refused(capsys, *arguments):
    """The one line that a wrong command gets."""
    clock = time.process_time()
    status = call(*arguments)
    out, err = capsys.readouterr()
    assert status == 2, err
    assert time.process_time() - clock < LIMIT_S
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trails", "3"], ["--trails"]),
        (["--dataset", "mnist"], ["--dataset", "mnist", "digits", "checkerboard"]),
        (["--preset", "huge"], ["--preset", "huge", "smoke", "thorough"]),
        (["--launcher", "slurm"], ["--launcher", "slurm", "inline", "train"]),
        (["--trials", "0"], ["--trials", ">= 1", "'0'"]),
        (["--trials", "ten"], ["--trials", "whole number", "'ten'"]),
        (["--trials", "2.5"], ["--trials", "whole number", "'2.5'"]),
        (["--seeds", "0"], ["--seeds", ">= 1"]),
        (["--num-workers", "0"], ["--num-workers", ">= 1"]),
        (["--num-workers", "-2"], ["--num-workers", ">= 1"]),
        (["--max-concurrent", "0"], ["--max-concurrent", ">= 1"]),
        (["--patience", "0"], ["--patience", ">= 1"]),
        (["--trial-timeout", "0"], ["--trial-timeout", "> 0"]),
        (["--trial-timeout", "nan"], ["--trial-timeout", "> 0", "nan"]),
        (["--cpus-per-worker", "-1"], ["--cpus-per-worker", "> 0"]),
        (["--gpus-per-worker", "inf"], ["--gpus-per-worker", "> 0"]),
        (["--num-workers", "2", "--launcher", "inline"], ["--launcher inline", "--num-workers"]),
        (["--num-workers", "1000"], ["--num-workers 1000", "CPUs"]),
        (["--set", "reference.beta=4"], ["reference.beta", "unknown key", "beta_max"]),
        (["--set", "refrence.beta_max=4"], ["refrence", "no such branch", "reference"]),
        (["--set", "network.width.x=4"], ["network.width", "no such branch"]),
        (["--set", "reference.beta_max"], ["reference.beta_max", "key=value"]),
        (["--set", "=4"], ["key=value"]),
        (["--set", "reference.beta_max=[1"], ["reference.beta_max", "not a number"]),
        (["--set", "reference.beta_max=0.05"], ["beta_max", ">= beta_min = 0.1", "0.05"]),
        (["--set", "reference.beta_max=four"], ["reference.beta_max", "valid number", "'four'"]),
        (["--set", "reference.beta_max="], ["reference.beta_max", "valid number", "None"]),
        (["--set", "method.cycles=0"], ["cycles", ">= 1", "0"]),
        (["--set", "method.cycles=1.5"], ["method.cycles", "integer", "1.5"]),
        (["--set", "method.coupling=magic"], ["method.coupling", "independent", "'magic'"]),
        (["--set", "method.kind=gan"], ["method.kind", "gan", "asbm", "score_matching_vp"]),
        (["--set", "method.damping=2"], ["damping", "(0, 1]", "2"]),
        (["--set", "training.learning_rate=-1"], ["learning_rate", "> 0", "-1"]),
        (["--set", "training.batch_size=0"], ["batch_size", ">= 1"]),
        (["--set", "network.width=0"], ["width", ">= 1"]),
        (["--set", "evaluation.nfe=[0]"], ["nfe", ">= 1", "[0]"]),
        (["--set", "evaluation.nfe=[]"], ["nfe", ">= 1"]),
        (["--set", "evaluation.nfe=5"], ["evaluation.nfe"]),
        (["--set", "evaluation.samplers=[rk45]"], ["evaluation.samplers", "'exponential'", "'rk45'"]),
        (["--set", "evaluation.grids=[cosine]"], ["evaluation.grids", "'trailing_uniform'", "'cosine'"]),
        (["--set", "evaluation.n=0"], ["n must be >= 100"]),
        (["--set", "training.budget=1000"], ["score matching VP: training.budget = 1000", "at least 2048 "]),
        (["--set", "training.accumulate=1000"], ["accumulate", "batch_size", "1000"]),
        (["--set", "network.kind=cnn"], ["network.kind", "cnn", "mlp", "unet"]),
        (["--set", "reference.kind=sde"], ["reference.kind", "sde", "vp", "brownian"]),
        (["--set", "method.simulation.scheme=rk4"], ["method.simulation.scheme", "'rk4'", "'exponential'"]),
        (["--set", "evaluation.curve=-1"], ["curve", ">= 0", "-1"]),
        (["--set", "evaluation.curve_nfe=0"], ["curve_nfe", ">= 1", "0"]),
        (["--dataset", "cifar10"], ["cifar10", "--data-root", "SB_DATA_ROOT", "cifar-10-batches-py"]),
        (["--set", "evaluation.features=inception"], ["inception-2015-12-05.pt"]),
        (["--set", "method.kind=score_matching_vp"], ["memoryless reference", "reference.beta_max >= 12"]),
        (["--dataset", "moons", "--set", "network.kind=unet"], ["U-Net of 4 resolutions", "divisible by 8", "(2,)"]),
        (["--set", "network.kind=unet", "--set", "network.channels=[8, 8, 8, 8, 8]"], ["divisible by 16", "(1, 8, 8)"]),
        (["--set", "method.coupling=independent", "--set", "method.distillation={}"],
         ["distillation", "heun scheme needs the control"]),
        (["--set", "method.distillation={generation: {scheme: exponential}}"],
         ["generation.scheme must be one of heun", "got exponential"]),
        (["--address", "127.0.0.1:1"], ["--address 127.0.0.1:1", "nothing answers"]),
        (["--address", "127.0.0.1:99999999"], ["--address 127.0.0.1:99999999", "nothing answers"]),
        (["--address", "here"], ["--address", "'here'", "local, auto or HOST:PORT"]),
        (["--address", "host:"], ["--address", "local, auto or HOST:PORT"]),
        (["--address", "http://127.0.0.1:8265"], ["--address"]),
        (["--storage", "foo://x"], ["--storage", "foo://x"]),
        (["--storage", "file://x"], ["--storage", "file://x"]),
        (["--optuna-storage", "nonsense"], ["--optuna-storage", "nonsense", "URL"]),
        (["--set", "dataset=checkerboard"], ["--dataset"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_a_wrong_argument(arguments, words, capsys, tmp_path):
    output = tmp_path / "study"
    err = refused(capsys, "--output", output, *arguments)
    assert [word for word in words if word not in err] == [], err
    assert not output.exists()


@pytest.mark.parametrize("arguments", [
    ["--set", "method.kind=score_matching_vp"], ["--dataset", "moons", "--set", "network.kind=unet"],
    ["--set", "method.coupling=independent", "--set", "method.distillation={}"],
])  # fmt: skip
def test_a_dry_run_refuses_what_does_not_go_together_and_opens_no_data(arguments, capsys, monkeypatch):
    monkeypatch.setattr(requirements, "open_data", lambda plan: pytest.fail("data were opened"))
    monkeypatch.setattr(tasks, "digits", lambda: pytest.fail("data were opened"))
    refused(capsys, "--dry-run", *arguments)


def test_a_folders_images_are_held_against_the_network_before_anything_is_written(capsys, tmp_path, monkeypatch):
    write_images(tmp_path / "data", 400, size=(12, 12))
    monkeypatch.setattr(tasks, "image_features", lambda name, device: lambda x: x.double().mean((2, 3)).numpy())
    monkeypatch.setattr(requirements, "require_inception", lambda folder: None)
    arguments = ["--dataset", "image_folder", "--data-root", tmp_path / "data", "--output", tmp_path / "study"]
    deep = ["--set", "network.kind=unet", "--set", "network.channels=[8,8,8,8,8,8,8,8]"]
    err = refused(capsys, *arguments, *deep)
    assert "divisible by 128, got (3, 64, 64)" in err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("variable", ["--data-root", "SB_DATA_ROOT"])
@pytest.mark.parametrize("what", ["absent", "empty", "torn"])
def test_a_wrong_data_root(variable, what, capsys, tmp_path, monkeypatch):
    root, output = tmp_path / "data", tmp_path / "study"
    if what != "absent":
        root.mkdir()
    if what == "torn":
        monkeypatch.setattr(requirements, "require_inception", lambda folder: None)
        (root / "cifar-10-batches-py").mkdir()
        (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"\x80\x04nothing")
    arguments = ["--dataset", "cifar10", "--output", output]
    if variable == "--data-root":
        arguments += ["--data-root", root]
    else:
        monkeypatch.setenv(variable, str(root))
    err = refused(capsys, *arguments)
    assert str(root) in err
    assert ("no such folder" if what == "absent" else "cifar-10-batches-py") in err
    assert not output.exists()


class TestOutputs:
    @pytest.fixture
    def study(self, tmp_path, monkeypatch):
        """A folder that a study has begun in."""
        monkeypatch.setattr(driver.Driver, "run", lambda self: True)
        assert call("--output", tmp_path / "study") == 0
        monkeypatch.undo()
        monkeypatch.setenv("SB_CACHE", str(cache_with_digits_cnn()))
        monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))
        return tmp_path / "study"

    def check(self, capsys, output, *arguments):
        capsys.readouterr()
        before = files(output)
        err = refused(capsys, "--output", output, *arguments)
        assert files(output) == before
        return err

    def test_a_file(self, capsys, tmp_path):
        (tmp_path / "study").write_text("mine")
        assert str(tmp_path / "study") in refused(capsys, "--output", tmp_path / "study")
        assert str(tmp_path / "study" / "below") in refused(capsys, "--output", tmp_path / "study" / "below")
        assert (tmp_path / "study").read_text() == "mine"

    def test_a_place_that_cannot_be_written(self, capsys, tmp_path, monkeypatch):
        err = refused(capsys, "--output", "/proc/study")
        assert "/proc/study cannot be written" in err
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
        err = refused(capsys, "--output", tmp_path / "study")
        assert f"{tmp_path / 'study'} cannot be written" in err
        assert not (tmp_path / "study").exists()

    def test_a_folder_with_other_files(self, capsys, tmp_path):
        (tmp_path / "thesis.tex").write_text("mine")
        err = self.check(capsys, tmp_path)
        assert "no study.json" in err
        assert "--fresh" in err

    def test_fresh_moves_other_files_aside(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr(driver.Driver, "run", lambda self: True)
        output = tmp_path / "study"
        output.mkdir()
        (output / "thesis.tex").write_text("mine")
        assert call("--output", output, "--fresh") == 0, capsys.readouterr().err
        assert not (output / "thesis.tex").exists()
        (aside,) = [folder for folder in tmp_path.iterdir() if folder.name.startswith("study.")]
        assert (aside / "thesis.tex").read_text() == "mine"

    def test_fresh_moves_a_study_aside(self, capsys, study, monkeypatch):
        monkeypatch.setattr(driver.Driver, "run", lambda self: True)
        before = files(study)
        assert call("--output", study, "--fresh", "--set", "reference.beta_max=8") == 0, capsys.readouterr().err
        (aside,) = [folder for folder in study.parent.iterdir() if folder.name.startswith("study.")]
        assert files(aside) == before
        assert '"beta_max": 8.0' in (study / "study.json").read_text()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--set", "reference.beta_max=8"], ["reference.beta_max", "4.0", "8.0"]),
            (["--set", "method.kind=score_matching_vp"], []),
            (["--dataset", "checkerboard"], ["dataset", "digits", "checkerboard"]),
            (["--preset", "default"], ["preset", "smoke", "default"]),
        ],
    )
    def test_another_configuration(self, capsys, study, arguments, words):
        err = self.check(capsys, study, *arguments)
        assert [word for word in words if word not in err] == [], err

    def test_another_study(self, capsys, study):
        path = study / "study.json"
        path.write_text(path.read_text().replace('"asbm_sweep"', '"ldsb_sweep"'))
        assert "holds study 'ldsb_sweep', not 'asbm_sweep'" in self.check(capsys, study)

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
    def test_a_torn_study_json(self, capsys, study, share):
        path = study / "study.json"
        text = path.read_text()
        path.write_text(text[: int(share * len(text))])
        err = self.check(capsys, study)
        assert str(path) in err
        assert "torn" in err
        assert "--fresh" in err

    @pytest.mark.parametrize("text", ["[]", "7", '{"study": "asbm_sweep"}', "null", "\x00\x01"])
    def test_a_study_json_that_is_something_else(self, capsys, study, text):
        (study / "study.json").write_text(text)
        assert "torn or not a study's" in self.check(capsys, study)

    @pytest.mark.parametrize("arguments", [[], ["--fresh"]])
    def test_a_folder_that_another_driver_works_in(self, capsys, study, arguments):
        with lock(study):
            err = self.check(capsys, study, *arguments)
        assert f"another process is running the study in {study}" in err
        assert study.is_dir()

    def test_a_dry_run_writes_nothing(self, capsys, tmp_path):
        assert call("--output", tmp_path / "study", "--dry-run") == 0
        out, err = capsys.readouterr()
        assert err == ""
        for words in ("beta_max: 4.0", "noise β_max", "trainings: 2 in the search, 8 in the ablation", "estimate: "):
            assert words in out
        assert not (tmp_path / "study").exists()


class TestBadData:
    @pytest.fixture
    def torn(self, monkeypatch):
        """Two training images hold a NaN and an infinity."""
        splits = tasks.digits()
        images = splits.train.images.clone()
        images[3, 0, 2, 2], images[500, 0, 0, 0] = torch.nan, torch.inf
        bad = splits._replace(train=splits.train._replace(images=images))
        monkeypatch.setattr(tasks, "digits", lambda: bad)

    def test_nan_is_named_before_anything_runs(self, torn, capsys, tmp_path):
        err = refused(capsys, "--output", tmp_path / "study")
        assert "NaN or infinity in 2 of 898 rows, first row 3" in err
        assert not (tmp_path / "study").exists()

    @pytest.mark.parametrize("part", ["validation", "test"])
    def test_nan_among_the_images_that_judge_is_named_too(self, part, capsys, tmp_path, monkeypatch):
        splits = tasks.digits()
        images = getattr(splits, part).images.clone()
        images[3] = torch.nan
        bad = splits._replace(**{part: getattr(splits, part)._replace(images=images)})
        monkeypatch.setattr(tasks, "digits", lambda: bad)
        monkeypatch.setattr(driver.Driver, "run", lambda self: True)
        assert "first row 3" in refused(capsys, "--output", tmp_path / "study")

    def test_colour_images_need_inceptions_weights(self, capsys, tmp_path, monkeypatch):
        """The digits' CNN cannot see colour: CIFAR-10 is judged by Inception, whatever the preset."""
        grey = tasks.digits()
        colour = type(grey)(*(part._replace(images=part.images[:8].expand(-1, 3, -1, -1)) for part in grey))
        monkeypatch.setattr(tasks, "cifar10", lambda root: colour)
        assert "inception-2015-12-05.pt" in refused(capsys, "--dataset", "cifar10", "--output", tmp_path / "study")

    def test_skip_bad_leaves_such_rows_out(self, torn, capsys, tmp_path, monkeypatch):
        seen = []
        monkeypatch.setattr(driver.Driver, "run", lambda self: seen.append(self) or True)
        assert call("--output", tmp_path / "study", "--skip-bad") == 0, capsys.readouterr().err
        assert seen[0].options.skip_bad
        from sbbridge.study.trial import TrialConfig

        task = tasks.open_task(TrialConfig(), skip_bad=True)
        assert len(task.problem.data) == 896
        assert torch.isfinite(task.problem.data.x).all()


class TestFiles:
    """Files that a user's data set is made of."""

    @pytest.fixture
    def channel_means(self, monkeypatch):
        """Instead of Inception's features."""

        def features(images):
            floats = images.float() if images.dtype == torch.uint8 else (images + 1) * 127.5
            return floats.mean((2, 3)).double().numpy()

        for module in (tasks, tasks.images, tasks.latents):
            monkeypatch.setattr(module, "image_features", lambda name, device: features)
        monkeypatch.setattr(requirements, "require_inception", lambda folder: None)

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        """400 images, two of which are no images."""
        monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
        names = write_images(tmp_path / "root", 400)
        for name in (names[7], names[300]):
            (tmp_path / "root" / name).write_bytes(b"\x89PNG torn")
        return tmp_path / "root", (names[7], names[300])

    def test_an_unreadable_image_is_named(self, folder, channel_means, capsys, tmp_path):
        root, bad = folder
        arguments = ("--dataset", "image_folder", "--data-root", root, "--output", tmp_path / "study")
        err = refused(capsys, *arguments)
        assert any(str(root / name) in err for name in bad), err
        assert "not a readable image" in err
        assert "--skip-bad" in err
        assert not (tmp_path / "study").exists()

    def test_skip_bad_runs_without_it_and_says_so(self, folder, channel_means, capsys, tmp_path, monkeypatch):
        root, _ = folder
        monkeypatch.setattr(driver.Driver, "run", lambda self: True)
        arguments = ("--dataset", "image_folder", "--data-root", root, "--output", tmp_path / "study")
        assert call(*arguments, "--skip-bad") == 0
        err = capsys.readouterr().err
        left = sum(int(line.split()[2]) for line in err.splitlines() if line.startswith("left out"))
        assert left == 2
        from sbbridge.study.trial import TrialConfig

        task = tasks.open_task(TrialConfig(dataset="image_folder"), str(root), skip_bad=True)
        sizes = task.sizes(TrialConfig().evaluation)
        draws = TrialConfig().evaluation.draws
        assert len(task.problem.data) + sum(n // draws for n in sizes.values()) == 398

    @pytest.mark.parametrize("damage", ["torn", "changed", "missing"])
    def test_a_latent_shard(self, damage, channel_means, capsys, tmp_path, monkeypatch):
        from sbbridge.data.encode_latents import main as encode
        from tests.data.autoencoders import write_autoencoder

        monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
        autoencoder = write_autoencoder(tmp_path / "autoencoder")
        monkeypatch.setenv("SB_AUTOENCODER", str(autoencoder))
        write_images(tmp_path / "images", 400)
        root = tmp_path / "root"
        assert encode(["--images", str(tmp_path / "images"), "--autoencoder", str(autoencoder), "--size", "8",
                       "--shard-size", "200", "--output", str(root / "ffhq_latent")]) == 0  # fmt: skip
        capsys.readouterr()
        shard = root / "ffhq_latent" / "latents-00001.safetensors"
        data = shard.read_bytes()
        if damage == "missing":
            shard.unlink()
        else:
            shard.write_bytes(data[:-100] if damage == "torn" else data[:-1] + bytes([data[-1] ^ 1]))
        err = refused(capsys, "--dataset", "ffhq_latent", "--data-root", root, "--output", tmp_path / "study")
        assert str(shard) in err
        assert "sbbridge.data.encode_latents" in err
        assert ("missing" if damage == "missing" else "torn or changed") in err
        assert not (tmp_path / "study").exists()


class TestRunsThatFail:
    """A study of two runs, in this process: what is said of those that fail, and with which status."""

    def study(self, output, *arguments, **options):
        given = ["--preset", "together", "--dataset", "gaussian64", "--output", str(output), *map(str, arguments)]
        return cli.main(tiny_study.STUDY, lambda folder: folder / "report.html", given)

    @pytest.fixture(autouse=True)
    def here(self, monkeypatch):
        without_ray(monkeypatch)

    def out_of_memory(self, monkeypatch):
        def forward(*arguments):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        monkeypatch.setattr("sbbridge.networks.mlp.ResidualMLP.forward", forward)

    def test_a_batch_that_does_not_fit(self, tmp_path, capsys, monkeypatch):
        with monkeypatch.context() as patch:
            self.out_of_memory(patch)
            assert self.study(tmp_path / "study") == 2
        first, last = capsys.readouterr().err.splitlines()[-2:]
        assert first.startswith("failed: BatchTooLarge: the batch does not fit on cpu")
        assert "--set training.batch_size=64" in first
        assert "training.accumulate=2" in first
        assert "some runs failed" in last
        rows = trials(tmp_path / "study")
        assert [row["status"] for row in rows] == ["failed"] * 2
        assert {f"failed: {row['error']}" for row in rows} == {first}
        # with the memory back, the same command finishes what is left
        assert self.study(tmp_path / "study") == 0
        assert "failed:" not in capsys.readouterr().err

    def test_what_is_suggested_runs(self, tmp_path):
        assert self.study(tmp_path / "study", "--set", "training.batch_size=64", "--set", "training.accumulate=2") == 0

    def test_a_training_that_diverges(self, tmp_path, capsys):
        """No fault of the command line's: status 1, with the step and the last good checkpoint."""
        assert self.study(tmp_path / "study", "--set", "training.learning_rate=1e20") == 1
        err = capsys.readouterr().err
        assert "Traceback" not in err
        failures = [line for line in err.splitlines() if line.startswith("failed: ")]
        pattern = r"failed: DivergenceError: the loss of stage '.+' is (nan|inf) after \d+ steps; the last good " \
                  r"checkpoint is that of step \d+"  # fmt: skip
        assert len(failures) == 2
        assert all(re.fullmatch(pattern, line) for line in failures), failures

    @pytest.mark.parametrize(
        ("failures", "status"),
        [
            (["BatchTooLarge: a", "DataError: b", "MissingWeights: c"], 2),
            (["DataError: b", "DivergenceError: c"], 1),
            (["the trial's process died (killed, or out of memory)"], 1),
            ([], 1),  # runs are missing, none has failed
        ],
    )
    def test_the_status_is_2_when_all_is_the_users_to_mend(self, failures, status, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(driver.Driver, "run", lambda self: False)
        monkeypatch.setattr(driver.Driver, "failures", lambda self: failures)
        assert self.study(tmp_path / "study") == status
        *said, last = capsys.readouterr().err.splitlines()
        assert said == [f"failed: {failure}" for failure in failures]
        assert last == "some runs failed or are missing: see the report; the same command tries them again"

    def test_of_many_failures_three_are_said(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(driver.Driver, "run", lambda self: False)
        monkeypatch.setattr(driver.Driver, "failures", lambda self: [f"OSError: {i}" for i in range(9)])
        assert self.study(tmp_path / "study") == 1
        assert capsys.readouterr().err.count("failed: ") == 3

    @pytest.mark.parametrize(("arguments", "words"), [
        ([], "1 GPU"), (["--gpus-per-worker", "0.5"], "0.5 GPU"), (["--num-workers", "2"], "2 GPU"),
        (["--num-workers", "2", "--min-workers", "1"], "1 GPU"),
    ])  # fmt: skip
    def test_a_gpu_that_this_machine_lacks_is_missed_before_anything(self, arguments, words, tmp_path, capsys,
                                                                     monkeypatch):  # fmt: skip
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
        monkeypatch.setattr(tasks, "open_task", lambda *_: pytest.fail("data were opened"))
        assert self.study(tmp_path / "study", "--use-gpu", *arguments) == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"error: --use-gpu: one trial needs {words}, this machine has 0\n")
        assert not (tmp_path / "study").exists()

    @pytest.mark.parametrize(("arguments", "words"), [([], "1 GPU"), (["--gpus-per-worker", "0.5"], "0.5 GPU")])
    def test_a_gpu_that_ray_does_not_see(self, arguments, words, tmp_path, capsys, monkeypatch):
        import ray

        from sbbridge.study import ray_cluster

        monkeypatch.setattr(requirements, "missing", lambda plan: [])
        monkeypatch.setattr(ray_cluster, "_session", lambda: "")
        monkeypatch.setattr(ray_cluster.state, "get_max_resources_from_cluster_config", lambda: None)
        monkeypatch.setattr(driver.Driver, "_run_jobs", RUN_JOBS)
        monkeypatch.setattr(driver.Driver, "_start", START)
        monkeypatch.setattr(ray, "init", lambda **options: None)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "train_driver": 1.0})
        assert self.study(tmp_path / "study", "--use-gpu", *arguments) == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"error: one trial needs {words}, this machine has 0\n")
        assert not list((tmp_path / "study").glob("records/trials/*"))


class TestAsAProcess:
    def run(self, *arguments, env=None):
        """Status, stdout, stderr, and seconds on the processor: this machine may be busy."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, ROOT / "studies" / "asbm_sweep.py", *map(str, arguments)]
        env = {**os.environ, **(env or {})}
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, env=env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return done.returncode, done.stdout, done.stderr, seconds

    def test_help_shows_every_option(self):
        rc, out, err, seconds = self.run("--help")
        assert (rc, err) == (0, "")
        options = ("--dataset", "--data-root", "--preset", "--trials", "--seeds", "--output", "--fresh", "--dry-run",
                   "--address", "--launcher", "--num-workers", "--use-gpu", "--cpus-per-worker", "--gpus-per-worker",
                   "--max-concurrent", "--trial-timeout", "--patience", "--storage", "--optuna-storage", "--skip-bad",
                   "--debug", "--set")  # fmt: skip
        assert [option for option in options if option not in out] == []
        assert seconds < LIMIT_S

    @pytest.mark.parametrize("arguments", [["--help"], ["--trials", "0"], ["--address", "127.0.0.1:1"],
                                           ["--storage", "foo://x"], ["--data-root", "/absent"]])  # fmt: skip
    def test_neither_torch_nor_ray_is_loaded_for_it(self, arguments):
        code = (
            "import sys, atexit\n"
            "atexit.register(lambda: print({'torch', 'ray', 'optuna'} & {n.split('.')[0] for n in sys.modules}))\n"
            "from studies.asbm_sweep import STUDY, write_report\n"
            "from sbbridge.study.cli import main\n"
            f"sys.exit(main(STUDY, write_report, {arguments!r}))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
        assert done.stdout.splitlines()[-1] == "set()"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--trials", "ten"], "--trials"),
            (["--set", "reference.beta_max=0.01"], "beta_max must be >= beta_min"),
            (["--address", "127.0.0.1:1"], "nothing answers"),
        ],
    )
    def test_one_line_on_stderr_and_status_2(self, arguments, words, tmp_path):
        rc, out, err, seconds = self.run(*arguments, "--output", tmp_path / "study")
        assert (rc, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert words in err
        assert seconds < LIMIT_S
        assert not (tmp_path / "study").exists()

    def test_rays_address_of_the_shell_is_probed_too(self, tmp_path):
        rc, _, err, _ = self.run("--output", tmp_path / "study", env={"RAY_ADDRESS": "127.0.0.1:1"})
        assert rc == 2
        assert "nothing answers" in err

    def test_debug_shows_the_traceback(self, tmp_path):
        rc, _, err, _ = self.run("--output", tmp_path / "study", "--debug", "--set", "method.cycles=0")
        assert rc == 2
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("error: ")

"""What searches of paths cannot do: one line that names it, status 2, nothing written."""

import json
import signal

import pytest

from sbbridge.study import cli, driver
from sbbridge.study.folder import OutputError
from sbbridge.study.plan import Options, make_plan
from studies import asbm_sweep, joint_sweep, ldsb_sweep
from tests.study import tiny_study


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))
    for name in ("RAY_ADDRESS", "SB_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def call(study, *arguments):
    try:
        return cli.main(study, lambda folder: folder, [str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse's way
        return exit_.code


SDE_BRIDGE = "method.denoiser.method={kind: asbm, student: bridge}"


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        # more nodes than DDPM's chain has times
        (ldsb_sweep, ["--preset", "smoke", "--set", "method.num_steps=2000"], ["method.grid", "2000"]),
        (ldsb_sweep, ["--set", "method.num_steps=500", "--set", "method.grid=leading_quadratic"], ["method.grid"]),
        (ldsb_sweep, ["--set", SDE_BRIDGE, "--set", "reference.kind=vp", "--set", "reference.beta_max=4"],
         ["an SDE bridge with memory leaves no denoiser", "method.denoiser.method.student flow"]),
        (ldsb_sweep, ["--set", "network.kind=table", "--set", "network.grid_size=5"],
         ["network.grid_size", "unknown key"]),
        (ldsb_sweep, ["--set", "method.fit.order=3"], ["order must be 1 or 2, got 3"]),
        (joint_sweep, ["--set", "method.kind=dsb"], ["method.kind", "'dsb' is not searched here", "asbm", "ldsb"]),
        (joint_sweep, ["--set", "training.accumulate=2"],
         ["training.accumulate: a field that paths may be fitted for"]),
        (joint_sweep, ["--set", "method.student=bridge", "--set", "reference.beta_max=2", "--set", "method.kind=ldsb"],
         ["an SDE bridge with memory leaves no denoiser"]),
        (joint_sweep, ["--set", "method.grid=cosine"], ["method.grid", "'trailing_uniform'"]),
        (joint_sweep, ["--objectives", "quality,speed"], ["--objectives", "nfe, cost", "'quality,speed'"]),
        (joint_sweep, ["--objectives", "nfe,cost"], ["--objectives", "expected quality"]),
        (joint_sweep, ["--objectives", "quality,quality"], ["--objectives", "each once"]),
        (joint_sweep, ["--objectives", ""], ["--objectives", "expected quality"]),
        (joint_sweep, ["--alone", "--trials", "3"], ["--alone has no search: leave out --trials and --from"]),
        (joint_sweep, ["--alone", "--from", "elsewhere"], ["--alone has no search"]),
        (asbm_sweep, ["--from", "nowhere"], ["--from nowhere: not a study's folder", "No such file"]),
        (ldsb_sweep, ["--preset", "grid_size", "--trials", "3"],
         ["--trials 3: preset grid_size has nothing to search"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0].startswith("--") else "",
)  # fmt: skip
def test_a_wrong_argument(module, arguments, words, capsys, tmp_path):
    status = call(module.STUDY, "--output", tmp_path / "study", *arguments)
    out, err = capsys.readouterr()
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("error: ")
    assert [word for word in words if word not in err] == [], err
    assert not (tmp_path / "study").exists()


def make(folder, objectives, **fields):
    folder.mkdir(exist_ok=True)
    options = Options("gaussian64", "default", folder, str(folder), 2, 1, {}, objectives=objectives, **fields)
    return driver.Driver(make_plan(tiny_study.STUDY, options))


@pytest.mark.parametrize("objectives", [("quality",), ("quality", "nfe", "cost"), ("cost", "quality")], ids=str)
def test_a_study_is_opened_for_the_objectives_that_it_was_begun_with(objectives, tmp_path):
    study = make(tmp_path / "study", objectives)._open_search()
    assert len(study.directions) == len(objectives)
    held = json.loads((tmp_path / "study" / "study.json").read_text())["objectives"]
    known = {"quality": "log_validation_quality", "nfe": "nfe", "cost": "log_training_evaluations"}
    assert held == [known[name] for name in objectives]
    assert len(make(tmp_path / "study", objectives)._open_search().directions) == len(objectives)


@pytest.mark.parametrize("others", [("quality",), ("quality", "nfe", "cost"), ("nfe", "quality")], ids=str)
def test_other_objectives_do_not_go_on_in_the_same_folder(others, tmp_path):
    make(tmp_path / "study", ("quality", "nfe"))
    with pytest.raises(OutputError, match=r"--objectives were log_validation_quality, nfe .*\(use --fresh"):
        make(tmp_path / "study", others)


def test_without_a_search_there_is_nothing_but_the_configuration_itself(tmp_path):
    plan = make_plan(joint_sweep.STUDY, Options("digits", "default", tmp_path, str(tmp_path), 0, 2, {}, alone=True))
    assert plan.trainings == (0, 2)
    assert plan.denoisers == []

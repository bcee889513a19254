"""A fit of a path that was killed and resumed, or shared by two processes, is the fit that was not."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sbbridge.coupling import DistributedWorkers
from sbbridge.methods import IPF, ExactIPF, RandomPaths, TeacherFit
from sbbridge.networks import KAN
from sbbridge.training import Trainer, selected, solution_of
from sbbridge.training.checkpoint import from_bytes
from tests.methods.denoising import SHORT, SMALL_KAN, TABLE, method, trainer
from tests.processes import in_two_processes
from tests.training.recording import Killed, Recorder, differing, weights

RUNS = {
    "ipf, code": (method(IPF(2, "both", "code", epochs=2, batches=1), num_steps=2), SMALL_KAN),
    "ipf, paper": (method(IPF(1, "both", "paper", epochs=1, batches=2), num_steps=2), TABLE),
    "exact": (method(ExactIPF(1, images=64, steps=4), num_steps=2), SMALL_KAN),
    "teacher": (method(TeacherFit(2, 48, SHORT, learn_times=True, order=2), num_steps=2), SMALL_KAN),
    "teacher, features": (method(TeacherFit(2, 48, SHORT, distance="features"), num_steps=2), SMALL_KAN),
    "teacher, shared": (method(TeacherFit(2, 48, SHORT, shared=(2, 3)), num_steps=2), SMALL_KAN),
    "random": (method(RandomPaths(2, steps=3), num_steps=2), SMALL_KAN),
}  # fmt: skip


def judge_of(run: Trainer):
    """A score that depends on the candidate alone, and is not always better at the end."""
    return lambda split: float((solution_of(run).path.log_snr * 1e4).sin().sum())


def run_of(name: str, recorder: Recorder, **options) -> Trainer:
    chosen, network = RUNS[name]
    run = trainer(chosen, recorder, network=network, ema_decay=0.9, gradient_clip=1.0, **options)
    run.judge = judge_of(run)
    return run


def everything(run: Trainer) -> dict[str, torch.Tensor]:
    best = {f"best/{name}/{key}": value for name, state in run.best.items() for key, value in state.items()}
    return weights(run) | best


@pytest.mark.parametrize("name", RUNS)
def test_resuming_from_any_checkpoint_gives_the_uninterrupted_path(name):
    """Every step is saved; stages, epochs and middles of halves after an exchange are all resumed."""
    recorder = Recorder()
    whole = run_of(name, recorder)
    whole.train()
    positions = [from_bytes(data)[1] for data in recorder.saved]
    inside = {p["stage"] for p in positions if p["step"] > 1}
    # a table is told the original path, and stage 1 only judges it
    assert inside == {*range(2, positions[-1]["stage"])} | (set() if RUNS[name][1] is TABLE else {0})
    exact = everything(whole)
    assert any(key.startswith("best/") for key in exact)
    for data, position in list(zip(recorder.saved, positions, strict=True))[1 :: max(2, len(positions) // 10)]:
        resumed = run_of(name, Recorder(start=data))
        resumed.train()
        assert differing(everything(resumed), exact) == [], f"resumed at {position}"
        for count in ("simulation", "optimisation", "total_steps", "best"):
            assert getattr(resumed.position, count) == getattr(whole.position, count), f"{count} at {position}"


def test_every_step_of_a_half_after_an_exchange_can_be_resumed():
    recorder = Recorder()
    whole = run_of("ipf, code", recorder)
    whole.train()
    forward = [data for data in recorder.saved if from_bytes(data)[1]["stage"] == 3]
    assert len(forward) == 5, "four steps, and the end of the half before"
    for data in forward:
        resumed = run_of("ipf, code", Recorder(start=data))
        resumed.train()
        assert differing(everything(resumed), everything(whole)) == []


def test_a_pykan_dies_and_rises_in_the_middle_of_its_prefit():
    chosen = method(IPF(1, "reverse", "code", 1, 1), num_steps=2)
    network = KAN(grid_size=3, widths=(1, 2, 1))
    whole = trainer(chosen, network=network)
    whole.train()
    dying = Recorder(die_after=2)
    with pytest.raises(Killed):
        trainer(chosen, dying, network=network).train()
    resumed = trainer(chosen, Recorder(start=dying.saved[-1]), network=network)
    assert (resumed.position.stage, resumed.position.step) == (0, 2)
    resumed.train()
    assert differing(weights(resumed), weights(whole)) == []


@pytest.mark.usefixtures("global_state_untouched")
@pytest.mark.parametrize("name", RUNS)
def test_equal_seeds_give_equal_paths_and_nothing_global_moves(name):
    runs = [run_of(name, Recorder()) for _ in range(2)]
    for run in runs:
        run.train()
    assert differing(everything(runs[0]), everything(runs[1])) == []


# -- two processes

BATCH = 17
SHARED = {
    "ipf, code": (method(IPF(1, "both", "code", 1, 1)), TABLE),
    "ipf, paper, kan": (method(IPF(1, "both", "paper", 1, 1)), SMALL_KAN),
    "exact": (method(ExactIPF(1, images=65, steps=4)), SMALL_KAN),
    "teacher": (method(TeacherFit(2, 67, SHORT, learn_times=True, order=2), "flow"), TABLE),
    "teacher, features": (method(TeacherFit(2, 48, SHORT, distance="features"), num_steps=2), SMALL_KAN),
    "teacher, shared": (method(TeacherFit(2, 67, SHORT, shared=(3, 5)), "flow"), SMALL_KAN),
}  # fmt: skip


def arrived(name: str, recorder: Recorder) -> dict[str, torch.Tensor]:
    """Path and costs of a run whose best candidate a judge chose."""
    chosen, network = SHARED[name]
    run = trainer(chosen, recorder, network=network, batch_size=BATCH, checkpoint_seconds=1e3)
    run.judge = judge_of(run)
    run.train()
    costs = {"simulation": torch.tensor(run.position.simulation), "best": torch.tensor(run.position.best)}
    last, best = solution_of(run).path, selected(run).path
    found = {"times": last.times, "image": last.image, "noise": last.noise, "best image": best.image, **costs}
    return {key: value.contiguous() for key, value in found.items()}


def work(rank: int, folder: str) -> None:
    workers = DistributedWorkers()
    for name in SHARED:
        found = arrived(name, Recorder(workers=workers))
        safetensors.torch.save_file(found, f"{folder}/{name}-{rank}.safetensors")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(work, folder)
    return folder


@pytest.mark.parametrize("name", SHARED)
def test_two_processes_find_the_path_of_one(two_processes, name):
    alone = arrived(name, Recorder())
    for rank in (0, 1):
        shared = safetensors.torch.load_file(two_processes / f"{name}-{rank}.safetensors")
        for key in ("times", "image", "noise"):
            torch.testing.assert_close(shared[key], alone[key], atol=1e-6, rtol=1e-6)
        assert int(shared["simulation"]) == int(alone["simulation"])


@pytest.mark.parametrize("name", SHARED)
def test_both_processes_hold_the_candidate_that_the_first_one_judged(two_processes, name):
    one, other = (safetensors.torch.load_file(two_processes / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert differing(one, other) == []

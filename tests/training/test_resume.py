"""A run that was killed and resumed is the run that was not, bit for bit."""

import json

import pytest
import torch

from sbbridge.methods import ScoreMatchingVP
from sbbridge.problems import GaussianBridge
from sbbridge.sde import VPSDE
from sbbridge.training import Trainer, Training
from sbbridge.training.checkpoint import from_bytes, to_bytes
from tests.training.recording import EVERY_STEP, SMALL_NETWORK, Killed, Recorder, differing, tiny, trainer, weights

VARIANTS = {
    "plain": {},
    "damped": {"damping": 0.5},
    "reused and corrected": {"reuse": 2, "affine_correction": True},
    "gaussian warm start, raw weights": {"warm_start": "gaussian", "ema_simulation": False},
    "bridge matching first": {"warm_start": "bridge_matching", "cycles": 1, "damping": 0.7},
    "minibatch optimal transport": {"coupling": "minibatch_ot"},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_resuming_from_any_checkpoint_gives_the_uninterrupted_result(options):
    """Every step is saved; every third checkpoint is resumed: in epochs, between epochs, stages and cycles."""
    method, whole = tiny(**options), Recorder()
    uninterrupted = trainer(method, whole)
    uninterrupted.train()
    exact = weights(uninterrupted)
    assert len(whole.saved) >= 9
    positions = [from_bytes(data)[1] for data in whole.saved]
    for data, position in list(zip(whole.saved, positions, strict=True))[:: max(3, len(positions) // 5)]:
        resumed = trainer(method, Recorder(start=data))
        resumed.train()
        assert differing(weights(resumed), exact) == [], f"resumed at {position}"
        for name in ("simulation", "optimisation"):
            assert getattr(resumed.position, name) == getattr(uninterrupted.position, name), f"resumed at {position}"
        assert resumed.position.total_steps == uninterrupted.position.total_steps


def test_checkpoints_stand_inside_adjoint_stages_with_their_buffer():
    """What the test above relies on: positions inside an epoch of an adjoint stage, with pairs and adjoints."""
    recorder = Recorder()
    trainer(tiny(damping=0.5), recorder).train()
    inside = [from_bytes(data) for data in recorder.saved]
    adjoint = [(tensors, position) for tensors, position in inside if "source/adjoint" in tensors]
    assert {position["stage"] for _, position in adjoint} == {1, 3}
    assert any(position["epoch"] == 1 and position["step"] == 2 for _, position in adjoint)
    assert any(len(tensors["source/x0"]) == 96 for tensors, _ in adjoint)
    assert any(position["epoch"] == position["step"] == 0 for _, position in inside), "one at the end of a stage"


def test_a_run_killed_again_and_again_still_ends_with_the_uninterrupted_result():
    method = tiny(damping=0.5)
    uninterrupted = trainer(method, Recorder())
    uninterrupted.train()
    held, deaths = None, 0
    while True:
        recorder = Recorder(start=held, die_after=7)
        resumed = trainer(method, recorder)
        try:
            resumed.train()
        except Killed:
            held, deaths = recorder.saved[-1], deaths + 1
        else:
            break
    assert deaths >= 4
    assert differing(weights(resumed), weights(uninterrupted)) == []


def test_a_finished_run_is_not_trained_again():
    first = Recorder()
    finished = trainer(tiny(), first)
    finished.train()
    again = Recorder(start=first.saved[-1])
    resumed = trainer(tiny(), again)
    resumed.train()
    assert again.told == []
    assert differing(weights(resumed), weights(finished)) == []


def test_score_matching_resumes_too():
    problem = GaussianBridge(0.7, 2.0, 0.0, 1.0, VPSDE(beta_max=20.0))
    training = Training(batch_size=16, checkpoint_seconds=EVERY_STEP, schedule="constant", gradient_clip=1.0)

    def make(reporter):
        return Trainer(ScoreMatchingVP(epochs=3, pairs=64), problem, SMALL_NETWORK, training, 1, reporter)

    whole = Recorder()
    uninterrupted = make(whole)
    uninterrupted.train()
    for data in whole.saved[2::5]:
        resumed = make(Recorder(start=data))
        resumed.train()
        assert differing(weights(resumed), weights(uninterrupted)) == []


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    runs = []
    for seed in (3, 3, 4):
        run = Trainer(
            tiny(), trainer(tiny(), Recorder()).run.problem, SMALL_NETWORK, Training(batch_size=16), seed, Recorder()
        )
        run.train()
        runs.append(weights(run))
    assert differing(runs[0], runs[1]) == []
    assert len(differing(runs[0], runs[2])) > len(runs[0]) / 2


@pytest.mark.usefixtures("global_state_untouched")
def test_training_leaves_the_global_random_state_alone():
    trainer(tiny(), Recorder()).train()


@pytest.fixture(scope="module")
def checkpoint():
    recorder = Recorder(die_after=5)
    with pytest.raises(Killed):
        trainer(tiny(), recorder).train()
    return recorder.saved[-1]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.999])
def test_a_torn_checkpoint_is_refused_in_one_line(checkpoint, share):
    with pytest.raises(ValueError, match="not a usable checkpoint") as caught:
        from_bytes(checkpoint[: int(share * len(checkpoint))])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"\x80\x04nonsense" * 10, b"\x02" + 7 * b"\0" + b"{}", b"PK\x03\x04" + 60 * b"\0"])
def test_another_programs_file_is_refused_in_one_line(data):
    with pytest.raises(ValueError, match="not a usable checkpoint") as caught:
        from_bytes(data)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_version_is_refused(checkpoint):
    length = int.from_bytes(checkpoint[:8], "little")
    header = json.loads(checkpoint[8 : 8 + length])
    held = json.loads(header["__metadata__"]["sbbridge"]) | {"version": 999}
    header["__metadata__"]["sbbridge"] = json.dumps(held)
    text = json.dumps(header).encode()
    with pytest.raises(ValueError, match="another version"):
        from_bytes(len(text).to_bytes(8, "little") + text + checkpoint[8 + length :])


def test_checkpoints_keep_tensors_and_position_exactly():
    tensors = {
        "a": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "b": torch.tensor(7),
        "c": torch.zeros(2, 2).mT,
    }
    position = {"stage": 2, "step": 5, "seconds": 0.25}
    back, at = from_bytes(to_bytes(tensors, position))
    assert differing(back, tensors) == []
    assert at == position

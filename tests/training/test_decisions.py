"""What the processes of a group could see differently, rank 0 decides for all; what they spend is counted together."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from sbbridge.coupling import DistributedWorkers, Workers
from sbbridge.study.job import execute
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.store import Store
from tests.processes import in_two_processes
from tests.study import tiny
from tests.training import recording
from tests.training.recording import Recorder, trainer, weights

OPTIONS = {"adjoint_epochs": 1, "new_pairs": 65, "buffer_size": 97, "backward_pairs": 67, "backward_epochs": 4}
BATCH = 17
TREE = {"dataset": "gaussian64", "method.kind": "flow_matching", "method.pairs": 256, "method.epochs": 4,
        "evaluation.curve": 4, "evaluation.curve_nfe": 3, "evaluation.localised_times": []}  # fmt: skip


def watched(start: bytes | None, workers: Workers | None = None) -> tuple[Recorder, list[int], dict[str, torch.Tensor]]:
    """A run from a checkpoint, the evaluations that it has had after each epoch, and its weights."""
    recorder = Recorder(start, workers=workers)
    run = trainer(recording.tiny(**OPTIONS), recorder, batch_size=BATCH)
    seen: list[int] = []
    run.watch = lambda before, after: seen.append(run.evaluations())
    run.train()
    seen.append(run.position.simulation + run.position.optimisation)
    return recorder, seen, weights(run)


def work(rank: int, folder: str) -> None:
    workers = DistributedWorkers()
    # every worker asks; rank 0 answers, also with nothing, also with more than is told at once
    assert workers.decide(lambda: b"01"[rank : rank + 1]) == b"0"
    assert workers.decide(lambda: None if rank == 0 else b"1") is None
    assert workers.decide(lambda: b"") == b""
    told: dict[str, object] = {"whole": watched(None, workers)[1]}
    # the second process sees a later checkpoint, or one where the first sees none
    for name, seen in {"later": ("early", "late"), "one more": (None, "late"), "none": ("late", None)}.items():
        start = None if seen[rank] is None else Path(folder, seen[rank]).read_bytes()
        _, told[name], found = watched(start, workers)
        safetensors.torch.save_file(found, f"{folder}/{name}-{rank}.safetensors")
    told["unreadable"] = failing(rank, workers)
    told["found"] = finished_for_one(rank, folder, workers)
    Path(folder, f"told-{rank}.json").write_text(json.dumps(told))


def failing(rank: int, workers: Workers) -> str:
    def load() -> None:
        raise OSError("the storage is gone")

    try:
        workers.decide(load)
    except (OSError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def finished_for_one(rank: int, folder: str, workers: Workers) -> list[object]:
    """A result, and then a checkpoint, that the second process alone sees."""
    curves: list[list[int]] = []
    job = tiny.job(f"{folder}/store", tiny.tree(TREE, {}), num_workers=2)
    finished, load = Store.finished, StudyReporter.load
    if rank == 1:
        Store.finished = lambda self, *address: {"entries": [], "seconds": 0.0}
        StudyReporter.load = lambda self, digest=None: pytest.fail("rank 1 looked for itself")
    fields = execute(job, workers, evaluate=False, progress=lambda *point: curves.append(list(point)))
    Store.finished, StudyReporter.load = finished, load
    return [fields["status"], fields.get("error"), [spent for spent, _ in curves]]


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("decisions")
    saved = watched(None)[0].saved
    (folder / "early").write_bytes(saved[len(saved) // 3])
    (folder / "late").write_bytes(saved[-8])
    in_two_processes(work, folder)
    return folder


def told(folder: Path, rank: int) -> dict[str, list[int]]:
    return json.loads((folder / f"told-{rank}.json").read_text())


def test_evaluations_are_the_groups_from_the_first_epoch_on(group):
    _, alone, _ = watched(None)
    assert len(alone) == OPTIONS["backward_epochs"] + 1
    for rank in (0, 1):
        assert told(group, rank)["whole"] == alone


def test_and_after_a_resume(group):
    _, whole, _ = watched(None)
    _, resumed, _ = watched((group / "late").read_bytes())
    assert 1 < len(resumed) < len(whole)
    assert resumed == whole[-len(resumed) :]
    for rank in (0, 1):
        assert told(group, rank)["none"] == resumed


@pytest.mark.parametrize(("name", "start"), [("later", "early"), ("one more", None), ("none", "late")])
def test_both_continue_from_the_checkpoint_that_the_first_sees(group, name, start):
    _, _, wanted = watched(None if start is None else (group / start).read_bytes())
    for rank in (0, 1):
        found = safetensors.torch.load_file(group / f"{name}-{rank}.safetensors")
        for key, value in wanted.items():
            torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-5)


def test_a_storage_that_rank_0_cannot_read_ends_both(group):
    assert told(group, 0)["unreadable"] == "OSError: the storage is gone"
    assert told(group, 1)["unreadable"] == "RuntimeError: worker 0 failed where it decides for all"


def test_a_result_that_the_second_alone_sees_is_not_there(group, tmp_path):
    alone: list[int] = []
    job = tiny.job(tmp_path, tiny.tree(TREE, {}))
    execute(job, evaluate=False, progress=lambda spent, quality: alone.append(spent))
    for rank in (0, 1):
        assert told(group, rank)["found"] == ["completed", None, alone]

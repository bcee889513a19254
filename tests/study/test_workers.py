"""Two processes that share a trial write one set of records, equal to a single process's."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sbbridge.coupling import DistributedWorkers
from sbbridge.study.job import Job, execute
from sbbridge.study.store import Store
from tests.processes import in_two_processes
from tests.study import tiny

CHANGES = {"training.batch_size": 127, "method.new_pairs": 255, "method.backward_pairs": 301}
"""Odd: the two shards differ in size."""


def work(rank: int, folder: str) -> None:
    job = tiny.job(f"{folder}/store", tiny.tree(CHANGES), num_workers=2)
    Path(f"{folder}/fields-{rank}.json").write_text(json.dumps(execute(job, DistributedWorkers())))
    # as if the second process had begun later
    late = tiny.job(f"{folder}/late", tiny.tree(CHANGES), num_workers=2, timeout=1e-6 if rank == 0 else 100.0)
    Path(f"{folder}/late-{rank}.json").write_text(json.dumps(execute(late, DistributedWorkers())))
    clock = time.monotonic()
    fields = broken_group(rank, tiny.job(f"{folder}/full", tiny.tree(CHANGES), num_workers=2))
    Path(f"{folder}/full-{rank}.json").write_text(json.dumps([*fields, time.monotonic() - clock]))


def broken_group(rank: int, job: Job) -> list[dict]:
    """What a Ray Train worker returns of three seeds when rank 0 alone cannot write the second's checkpoint."""
    import ray.train.torch

    from sbbridge.study import ray_train

    save = Store.save_checkpoint

    def full(self: Store, training_digest: str, seed: int, number: int, data: bytes) -> None:
        if seed == 1:
            raise OSError("No space left on device")
        save(self, training_digest, seed, number, data)

    ray.train.torch.get_device = lambda: torch.device("cpu")
    if rank == 0:
        Store.save_checkpoint = full
    return ray_train.work({"jobs": [replace(job, seed=seed).as_dict() for seed in range(3)], "curve": False})


def weights(folder: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    job = tiny.job(folder, tiny.tree(CHANGES), seed)
    return tiny.weights(folder, job.training_digest, seed)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    in_two_processes(work, folder)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("one")
    fields = execute(tiny.job(folder, tiny.tree(CHANGES)))
    assert fields["status"] == "completed", fields
    return folder, fields


def fields_of(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"fields-{rank}.json").read_text())


def test_both_complete(together):
    for rank in (0, 1):
        assert fields_of(together, rank)["status"] == "completed", fields_of(together, rank)


def test_the_weights_are_those_of_one_process(together, alone):
    mine, exact = weights(together / "store"), weights(alone[0])
    assert mine.keys() == exact.keys()
    for name, value in exact.items():
        torch.testing.assert_close(mine[name], value, atol=3e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_the_metrics_are_those_of_one_process(together, alone):
    mine, exact = tiny.measured(together / "store"), tiny.measured(alone[0])
    assert mine.keys() == exact.keys()
    assert {key for key, value in exact.items() if mine[key] != pytest.approx(value, rel=1e-3)} == set()


def test_losses_and_terminal_tests_too(together, alone):
    for stage in ("cycle 1: corrector", "cycle 1: adjoint", "backward"):
        mine, exact = tiny.measured(together / "store", stage), tiny.measured(alone[0], stage)
        assert mine.keys() == exact.keys()
        assert all(mine[key] == pytest.approx(value, rel=1e-3, abs=1e-6) for key, value in exact.items())


def test_costs_are_counted_over_both(together, alone):
    for name in ("simulation_evaluations", "optimisation_evaluations"):
        assert fields_of(together, 0)[name] == alone[1][name]


def test_rank_0_alone_writes(together):
    rows = tiny.metrics(together / "store")
    assert {row["attempt"] for row in rows} == {fields_of(together, 0)["attempt"]}
    assert len(list((together / "store" / "checkpoints").glob("*/*.safetensors"))) == 1
    assert len(list((together / "store" / "checkpoints").glob("*/result-*.json"))) == 1


def test_a_timeout_ends_both(together):
    """The clocks of two processes differ; neither may wait for the other for ever."""
    for rank in (0, 1):
        fields = json.loads((together / f"late-{rank}.json").read_text())
        assert fields["status"] == "failed"
        assert fields["error"].startswith("TimeoutError: the trial took longer than --trial-timeout")


def test_the_seeds_of_a_configuration_share_a_group_until_one_fails(together):
    """Rank 0 could not write: rank 1 does not wait for it until the backend's timeout, and nobody goes on."""
    ranks = [json.loads((together / f"full-{rank}.json").read_text()) for rank in (0, 1)]
    for rank in ranks:
        *fields, waited = rank
        assert [one["status"] for one in fields] == ["completed", "failed"]
        assert [one["evaluated"] for one in fields] == [False, True]
        assert waited < 50
    assert ranks[0][1]["error"] == "OSError: No space left on device"


def test_what_a_group_has_trained_is_evaluated_by_one_process(together, alone):
    """The numbers are those of a single process's training and evaluation; nothing is trained again."""
    job = tiny.job(together / "full", tiny.tree(CHANGES), num_workers=2)
    assert not list((together / "full" / "checkpoints").glob("*/result-*.json"))
    assert [row for row in tiny.metrics(together / "full") if row["stage"] == "evaluation"] == []
    fields = execute(job)
    assert fields["status"] == "completed", fields
    assert fields["training_seconds"] == pytest.approx(json.loads(
        (together / "full-0.json").read_text())[0]["training_seconds"])  # fmt: skip
    mine, exact = tiny.measured(together / "full"), tiny.measured(alone[0])
    assert mine.keys() == exact.keys()
    assert {key for key, value in exact.items() if mine[key] != pytest.approx(value, rel=1e-3)} == set()
    assert fields["optimisation_evaluations"] == alone[1]["optimisation_evaluations"]


def test_a_training_goes_on_with_fewer_workers(tmp_path, alone):
    """Two workers are stopped in the adjoint stage; one continues: a cluster lost a node for good."""
    in_two_processes(stopped, tmp_path)
    job = tiny.job(tmp_path / "store", tiny.tree(CHANGES))
    fields = execute(job)
    assert fields["status"] == "completed", fields
    for name, value in weights(alone[0]).items():
        mine = weights(tmp_path / "store")[name]
        torch.testing.assert_close(mine, value, atol=3e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    for name in ("simulation_evaluations", "optimisation_evaluations"):
        assert fields[name] == alone[1][name]


def stopped(rank: int, folder: str) -> None:
    """Two workers that stop in the middle of the adjoint stage, a checkpoint behind them."""
    from sbbridge.training.loop import Trainer

    step = Trainer._step

    def stop(self, stage, learners, epoch, number, progress):
        if stage.name.endswith("adjoint") and (epoch, number) == (1, 1):
            self._save(stage, learners)
            raise RuntimeError("preempted")
        return step(self, stage, learners, epoch, number, progress)

    Trainer._step = stop
    fields = execute(tiny.job(f"{folder}/store", tiny.tree(CHANGES), num_workers=2), DistributedWorkers())
    assert fields["error"] == "RuntimeError: preempted"

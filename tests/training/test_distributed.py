"""Two processes that share a training arrive where one does."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from sbbridge.coupling import DistributedWorkers, Generation
from sbbridge.methods import DSB, DSBMIMF, OTCFM, Distillation, RectifiedFlow
from tests.processes import in_two_processes
from tests.training.recording import Recorder, tiny, trainer, weights

# odd batches and new pairs: the shards differ in size
OPTIONS = {
    "adjoint_epochs": 1,
    "backward_epochs": 1,
    "new_pairs": 65,
    "buffer_size": 97,
    "backward_pairs": 67,
    "damping": 0.5,
}
BATCH = 17
SHORT = Generation("heun", 3, "trailing_uniform")
RIVALS = {
    "distilled": OTCFM(epochs=1, pairs=67, distillation=Distillation(2, 67, SHORT, every=3, learning_rate=1e-3)),
    "reflow": RectifiedFlow(epochs=1, pairs=67, reflow_epochs=1, generation=SHORT),
    "dsb": DSB(iterations=1, epochs=1, final_epochs=1, num_steps=3, paths=33, steps=3),
    "imf": DSBMIMF(iterations=1, epochs=1, final_epochs=1, new_pairs=65, buffer_size=97),
}  # fmt: skip
"""The other kinds of stages: with a follower, with generated pairs, with whole paths."""
PARTS = {"distilled": 3, "dsb": 2}
"""What every process cuts its share of a batch into."""


def work(rank: int, folder: str) -> None:
    workers = DistributedWorkers()
    whole = torch.arange(14.0).reshape(7, 2)
    shard = workers.shard(7)
    assert torch.equal(workers.gather(whole[shard.start : shard.stop], 7), whole)
    recorder = Recorder(workers=workers)
    run = trainer(tiny(**OPTIONS), recorder, batch_size=BATCH)
    run.train()
    safetensors.torch.save_file(weights(run), f"{folder}/weights-{rank}.safetensors")
    losses = torch.tensor([values["loss"] for _, _, values, _ in recorder.told if "loss" in values])
    counts = {name: torch.tensor(getattr(run.position, name)) for name in ("simulation", "optimisation")}
    safetensors.torch.save_file({"losses": losses, **counts}, f"{folder}/told-{rank}.safetensors")
    continued = trainer(tiny(**OPTIONS), Recorder(Path(folder, "half").read_bytes(), workers=workers), batch_size=BATCH)
    continued.train()
    safetensors.torch.save_file(weights(continued), f"{folder}/continued-{rank}.safetensors")
    for name, method in RIVALS.items():
        rival = trainer(method, Recorder(workers=workers), batch_size=BATCH, accumulate=PARTS.get(name, 1))
        rival.train()
        counts = {"simulation": rival.position.simulation, "optimisation": rival.position.optimisation}
        told = {f"counted/{key}": torch.tensor(value) for key, value in counts.items()}
        safetensors.torch.save_file(weights(rival) | told, f"{folder}/{name}-{rank}.safetensors")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    alone = Recorder()
    trainer(tiny(**OPTIONS), alone, batch_size=BATCH).train()
    (folder / "half").write_bytes(alone.saved[len(alone.saved) // 2])
    in_two_processes(work, folder)
    return folder


def test_a_batch_shared_by_two_processes_gives_the_weights_of_one(two_processes):
    recorder = Recorder()
    alone = trainer(tiny(**OPTIONS), recorder, batch_size=BATCH)
    alone.train()
    exact = weights(alone)
    for rank in (0, 1):
        shared = safetensors.torch.load_file(two_processes / f"weights-{rank}.safetensors")
        for name, value in exact.items():
            torch.testing.assert_close(
                shared[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
        told = safetensors.torch.load_file(two_processes / f"told-{rank}.safetensors")
        assert int(told["optimisation"]) == alone.position.optimisation
        losses = torch.tensor([values["loss"] for _, _, values, _ in recorder.told if "loss" in values])
        torch.testing.assert_close(told["losses"], losses, atol=1e-4, rtol=1e-4)


def test_two_processes_continue_what_one_began(two_processes):
    """The number of workers may change when a run is resumed."""
    alone = trainer(tiny(**OPTIONS), Recorder(), batch_size=BATCH)
    alone.train()
    for rank in (0, 1):
        continued = safetensors.torch.load_file(two_processes / f"continued-{rank}.safetensors")
        for name, value in weights(alone).items():
            torch.testing.assert_close(continued[name], value, atol=1e-5, rtol=1e-5)


def test_both_processes_hold_the_same_weights(two_processes):
    one, other = (safetensors.torch.load_file(two_processes / f"weights-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_simulation_is_counted_over_both_processes(two_processes):
    alone = trainer(tiny(**OPTIONS), Recorder(), batch_size=BATCH)
    alone.train()
    for rank in (0, 1):
        told = safetensors.torch.load_file(two_processes / f"told-{rank}.safetensors")
        assert int(told["simulation"]) == alone.position.simulation


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_arrive_where_one_process_does_and_cost_what_was_foreseen(two_processes, name):
    alone = trainer(RIVALS[name], Recorder(), batch_size=BATCH)
    alone.train()
    for rank in (0, 1):
        shared = safetensors.torch.load_file(two_processes / f"{name}-{rank}.safetensors")
        for key, value in weights(alone).items():
            torch.testing.assert_close(shared[key], value, atol=2e-5, rtol=2e-5, msg=lambda text, k=key: f"{k}: {text}")
        counted = int(shared["counted/simulation"]) + int(shared["counted/optimisation"])
        assert counted == RIVALS[name].cost(BATCH) == alone.evaluations()

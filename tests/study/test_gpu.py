"""Trials on a CUDA device: precision, memory format, compilation, NCCL, and the memory that they took."""

import math
import os
from datetime import timedelta

import pytest
import torch

from sbbridge.coupling import DistributedWorkers
from sbbridge.study.job import execute
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.space import resolve
from sbbridge.study.trial import TrialConfig
from tests.study import tiny
from tests.training.recording import Killed, differing

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

UNET = {
    "network": {"kind": "unet", "channels": [32, 64], "layers_per_block": 1, "attention": [1], "head_channels": 32,
                "dropout": 0.1},
    "evaluation.localised_times": [],
}  # fmt: skip


def run(folder, changes=None, device="cuda", workers=None):
    """A trial of a small U-Net on digits; its fields and the losses of stage 2."""
    # the network first: an override of one of its options needs it there
    base = resolve(TrialConfig, tiny.tree(), UNET)
    job = tiny.job(folder, resolve(TrialConfig, base, changes or {}))
    fields = execute(job, workers, device)
    rows = sorted((r["step"], r["value"]) for r in tiny.metrics(folder) if r["metric"] == "loss")
    return job, fields, [value for _, value in rows]


def weights(folder, job):
    return tiny.weights(folder, job.training_digest)


def test_a_trial_runs_there_and_says_what_memory_it_took(tmp_path):
    _, fields, losses = run(tmp_path)
    assert fields["status"] == "completed", fields
    assert fields["device"] == "cuda"
    assert 10 * 2**20 < fields["peak_memory_bytes"] < torch.cuda.get_device_properties(0).total_memory
    assert all(math.isfinite(value) for value in losses)


def test_its_losses_are_those_of_the_cpu(tmp_path):
    """Random numbers of the device are its own: the same law, not the same numbers."""
    no_dropout = {"network.dropout": 0.0}
    _, on_gpu, mine = run(tmp_path / "gpu", no_dropout)
    _, on_cpu, other = run(tmp_path / "cpu", no_dropout, "cpu")
    assert on_gpu["status"] == on_cpu["status"] == "completed", (on_gpu, on_cpu)
    assert mine == pytest.approx(other, rel=0.5)
    for cost in ("simulation_evaluations", "optimisation_evaluations", "network_parameters"):
        assert on_gpu[cost] == on_cpu[cost]


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"training.channels_last": True}, 0.02),
        ({"training.precision": "bfloat16"}, 0.1),
        ({"training.compile": True}, 0.02),
        ({"training.precision": "bfloat16", "training.channels_last": True, "training.compile": True}, 0.1),
        ({"training.accumulate": 3}, 0.02),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_speed_does_not_change_what_is_learned(changes, tolerance, tmp_path):
    no_dropout = {"network.dropout": 0.0}
    _, plain, exact = run(tmp_path / "plain", no_dropout)
    _, fields, mine = run(tmp_path / "other", {**no_dropout, **changes})
    assert plain["status"] == fields["status"] == "completed", fields
    assert mine == pytest.approx(exact, rel=tolerance)


def test_parts_of_a_batch_take_less_memory(tmp_path):
    large = {"training.batch_size": 256, "method.coupling": "independent", "method.backward_epochs": 1,
             "evaluation.nfe": [1], "evaluation.paths": 2}  # fmt: skip
    taken = []
    for parts in (1, 8):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        _, fields, _ = run(tmp_path / str(parts), {**large, "training.accumulate": parts})
        assert fields["status"] == "completed", fields
        taken.append(fields["peak_memory_bytes"])
    assert taken[1] < taken[0]


def test_a_batch_that_does_not_fit_says_what_to_set(tmp_path):
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        _, fields, _ = run(tmp_path, {"training.batch_size": 512, "network.channels": [256, 256]})
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert fields["status"] == "failed"
    assert fields["error"].startswith("BatchTooLarge: the batch does not fit on cuda")
    assert "training.batch_size=256" in fields["error"]


def test_a_killed_trial_goes_on_where_it_stood(tmp_path, monkeypatch):
    changes = {"training.checkpoint_seconds": 1e-9}
    job, whole, _ = run(tmp_path / "whole", changes)
    assert whole["status"] == "completed", whole

    def save(reporter, tensors, position, original=StudyReporter.save):
        original(reporter, tensors, position)
        if (position["stage"], position["step"]) == (2, 1):
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(StudyReporter, "save", save)
        assert run(tmp_path / "killed", changes)[1]["error"] == "Killed"
    assert run(tmp_path / "killed", changes)[1]["status"] == "completed"
    mine, exact = weights(tmp_path / "killed", job), weights(tmp_path / "whole", job)
    for name in differing(mine, exact):  # sums on a GPU have no fixed order
        torch.testing.assert_close(mine[name], exact[name], atol=1e-3, rtol=1e-3, msg=name)


@pytest.fixture
def alone_in_a_group(tmp_path):
    """NCCL with a single process."""
    before = os.environ.get("NCCL_ASYNC_ERROR_HANDLING")
    torch.cuda.set_device(0)
    torch.distributed.init_process_group(
        "nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1, timeout=timedelta(seconds=60)
    )
    yield DistributedWorkers()
    torch.distributed.destroy_process_group()
    if before is not None:
        os.environ["NCCL_ASYNC_ERROR_HANDLING"] = before


def test_a_group_of_one_trains_as_one_process_does(alone_in_a_group, tmp_path):
    no_dropout = {"network.dropout": 0.0}
    _, plain, exact = run(tmp_path / "plain", no_dropout)
    _, fields, mine = run(tmp_path / "group", no_dropout, workers=alone_in_a_group)
    assert plain["status"] == fields["status"] == "completed", fields
    assert mine == pytest.approx(exact, rel=0.02)


def test_gradients_go_through_ddp_and_nccl(alone_in_a_group):
    """The wrapper that several workers train through, in a group of one."""
    torch.manual_seed(0)
    plain = torch.nn.Linear(4, 2).cuda()
    wrapped = torch.nn.parallel.DistributedDataParallel(plain)
    x = torch.randn(8, 4, device="cuda")
    wrapped(x).square().mean().backward()
    exact = torch.autograd.grad(plain(x).square().mean(), plain.weight)[0]
    torch.testing.assert_close(plain.weight.grad, exact)
    mine = torch.tensor([3.0], dtype=torch.float64, device="cuda")
    assert alone_in_a_group.gather(mine, alone_in_a_group.size).tolist() == [3.0]

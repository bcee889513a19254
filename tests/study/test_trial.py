"""One trial, without Ray: what it writes, that it is looked up, that it resumes, and how it fails."""

import json
import math
import re
import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sbbridge.config import ConfigurationError, dump
from sbbridge.data import Toy2D
from sbbridge.methods import Unsupported
from sbbridge.networks import MLP
from sbbridge.study import trial
from sbbridge.study.job import execute, one_line, trial_row
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.space import resolve
from sbbridge.study.store import Store
from tests.study import tiny
from tests.training.recording import Killed, differing

COSTS = ("simulation_evaluations", "optimisation_evaluations", "network_parameters", "retained_memory",
         "terminal_variance")  # fmt: skip

VARIETY = {"precision", "recall", "density", "coverage", "class_histogram_distance", "classes_covered"}
KERNEL = {"kernel_distance", "kernel_distance_standard_error"}


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    (path,) = (folder / "artifacts").glob(f"*/{name}.npz")
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def weights(folder: Path, job_) -> dict:
    return tiny.weights(folder, job_.training_digest, job_.seed)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """An uninterrupted trial on digits; tests only read it."""
    folder = tmp_path_factory.mktemp("digits")
    job = tiny.job(folder, tiny.tree())
    return folder, job, execute(job)


class TestDigits:
    def test_it_completes_and_says_what_it_cost(self, digits_run):
        _, job, fields = digits_run
        assert fields["status"] == "completed", fields
        assert fields["optimisation_evaluations"] % 128 == 0  # whole batches
        assert fields["simulation_evaluations"] > 0
        assert 0 < fields["training_seconds"] < fields["seconds"]
        assert fields["evaluation_seconds"] > 0
        row = trial_row(job, fields, [4])
        assert (row["status"], row["optuna_numbers"], row["method"]) == ("completed", [4], "asbm")
        assert row["retained_memory"] == pytest.approx(math.exp(-0.5 * 2.05))
        assert row["terminal_variance"] == pytest.approx(1 - math.exp(-2.05))

    def test_fields_are_plain_json(self, digits_run):
        assert json.loads(json.dumps(digits_run[2])) == digits_run[2]

    def test_every_sampler_nfe_and_split_is_measured(self, digits_run):
        folder, *_ = digits_run
        rows = [r for r in tiny.metrics(folder) if r["metric"] == "frechet_distance" and r["role"] == "model"]
        assert {(r["sampler"], r["split"]) for r in rows} == {
            (sampler, split) for sampler in ("exponential", "heun") for split in ("validation", "test")
        }
        assert {r["nfe"] for r in rows if r["sampler"] == "exponential"} == {1, 4}
        assert all(r["nfe"] <= 4 for r in rows)
        assert {(r["split"], r["n"]) for r in rows} == {("validation", 300), ("test", 599)}
        assert all(r["features"] == "digits-CNN" and r["weights"] == "ema" for r in rows)
        assert all(math.isfinite(r["value"]) and r["value"] > 0 for r in rows)

    def test_the_floor_stands_beside_them(self, digits_run):
        folder, *_ = digits_run
        rows = [r for r in tiny.metrics(folder) if r["role"] == "floor" and r["metric"] == "frechet_distance"]
        assert {(r["metric"], r["split"], r["n"]) for r in rows} == {
            ("frechet_distance", "validation", 300), ("frechet_distance", "test", 599)
        }  # fmt: skip
        worst = max(r["value"] for r in rows)
        assert worst < min(r["value"] for r in tiny.metrics(folder) if r["metric"] == "frechet_distance" and
                           r["role"] == "model") / 5  # fmt: skip

    def test_what_is_covered_is_measured_on_test_with_its_floor(self, digits_run):
        """The samplers are chosen on validation, by the primary metric and by nothing else."""
        folder, *_ = digits_run
        rows = [r for r in tiny.metrics(folder) if r["metric"] in VARIETY | KERNEL]
        assert {r["split"] for r in rows} == {"test"}
        assert {(r["n"], r["features"]) for r in rows} == {(599, "digits-CNN")}
        for metric in VARIETY | KERNEL:
            mine = [r for r in rows if r["metric"] == metric]
            measured = {(r["sampler"], r["nfe"]) for r in mine if r["role"] == "model"}
            assert {nfe for sampler, nfe in measured if sampler == "exponential"} == {1, 4}
            assert {sampler for sampler, _ in measured} == {"exponential", "heun"}
            assert [r["role"] for r in mine].count("floor") == 1
        floor = {r["metric"]: r["value"] for r in rows if r["role"] == "floor"}
        assert min(floor["precision"], floor["recall"], floor["density"], floor["coverage"]) > 0.8
        assert floor["classes_covered"] == 10
        assert floor["class_histogram_distance"] < 0.1
        assert (
            abs(floor["kernel_distance"])
            < 0.1
            < min(r["value"] for r in rows if r["metric"] == "kernel_distance" and r["role"] == "model")
        )
        assert {r["metric"] for r in tiny.metrics(folder) if r["split"] == "validation"} == {"frechet_distance"}

    def test_stages_tell_their_loss_and_the_cycle_its_terminal_test(self, digits_run):
        folder, *_ = digits_run
        rows = tiny.metrics(folder)
        stages = {r["stage"] for r in rows if r["metric"] == "loss"}
        assert stages == {"cycle 1: corrector", "cycle 1: adjoint", "backward"}
        assert {r["metric"] for r in rows if r["metric"].startswith("terminal_")} >= {
            "terminal_passed", "terminal_top_eigenvalue", "terminal_covariance_error"
        }  # fmt: skip
        assert all(r["attempt"] == digits_run[2]["attempt"] for r in rows)
        assert tiny.doubled(rows, ("stage", "step", "metric", "sampler", "grid", "nfe", "split", "role")) == []

    def test_paths_are_measured(self, digits_run):
        names = {r["metric"] for r in tiny.metrics(digits_run[0])}
        assert {"transport_cost", "straightness", "trajectory_variance", "accumulated_drift"} <= names

    def test_paths_are_kept_one_by_one(self, digits_run):
        folder, *_ = digits_run
        paths = arrays(folder, "paths")
        value = {r["metric"]: r["value"] for r in tiny.metrics(folder) if r["stage"] == "evaluation"}
        assert paths["times"][0] == 1
        assert paths["times"][-1] == 0
        assert (np.diff(paths["times"]) < 0).all()
        for name in ("straightness", "trajectory_variance"):
            assert paths[name].shape == (16,)
            assert paths[name].mean() == pytest.approx(value[name])
        assert paths["trajectories"].shape == (51, 16, 2)  # evaluation.paths is 16, at most 64 are kept
        for name, times in (("accumulated_length", "times"), ("accumulated_drift", "drift_times")):
            assert paths[name].shape == paths[times].shape == (51,)
            assert paths[name][0] == 0
            assert (np.diff(paths[name]) >= 0).all()
        assert paths["accumulated_drift"][-1] == pytest.approx(value["accumulated_drift"])

    def test_localised_coupling(self, digits_run):
        folder, *_ = digits_run
        rows = {r["metric"]: r for r in tiny.metrics(folder) if r["metric"].startswith("localised_distance_t")}
        assert set(rows) == {f"localised_distance_t{t}" for t in ("0.2", "0.4", "0.6", "0.8", "1")}
        assert {(r["n"], r["split"], r["sampler"]) for r in rows.values()} == {(256, "test", "exponential")}
        assert all(r["value"] > 0 for r in rows.values())
        kept = arrays(folder, "localised")
        assert kept["t"].tolist() == [0.2, 0.4, 0.6, 0.8, 1.0]
        assert kept["distance"].tolist() == [rows[f"localised_distance_t{t:g}"]["value"] for t in kept["t"]]
        assert kept["originals"].shape == (8, 8, 8)
        assert kept["returned"].shape == (5, 8, 8, 8)
        assert kept["originals"].dtype == kept["returned"].dtype == np.uint8

    def test_artefacts_need_no_pickle(self, digits_run):
        folder, *_ = digits_run
        samples = arrays(folder, "samples")
        assert {"real", "nfe_1", "nfe_4"} <= set(samples)
        assert all(array.shape == (64, 8, 8) and array.dtype == np.uint8 for array in samples.values())
        spectrum = arrays(folder, "spectrum")
        assert set(spectrum) == {"cycle_1", "prior"}
        assert all(np.isfinite(array).all() for array in spectrum.values())

    def test_one_checkpoint_is_left(self, digits_run):
        folder, *_ = digits_run
        assert len(list((folder / "checkpoints").glob("*/*.safetensors"))) == 1

    def test_a_second_run_is_looked_up(self, digits_run, monkeypatch):
        folder, job, fields = digits_run
        before = tiny.files(folder)
        monkeypatch.setattr(trial, "run_trial", lambda *a: pytest.fail("it ran again"))
        again = execute(job)
        assert {**again, "attempt": 0} == {**fields, "attempt": 0}
        assert again["attempt"] >= fields["attempt"]
        assert tiny.files(folder) == before

    def test_another_evaluation_of_the_same_training_does_not_train(self, digits_run, tmp_path):
        import shutil

        folder, job, fields = digits_run
        shutil.copytree(folder, tmp_path / "copy")
        other = tiny.job(tmp_path / "copy", tiny.tree({"evaluation.nfe": [2]}))
        assert other.training_digest == job.training_digest
        assert other.digest != job.digest
        found = execute(other)
        assert found["status"] == "completed", found
        assert found["training_seconds"] == fields["training_seconds"]
        assert {entry["nfe"] for entry in found["entries"]} <= {1, 2}


class Dying:
    """Raises after so many checkpoints, as if the process had been killed there."""

    def __init__(self, monkeypatch, saves: int) -> None:
        self.left, original = saves, StudyReporter.save

        def save(reporter, tensors, position):
            original(reporter, tensors, position)
            self.left -= 1
            if self.left == 0:
                raise Killed(f"after {position}")

        monkeypatch.setattr(StudyReporter, "save", save)


EVERY_STEP = {"training.checkpoint_seconds": 1e-9}


class TestResuming:
    @pytest.fixture(scope="class")
    @staticmethod
    def whole(tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole")
        job = tiny.job(folder, tiny.tree(EVERY_STEP))
        fields = execute(job)
        assert fields["status"] == "completed", fields
        return folder, job, fields

    @pytest.mark.parametrize("saves", [3, 8, 13])
    def test_a_killed_trial_ends_as_one_that_was_not(self, whole, saves, tmp_path, monkeypatch):
        """In the corrector's, the adjoint's and the backward stage: same weights, metrics, costs and artefacts."""
        folder, first, fields = whole
        job = tiny.job(tmp_path, tiny.tree(EVERY_STEP))
        Dying(monkeypatch, saves)
        died = execute(job)
        assert died["status"] == "failed"
        assert died["error"].startswith("Killed: after {'stage': ")
        assert Store(str(tmp_path), tiny.COLUMNS).finished(job.training_digest, job.digest, 0) is None
        monkeypatch.undo()
        resumed = execute(job)
        assert resumed["status"] == "completed", resumed
        assert resumed["attempt"] >= died["attempt"]
        assert differing(weights(tmp_path, job), weights(folder, first)) == []
        assert tiny.measured(tmp_path) == tiny.measured(folder)
        assert {name: resumed[name] for name in COSTS} == {name: fields[name] for name in COSTS}
        for name in ("samples", "spectrum"):
            one, other = arrays(tmp_path, name), arrays(folder, name)
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)

    def test_no_point_of_a_loss_curve_is_lost(self, whole, tmp_path, monkeypatch):
        folder, *_ = whole
        job = tiny.job(tmp_path, tiny.tree(EVERY_STEP))
        Dying(monkeypatch, 8)
        execute(job)
        monkeypatch.undo()
        execute(job)
        stage = "cycle 1: adjoint"
        assert tiny.measured(tmp_path, stage).keys() == tiny.measured(folder, stage).keys()

    def test_dying_in_the_evaluation_loses_no_training(self, whole, tmp_path, monkeypatch):
        folder, first, _ = whole
        job = tiny.job(tmp_path, tiny.tree(EVERY_STEP))
        monkeypatch.setattr(trial, "_evaluate", lambda *a: (_ for _ in ()).throw(Killed("evaluating")))
        assert execute(job)["error"] == "Killed: evaluating"
        monkeypatch.undo()
        saved = []
        monkeypatch.setattr(StudyReporter, "save", lambda *a: saved.append(a))
        resumed = execute(job)
        assert resumed["status"] == "completed", resumed
        assert saved == []
        assert tiny.measured(tmp_path) == tiny.measured(folder)
        assert differing(weights(tmp_path, job), weights(folder, first)) == []

    def test_seeds_are_trainings_of_their_own(self, whole, tmp_path):
        job = tiny.job(tmp_path, tiny.tree(EVERY_STEP), seed=1)
        execute(job)
        assert len(differing(weights(tmp_path, job), weights(whole[0], whole[1]))) > 5
        assert tiny.measured(tmp_path) != tiny.measured(whole[0])


class TestFailing:
    def failed(self, fields, start):
        assert fields["status"] == "failed"
        assert fields["error"].startswith(start), fields["error"]
        assert "\n" not in fields["error"]
        assert fields["attempt"] > 0
        assert fields["host"]

    def test_a_loss_that_is_no_number(self, tmp_path):
        job = tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64", "training.learning_rate": 1e20}))
        fields = execute(job)
        self.failed(fields, "DivergenceError: the loss of stage 'cycle 1: ")
        assert re.search(r" after \d+ steps; the last good checkpoint is that of step \d+$", fields["error"])
        assert Store(str(tmp_path), tiny.COLUMNS).finished(job.training_digest, job.digest, 0) is None

    @pytest.mark.parametrize(
        ("error", "says"),
        [
            (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
            (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you"), True),
            (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        ],
    )
    def test_a_batch_that_the_memory_does_not_hold(self, error, says, tmp_path, monkeypatch):
        def forward(*arguments, **named):
            raise error

        monkeypatch.setattr("sbbridge.networks.mlp.ResidualMLP.forward", forward)
        job = tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64", "training.accumulate": 3}))
        fields = execute(job)
        if says:
            self.failed(fields, "BatchTooLarge: the batch does not fit on cpu: try --set training.batch_size=64 or "
                                "training.accumulate=6, with --fresh")  # fmt: skip
            tiny.tree({"training.batch_size": 64, "training.accumulate": 6})  # what is suggested can be set
        else:
            self.failed(fields, "RuntimeError: mat1 and mat2")
        row = trial_row(job, fields, [])
        assert (row["status"], row["error"]) == ("failed", fields["error"])

    def test_what_is_suggested_to_ldsb_can_be_set(self, tmp_path, monkeypatch):
        def whole(*arguments):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

        monkeypatch.setattr("sbbridge.study.trial.with_denoiser", whole)
        options = {"method.kind": "ldsb", "network.kind": "table", "training.batch_size": 128}
        fields = execute(tiny.job(tmp_path, resolve(trial.TrialConfig, dump(trial.TrialConfig()), options)))
        self.failed(fields, "BatchTooLarge: the batch does not fit on cpu: try --set training.batch_size=64, with")

    def test_a_method_that_the_reference_does_not_allow(self, tmp_path):
        tree = tiny.tree({"dataset": "gaussian64", **tiny.SCORE_MATCHING, "reference.beta_max": 4.0}, method={})
        self.failed(execute(tiny.job(tmp_path, tree)), "ValueError: score_matching_vp needs a memoryless reference")

    def test_a_timeout(self, tmp_path):
        job = tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64"}), timeout=1e-6)
        self.failed(execute(job), "TimeoutError: the trial took longer than --trial-timeout 1e-06 s")

    def test_a_trial_that_timed_out_goes_on_when_it_is_given_more_time(self, tmp_path):
        tree = tiny.tree({"dataset": "gaussian64"})
        execute(tiny.job(tmp_path, tree, timeout=1e-6))
        assert execute(tiny.job(tmp_path, tree, timeout=600.0))["status"] == "completed"

    def test_missing_data(self, tmp_path):
        job = tiny.job(tmp_path, tiny.tree({"dataset": "cifar10"}))
        self.failed(execute(job), "DataError: dataset cifar10 needs --data-root")

    def test_a_disk_that_is_full(self, tmp_path, monkeypatch):
        def full(*address):
            raise OSError("[Errno 28] No space left on device")

        monkeypatch.setattr(Store, "save_checkpoint", full)
        job = tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64"}))
        self.failed(execute(job), "OSError: [Errno 28] No space left")

    def test_a_keyboard_interrupt_is_no_result(self, tmp_path, monkeypatch):
        def interrupt(*a):
            raise KeyboardInterrupt

        monkeypatch.setattr(trial, "run_trial", interrupt)
        with pytest.raises(KeyboardInterrupt):
            execute(tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64"})))

    def test_one_line(self):
        assert one_line(ValueError("a\n  b\tc")) == "ValueError: a b c"
        assert one_line(KeyError()) == "KeyError"


def run(folder, changes, method=None):
    fields = execute(tiny.job(folder, tiny.tree(changes, method)))
    assert fields["status"] == "completed", fields
    rows = tiny.metrics(folder)
    assert all(math.isfinite(row["value"]) for row in rows)
    return fields, rows


WATCHED = {"dataset": "gaussian64", "evaluation.curve": 4, "evaluation.curve_nfe": 3, "method.backward_epochs": 8}


class TestTheCurve:
    """Validation scores while the network that is sampled from is trained."""

    @pytest.fixture(scope="class")
    @staticmethod
    def watched(tmp_path_factory):
        folder = tmp_path_factory.mktemp("watched")
        job = tiny.job(folder, tiny.tree({**WATCHED, "training.checkpoint_seconds": 1e-9}))
        fields = execute(job)
        assert fields["status"] == "completed", fields
        return folder, job, fields

    def test_points_stand_at_equal_shares_of_the_stage_against_network_evaluations(self, watched):
        folder, _, fields = watched
        points = sorted((r for r in tiny.metrics(folder) if r["stage"] == "training"), key=lambda r: r["step"])
        assert len(points) == 4
        described = {(p["metric"], p["split"], p["sampler"], p["grid"], p["nfe"], p["role"]) for p in points}
        assert described == {("covariance_error", "validation", "exponential", "trailing_uniform", 3, "model")}
        steps = [p["step"] for p in points]
        assert steps[-1] == fields["simulation_evaluations"] + fields["optimisation_evaluations"]
        # of 8 epochs on 256 pairs, the points stand after the 2nd, 4th, …; the 5th simulates anew: 2 steps of 2 calls
        assert [b - a for a, b in pairwise(steps)] == [2 * 256, (2 + 4) * 256, 2 * 256]
        assert len({p["value"] for p in points}) == 4

    def test_the_search_does_not_choose_by_them(self, watched):
        folder, _, fields = watched
        measured = {r["value"] for r in tiny.metrics(folder)
                    if r["stage"] == "evaluation" and r["split"] == "validation" and r["role"] == "model"}  # fmt: skip
        assert {entry["value"] for entry in fields["entries"]} == measured
        assert {entry["nfe"] for entry in fields["entries"]} == {1, 2, 4}  # 3 is the curve's
        curve = {r["value"] for r in tiny.metrics(folder) if r["stage"] == "training"}
        assert not curve & {entry["value"] for entry in fields["entries"]}

    def test_it_changes_nothing_else(self, watched, tmp_path):
        folder, job, _ = watched
        plain = tiny.job(tmp_path, tiny.tree({**WATCHED, "evaluation.curve": 0}))
        execute(plain)
        assert tiny.measured(tmp_path) == tiny.measured(folder)
        assert differing(weights(tmp_path, plain), weights(folder, job)) == []
        assert tiny.measured(tmp_path, "training") == {}

    def test_a_resumed_curve_has_the_points_of_one_that_was_not_killed(self, watched, tmp_path, monkeypatch):
        """Killed in the 5th of the 8 epochs."""
        folder, job, _ = watched
        again = tiny.job(tmp_path, job.tree)
        whole = sorted({r["step"] for r in tiny.metrics(folder) if r["stage"] == "training"})

        def save(reporter, tensors, position, original=StudyReporter.save):
            original(reporter, tensors, position)
            if (position["stage"], position["epoch"], position["step"]) == (2, 4, 1):
                raise Killed

        monkeypatch.setattr(StudyReporter, "save", save)
        assert execute(again)["error"] == "Killed"
        monkeypatch.undo()
        assert execute(again)["status"] == "completed"
        assert sorted({r["step"] for r in tiny.metrics(tmp_path) if r["stage"] == "training"}) == whole


QUICK = {"dataset": "moons", "evaluation.nfe": [4], "evaluation.samplers": ["heun"], "evaluation.localised_times": []}
"""The cheapest evaluation."""


class TestOtherMethods:
    @pytest.mark.parametrize(
        ("method", "reference"),
        [({"method.kind": "flow_matching"}, {}), (tiny.SCORE_MATCHING, {"reference.beta_max": 20.0})],
    )
    def test_multistep_samplers_take_one_call_a_step(self, method, reference, tmp_path):
        samplers = ["dpm_solver_pp", "dpm_solver_pp_3", "unipc"]
        pairs = {"method.pairs": 256, "method.epochs": 2}
        changes = {**QUICK, **method, **reference, **pairs, "evaluation.samplers": samplers}
        fields, rows = run(tmp_path, changes, method={})
        assert {(e["sampler"], e["nfe"]) for e in fields["entries"]} == {(name, 4) for name in samplers}
        mine = [r for r in rows if r["sampler"] in samplers and r["metric"] == "wasserstein2"]
        assert {r["num_steps"] for r in mine if r["nfe"] == 4} == {4}

    def test_they_are_left_out_where_the_reference_remembers(self, tmp_path):
        changes = {"dataset": "gaussian64", "evaluation.samplers": ["unipc", "exponential"]}
        fields, _ = run(tmp_path, changes)
        assert {entry["sampler"] for entry in fields["entries"]} == {"exponential"}

    @pytest.mark.parametrize("kind", ["flow_matching", "rectified_flow", "ot_cfm"])
    def test_parameters_are_those_of_the_network_that_is_sampled_from(self, kind, tmp_path):
        """Of the same network as in ASBM, though that trains three."""
        changes = {"method.kind": kind, "method.pairs": 256, "method.epochs": 1}
        fields, _ = run(tmp_path / "flow", {**QUICK, **changes}, method={})
        asbm, _ = run(tmp_path / "asbm", QUICK)
        network = MLP(width=8, depth=1).build((2,), 0)
        assert fields["network_parameters"] == sum(p.numel() for p in network.parameters())
        assert asbm["network_parameters"] == fields["network_parameters"]

    @pytest.mark.parametrize("method", [
        {"method.kind": "flow_matching", "method.pairs": 256, "method.epochs": 1},
        {**tiny.ASBM, "method.student": "flow"},
        {**tiny.ASBM, "method.distillation": {"epochs": 1, "pairs": 256}},
    ], ids=["flow matching", "flow on the coupling", "one step"])  # fmt: skip
    def test_what_has_no_backward_score_is_judged_on_gaussian64_too(self, method, tmp_path):
        fields, rows = run(tmp_path, {"dataset": "gaussian64", **method, "evaluation.samplers": ["heun", "one_step"]},
                           method={})  # fmt: skip
        assert {entry["metric"] for entry in fields["entries"]} == {"covariance_error"}
        assert "backward_score_error" not in {r["metric"] for r in rows}

    def test_the_smaller_forward_network_is_not_the_one_that_counts(self, tmp_path):
        small = {"kind": "mlp", "width": 4, "depth": 1}
        both, _ = run(tmp_path / "one", {**QUICK, "method.forward_network": small})
        plain, _ = run(tmp_path / "two", QUICK)
        assert both["network_parameters"] == plain["network_parameters"]

    @pytest.mark.parametrize(
        ("method", "reference"),
        [
            ("score_matching_vp", {"reference.beta_max": 20.0}),
            ("score_matching_ve", {"reference.kind": "ve", "reference.sigma_max": 30.0}),
        ],
    )
    def test_memoryless_methods_train_on_a_mixtures_data_and_are_judged_by_its_plan(self, method, reference, tmp_path):
        """They do not look for the plan: their cBW-UVP is about that of independent pairs, not of the plan's."""
        changes = {"dataset": "mixture2", "method.kind": method, **reference, "method.pairs": 2048,
                   "method.epochs": 60, "network.width": 32, "training.learning_rate": 1e-2, "evaluation.n": 4000,
                   "evaluation.nfe": [50], "evaluation.samplers": ["exponential"]}  # fmt: skip
        _, rows = run(tmp_path, changes, method={})
        found = {r["role"]: r["value"] for r in rows if r["metric"] == "cbw_uvp" and r["split"] == "test"}
        assert set(found) == {"model", "floor", "null"}
        assert found["floor"] < found["null"] / 3
        assert found["model"] == pytest.approx(found["null"], rel=0.35)


class TestOtherDataSets:
    def test_gaussian64_is_judged_by_the_closed_form(self, tmp_path):
        _, rows = run(tmp_path, {"dataset": "gaussian64"})
        found = {(r["metric"], r["role"], r["split"]) for r in rows if r["stage"] == "evaluation" and r["split"]}
        assert found == {
            ("covariance_error", role, split) for role in ("model", "floor") for split in ("validation", "test")
        } | {
            (name, "model", "test")
            for name in ("backward_score_error", "control_error", "coupling_error", "teacher_distance")
        }

    def test_an_independent_coupling_has_no_control_to_judge(self, tmp_path):
        _, rows = run(tmp_path, {"dataset": "gaussian64", "method.coupling": "independent"})
        names = {r["metric"] for r in rows}
        assert "backward_score_error" in names
        assert not {"control_error", "coupling_error"} & names

    @pytest.mark.parametrize("dataset", ["mixture2", "mixture16"])
    def test_mixtures_have_floor_and_null(self, dataset, tmp_path):
        _, rows = run(tmp_path, {"dataset": dataset, "evaluation.n": 4000})
        value = {(r["role"], r["split"]): r["value"] for r in rows if r["metric"] == "cbw_uvp" and r["role"] != "model"}
        assert set(value) == {(role, split) for role in ("floor", "null") for split in ("validation", "test")}
        for split in ("validation", "test"):
            assert value["null", split] > 3 * value["floor", split]
        assert min(r["value"] for r in rows if r["metric"] == "cbw_uvp") == min(value.values())
        assert arrays(tmp_path, "samples")["nfe_1"].shape == (512, int(dataset.removeprefix("mixture")))

    @pytest.mark.parametrize("dataset", ["checkerboard", "eight_gaussians"])
    def test_toys_are_judged_by_w2(self, dataset, tmp_path):
        fields, rows = run(
            tmp_path, {"dataset": dataset, "evaluation.nfe": [1], "evaluation.samplers": ["exponential"]}
        )
        mine = [r for r in rows if r["metric"] == "wasserstein2"]
        assert {(r["role"], r["split"], r["n"]) for r in mine} == {
            (role, split, 1024) for role in ("model", "floor") for split in ("validation", "test")
        }
        assert len(fields["entries"]) == 1

    def test_the_floor_of_a_toy_is_no_draw_of_luck(self, tmp_path):
        """Within what chance leaves of the mean over draws of others, by scipy's assignment."""
        changes = {"dataset": "checkerboard", "evaluation.nfe": [1], "evaluation.samplers": ["exponential"]}
        _, rows = run(tmp_path, changes)
        floor = {r["split"]: r["value"] for r in rows if (r["metric"], r["role"]) == ("wasserstein2", "floor")}
        real, found = Toy2D("checkerboard").sample(1024, seed=8), []
        for seed in range(500, 524):
            cost = torch.cdist(Toy2D("checkerboard").sample(1024, seed=seed), real).square().numpy()
            found.append(cost[linear_sum_assignment(cost)].mean() ** 0.5)
        spread = statistics.stdev(found) * math.sqrt(1 / 8 + 1 / 24)  # of a mean of eight from this one
        assert abs(floor["test"] - statistics.fmean(found)) < 3 * spread

    @pytest.mark.parametrize(
        ("dataset", "modes"), [("eight_gaussians", 8), ("checkerboard", 8), ("mixture2", 5), ("moons", None)]
    )
    def test_modes_are_counted_where_they_are_known(self, dataset, modes, tmp_path):
        changes = {"dataset": dataset, "evaluation.nfe": [2], "evaluation.samplers": ["exponential"]}
        _, rows = run(tmp_path, changes)
        rows = [r for r in rows if r["metric"] in VARIETY]
        expected = VARIETY if modes else VARIETY - {"class_histogram_distance", "classes_covered"}
        assert {(r["metric"], r["role"], r["split"], r["n"], r["features"]) for r in rows} == {
            (metric, role, "test", 1024, None) for metric in expected for role in ("model", "floor")
        }
        floor = {r["metric"]: r["value"] for r in rows if r["role"] == "floor"}
        assert floor.get("classes_covered") == modes
        assert min(floor["precision"], floor["recall"], floor["density"]) > 0.85
        assert floor.get("class_histogram_distance", 0) < 0.1

    def test_toys_keep_their_own_coordinates(self, tmp_path):
        changes = {"dataset": "moons", "evaluation.paths": 100, "evaluation.localised_times": [0.5]}
        _, rows = run(tmp_path, changes)
        paths, samples = arrays(tmp_path, "paths"), arrays(tmp_path, "localised")
        assert paths["trajectories"].shape == (51, 64, 2)
        assert samples["returned"].shape == (1, 8, 2)
        assert [r["metric"] for r in rows if r["metric"].startswith("localised")] == ["localised_distance_t0.5"]

    def test_a_method_without_a_control_has_no_accumulated_drift(self, tmp_path):
        run(tmp_path, {"dataset": "moons", "method.coupling": "independent"})
        assert not {"accumulated_drift", "drift_times"} & arrays(tmp_path, "paths").keys()

    @pytest.mark.parametrize("error", [Unsupported("no way back"), ValueError("no way back")])
    def test_a_method_that_cannot_go_there_and_back_is_spared(self, error, tmp_path, monkeypatch):
        monkeypatch.setattr("sbbridge.study.tasks.paths.round_trip", lambda *a, **k: (_ for _ in ()).throw(error))
        _, rows = run(tmp_path, {"dataset": "moons"})
        assert not [r for r in rows if r["metric"].startswith("localised")]
        assert not list(tmp_path.glob("artifacts/*/localised.npz"))

    def test_score_matching_simulates_nothing_and_knows_ddim(self, tmp_path):
        changes = {**tiny.SCORE_MATCHING, "evaluation.samplers": ["exponential", "ancestral", "heun", "ddim"]}
        fields, rows = run(tmp_path, changes, method={})
        assert fields["simulation_evaluations"] == 0
        assert fields["optimisation_evaluations"] == 256 * 2
        assert {r["sampler"] for r in rows if r["metric"] == "frechet_distance" and r["sampler"]} == {
            "exponential", "ancestral", "heun", "ddim"
        }  # fmt: skip
        assert not list(tmp_path.glob("artifacts/*/spectrum.npz"))

    def test_ddim_is_left_out_where_the_reference_remembers(self, digits_run, tmp_path):
        changes = {"dataset": "gaussian64", "evaluation.samplers": ["ddim", "exponential"]}
        fields, _ = run(tmp_path, changes)
        assert {entry["sampler"] for entry in fields["entries"]} == {"exponential"}

    @pytest.mark.parametrize("coupling", ["bridge_matching", "minibatch_ot"])
    @pytest.mark.parametrize("warm_start", ["none", "gaussian"])
    def test_couplings_and_warm_starts(self, coupling, warm_start, tmp_path):
        fields, _ = run(
            tmp_path, {"dataset": "gaussian64", "method.coupling": coupling, "method.warm_start": warm_start}
        )
        assert (fields["simulation_evaluations"] > 0) == (coupling == "bridge_matching")

    def test_the_store_may_be_a_uri(self, tmp_path):
        fields = execute(tiny.job(tmp_path.as_uri(), tiny.tree({"dataset": "gaussian64"})))
        assert fields["status"] == "completed", fields
        assert tiny.metrics(tmp_path) == tiny.metrics(tmp_path.as_uri())
        assert arrays(tmp_path, "samples").keys() >= {"real", "nfe_1"}


@pytest.mark.parametrize("times", [[0.0], [0.5, 1.5], [0.5, 0.5]])
def test_impossible_times_of_the_localised_coupling_are_refused(times):
    with pytest.raises(ConfigurationError, match=r"^evaluation: localised_times must"):
        tiny.tree({"evaluation.localised_times": times})


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_an_impossible_eta_is_refused(eta):
    with pytest.raises(ConfigurationError, match=r"^evaluation: eta must be in \[0, 1\], got"):
        tiny.tree({"evaluation.eta": eta})


def test_eta_changes_ddim_and_not_heun_and_noise_has_no_teacher(tmp_path):
    """The same training, evaluated twice."""
    found = {}
    for eta in (0.0, 1.0):
        folder = tmp_path / f"{eta}"
        job = tiny.job(folder, tiny.tree({
            "dataset": "gaussian64", "evaluation.eta": eta, "evaluation.samplers": ["heun", "ddim"],
            "evaluation.nfe": [5],
        }, {"method.kind": "flow_matching", "method.pairs": 256, "method.epochs": 1}))  # fmt: skip
        assert execute(job)["status"] == "completed"
        found[eta] = {
            (row["sampler"], row["grid"], row["metric"]): row["value"] for row in tiny.metrics(folder)
            if row["sampler"] in ("heun", "ddim") and row["split"] == "test"
        }  # fmt: skip
    changed = {key for key in found[0.0] if found[1.0].get(key) != found[0.0][key]}
    assert {sampler for sampler, _, _ in changed} == {"ddim"}
    assert "covariance_error" in {metric for _, _, metric in changed}
    assert not [key for key in found[1.0] if key[0] == "ddim" and key[2] == "teacher_distance"]
    assert [key for key in found[0.0] if key[0] == "ddim" and key[2] == "teacher_distance"]


def test_a_prior_known_by_its_energy_is_a_row_of_a_study(tmp_path):
    """Two moons at t = 0, a double well at t = 1, of which ASBM sees the energy's gradient."""
    fields = execute(tiny.job(tmp_path, tiny.tree({"dataset": "double_well", "evaluation.draws": 1})))
    assert fields["status"] == "completed", fields
    rows = tiny.metrics(tmp_path)
    model = [row["value"] for row in rows if row["metric"] == "wasserstein2" and row["split"] == "test"
             and row["role"] == "model"]  # fmt: skip
    floor = [row["value"] for row in rows if row["metric"] == "wasserstein2" and row["role"] == "floor"]
    assert 0 < min(floor) < min(model)
    assert [row for row in rows if row["metric"] == "terminal_sliced_wasserstein"]

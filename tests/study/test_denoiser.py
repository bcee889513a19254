"""LDSB's trials: what goes with what, and a denoiser that is trained once for every path that asks for it."""

import contextlib
import hashlib
import multiprocessing
import threading
import time
from copy import deepcopy
from dataclasses import replace

import filelock
import numpy as np
import pytest
import torch

from analysis.ldsb.controls import START
from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.coupling import Workers
from sbbridge.data import DataError
from sbbridge.rng import isolated
from sbbridge.sampling import sample
from sbbridge.study import design
from sbbridge.study.definition import Arm, Factor, Preset
from sbbridge.study.denoiser import one_at_a_time, write_down_published
from sbbridge.study.job import execute
from sbbridge.study.space import Space, resolve
from sbbridge.study.store import Store
from sbbridge.study.tasks import open_task
from sbbridge.study.tasks.teacher import NUM_STEPS, N, Teacher
from sbbridge.study.trial import TrialConfig, digests
from sbbridge.training import Reporter, Trainer, selected, solution_of
from sbbridge.training.checkpoint import from_bytes
from tests.methods.denoising import FITS, method, trainer
from tests.study import tiny

DENOISER = {
    "kind": "trained", "method": {"kind": "score_matching_vp", "epochs": 2, "pairs": 128},
    "network": {"kind": "mlp", "width": 8, "depth": 1}, "training": {"batch_size": 64},
}  # fmt: skip
LDSB = {
    "dataset": "gaussian64", "reference.kind": "ddpm", "method.kind": "ldsb", "method.num_steps": 4,
    "network.kind": "table", "method.fit": {"kind": "random", "candidates": 2}, "method.denoiser": DENOISER,
    "training.batch_size": 64,
    "evaluation.n": 200, "evaluation.paths": 16, "evaluation.samplers": ["ddim", "heun", "exponential"],
    "evaluation.grids": ["trailing_uniform"], "evaluation.nfe": [4],
}  # fmt: skip


def tree(**changes):
    """A tiny trial of LDSB; dots in names are written __."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    base = resolve(TrialConfig, config.dump(TrialConfig()), deepcopy(LDSB))
    return resolve(TrialConfig, base, deepcopy(changed))


def space(base, *factors):
    return Space(TrialConfig, base, factors)


def arm_tree(centre, **overrides):
    return design.arm_tree(space(centre), Arm("denoiser", overrides, denoiser=True), design.Centre(centre))


@pytest.fixture
def steps(monkeypatch):
    """Optimiser steps of every training, by the kind of its method."""
    taken, true = [], Trainer._step

    def counted(self, *arguments):
        taken.append(self.method.kind)
        return true(self, *arguments)

    monkeypatch.setattr(Trainer, "_step", counted)
    return taken


def checkpoints(folder):
    return {path.name: path.stat().st_mtime_ns for path in (folder / "checkpoints").glob("*/*.safetensors")}


def rows_of(folder, job):
    return [row for row in tiny.metrics(folder) if row["digest"] == job.digest]


# -- what goes with what


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method.kind": "asbm", "network.kind": "kan"},
         "network.kind kan does not go with method.kind asbm .allowed: mlp, unet"),
        ({"method.kind": "ot_cfm"}, "network.kind table does not go with method.kind ot_cfm"),
        ({"network.kind": "mlp"}, "network.kind mlp does not go with method.kind ldsb .allowed: kan, efficient_kan,"),
        ({"network.kind": "unet"}, "network.kind unet does not go with method.kind ldsb"),
        ({"training.accumulate": 2}, "training.accumulate: ldsb takes its targets from whole batches"),
        ({"training.budget": 10_000}, "training.budget: ldsb trains scalars; set the options of method.fit"),
        ({"method.denoiser.kind": "guessed"}, "method.denoiser.kind.*'trained', 'exact', 'published'"),
        ({"method.denoiser.network": {"kind": "kan"}}, "method.denoiser.network.kind.*'mlp', 'unet'"),
        ({"method.denoiser.method": {"kind": "dsb"}}, "method.denoiser.method"),
        ({"method.fit.kind": "magic"}, "method.fit.kind.*'none', 'ipf', 'ipf_exact', 'teacher', 'random'"),
        ({"method.fit": {"kind": "ipf", "lr": 1.0}}, "method.fit.*lr.* unknown key"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_in_one_line(changes, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve(TrialConfig, tree(), changes)
    assert "\n" not in str(caught.value)


def test_every_ratio_network_goes_with_ldsb_and_the_tree_is_whole():
    for kind in ("kan", "efficient_kan", "ratio_mlp", "table"):
        whole = tree(network__kind=kind)
        assert config.dump(config.parse(TrialConfig, whole)) == whole


# -- one training for all


def test_the_denoisers_training_is_that_of_its_arm():
    whole = tree()
    wanted = resolve(TrialConfig, design.denoiser_tree(whole), {})
    assert arm_tree(whole) == wanted
    assert wanted["method"]["kind"] == "score_matching_vp"
    assert (wanted["network"]["width"], wanted["training"]["batch_size"]) == (8, 64)
    for same in (tree(method__num_steps=5), tree(network__kind="ratio_mlp"), tree(training__batch_size=32),
                 tree(method__fit={"kind": "none"}), tree(evaluation__n=300)):  # fmt: skip
        assert digests(arm_tree(same))[1] == digests(wanted)[1]
    for other in (tree(method__denoiser={**DENOISER, "training": {"batch_size": 32}}), tree(dataset="moons"),
                  tree(reference__last_beta=0.03)):  # fmt: skip
        assert digests(arm_tree(other))[1] != digests(wanted)[1]


def test_trials_without_a_training_of_their_denoiser_have_no_such_arm():
    exact = tree(method__denoiser={"kind": "exact"})
    assert design.denoiser_tree(exact) is None
    assert design.denoiser_tree(config.dump(TrialConfig())) is None
    with pytest.raises(ConfigurationError, match=r"arm denoiser: method.denoiser.kind must be trained"):
        arm_tree(exact)


def test_a_denoiser_is_trained_once_whoever_asks_first(tmp_path, steps):
    arm = tiny.job(tmp_path, arm_tree(tree()))
    first, second = (tiny.job(tmp_path, tree(method__num_steps=n)) for n in (4, 5))
    fields = execute(first)
    assert fields["status"] == "completed", fields
    trained = steps.count("score_matching_vp")
    assert trained == 2 * 2
    (name,) = [path.name for path in (tmp_path / "checkpoints").iterdir() if arm.training_digest in path.name]
    assert name == f"{arm.training_digest}-0"
    before = checkpoints(tmp_path)
    for job in (second, arm):
        assert execute(job)["status"] == "completed"
        assert steps.count("score_matching_vp") == trained
    after = checkpoints(tmp_path)
    assert {path: after[path] for path in before} == before, "no checkpoint is written again"
    assert {row["sampler"] for row in rows_of(tmp_path, arm) if row["sampler"]} == {"ddim", "heun", "exponential"}
    assert {row["sampler"] for row in rows_of(tmp_path, first) if row["sampler"]} == {"ratio_path"}


def test_the_arm_may_come_first_and_another_seed_has_its_own_denoiser(tmp_path, steps):
    arm, path = tiny.job(tmp_path, arm_tree(tree())), tiny.job(tmp_path, tree())
    assert execute(arm)["status"] == "completed"
    trained = len(steps)
    assert execute(path)["status"] == "completed"
    assert steps.count("score_matching_vp") == trained
    assert execute(tiny.job(tmp_path, tree(), seed=1))["status"] == "completed"
    assert steps.count("score_matching_vp") == 2 * trained


def test_a_denoiser_that_was_half_trained_is_continued(tmp_path, steps, monkeypatch):
    long = {**DENOISER, "method": {**DENOISER["method"], "pairs": 640}}
    whole, dead = (tiny.job(tmp_path / name, tree(method__denoiser=long)) for name in ("whole", "dead"))
    assert execute(whole)["status"] == "completed"
    true = Trainer._save_if_due

    def dying(self, stage, learners):
        if self.position.total_steps == 13:
            self._save(stage, learners)
            raise KeyError("died")
        true(self, stage, learners)

    monkeypatch.setattr(Trainer, "_save_if_due", dying)
    assert execute(dead)["status"] == "failed"
    monkeypatch.setattr(Trainer, "_save_if_due", true)
    steps.clear()
    assert execute(dead)["status"] == "completed"
    assert steps.count("score_matching_vp") == 20 - 13
    name = digests(arm_tree(whole.tree))[1]
    newest = (next(Store(job.location, tiny.COLUMNS).checkpoints(name, 0)) for job in (whole, dead))
    one, other = (from_bytes(data)[0] for _, data in newest)
    assert all(torch.equal(one[key], other[key]) for key in one)


ASKING = {
    "two paths": ({"method__num_steps": 4}, {"method__num_steps": 5}),
    "a path and the field itself": ({"method__num_steps": 4}, None),
    "one field, judged twice": (None, {"evaluation__n": 300}),
}


@pytest.mark.parametrize("changes", ASKING.values(), ids=ASKING)
def test_trials_that_need_a_denoiser_at_once_train_it_once(changes, tmp_path):
    """Two trials of one process each, started together, before the driver has trained anything."""
    fields = changes[0] is None
    trees = [arm_tree(tree(**(change or {}))) if fields or change is None else tree(**change) for change in changes]
    context = multiprocessing.get_context("fork")
    start = context.Barrier(2)
    trials = [context.Process(target=_trial, args=(tmp_path, start, n, whole)) for n, whole in enumerate(trees)]
    for trial in trials:
        trial.start()
    for trial in trials:
        trial.join(120)
        assert trial.exitcode == 0
    assert sorted(int((tmp_path / f"steps-{n}").read_text()) for n in range(2)) == [0, 2 * 2]


def _trial(folder, start, number, whole):
    counted, true = [], Trainer._step

    def slow(self, *arguments):
        counted.append(self.method.kind)
        time.sleep(0.2)
        return true(self, *arguments)

    Trainer._step = slow
    start.wait(60)
    fields = execute(tiny.job(folder / "store", whole))
    assert fields["status"] == "completed", fields
    (folder / f"steps-{number}").write_text(str(counted.count("score_matching_vp")))


class Meeting(Workers):
    """Threads that share a trial; `gather` is where they meet."""

    def __init__(self, rank, meetings, size=2):
        self.rank, self.size, self._meetings = rank, size, meetings

    def gather(self, x, n):
        barrier, seen = self._meetings
        if self.rank == 0:
            seen.append(float(x))
        barrier.wait(30)
        value = torch.tensor(seen[-1:] + [0.0] * (self.size - 1))
        barrier.wait(30)
        return value


class Study(Reporter):
    """A trial's view of the study in a folder."""

    def __init__(self, location, workers=None):
        super().__init__(workers)
        self.location = str(location)


@pytest.mark.parametrize("fails", [False, True])
def test_workers_that_share_a_trial_wait_for_another_one_together(fails, tmp_path, monkeypatch):
    """They meet meanwhile, so that no collective operation lasts as long as the other trial's training."""
    monkeypatch.setenv("SB_CACHE", str(tmp_path))
    monkeypatch.setattr("sbbridge.study.denoiser.MEET_S", 0.05)
    seen, entered = [], []
    meetings = (threading.Barrier(2), seen)

    def work(rank):
        with contextlib.suppress(KeyError), one_at_a_time(Study("here", Meeting(rank, meetings)), "name", 0):
            entered.append(rank)
            if fails:
                raise KeyError

    threads = [threading.Thread(target=work, args=(rank,), daemon=True) for rank in range(2)]
    with one_at_a_time(Study("here"), "name", 0):
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(seen) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert entered == []
    for thread in threads:
        thread.join(30)
    assert sorted(entered) == [0, 1]
    assert seen == [*[0.0] * (len(seen) - 1), 1.0]
    with at_once(monkeypatch), one_at_a_time(Study("here"), "name", 0):
        pass  # it is free again


@contextlib.contextmanager
def at_once(monkeypatch):
    """Whoever waits inside is in the wrong."""
    with monkeypatch.context() as patch:
        patch.setattr("sbbridge.study.denoiser._acquired", _without_waiting)
        yield


def _without_waiting(lock):
    lock.acquire(timeout=0)
    return True


def test_another_study_training_or_seed_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SB_CACHE", str(tmp_path))
    with one_at_a_time(Study(tmp_path / "one"), "name", 0), at_once(monkeypatch):
        for folder, name, seed in (("two", "name", 0), ("one", "other", 0), ("one", "name", 1)):
            with one_at_a_time(Study(tmp_path / folder), name, seed):
                pass
        with pytest.raises(filelock.Timeout), one_at_a_time(Study(tmp_path / "one"), "name", 0):
            pass


def preset(**fields):
    return Preset(help="", base={}, trials=1, seeds=1, **({"space": (), "factors": ()} | fields))


def test_a_study_knows_every_denoiser_beforehand():
    base = tree()
    plain = preset(space=(Factor("network.kind", "network", ("table", "ratio_mlp")),),
                   factors=(Factor("method.num_steps", "NFE", (4, 5)),), arms=(Arm("denoiser", {}, denoiser=True),))
    assert design.denoiser_trees(space(base, *plain.space), plain) == [arm_tree(base)]
    beta = Factor("reference.last_beta", "noise", (0.02, 0.03))
    flow = Arm("flow", {"method.denoiser.method": {"kind": "flow_matching"}, "method.grid": "trailing_uniform"})
    many = preset(space=(beta,), factors=(replace(beta, values=(0.03, 0.04)),), arms=(flow,))
    found = design.denoiser_trees(space(base, *many.space), many)
    assert [(t["method"]["kind"], t["reference"]["last_beta"]) for t in found] == [
        ("score_matching_vp", 0.02), ("score_matching_vp", 0.03), ("score_matching_vp", 0.04), ("flow_matching", 0.02),
    ]  # fmt: skip
    assert all(config.dump(config.parse(TrialConfig, t)) == t for t in found)
    assert design.denoiser_trees(space(config.dump(TrialConfig())), preset()) == []


# -- what a trial leaves


def test_a_trial_tells_its_path_its_size_and_its_choice(tmp_path):
    job = tiny.job(tmp_path, tree(evaluation__curve=1, method__select="reported"))
    fields = execute(job)
    assert fields["status"] == "completed", fields
    assert fields["network_parameters"] == 2 * 4
    rows = rows_of(tmp_path, job)
    named = {row["metric"]: row["value"] for row in rows if row["split"] is None}
    assert named["path_scalars"] == 8
    told = [row for row in rows if row["metric"] == "selection_test"]
    assert len(told) == 3
    assert told[0]["stage"] == START  # by which the report's table of controls knows the original
    assert not [row for row in rows if row["metric"] == "selection_validation"]
    chosen = min(row["value"] for row in rows if row["metric"] == "selection_test")
    (test,) = (row for row in rows if row["split"] == "test" and row["metric"] == "covariance_error"
               and row["role"] == "model" and row["stage"] == "evaluation")  # fmt: skip
    assert test["value"] == pytest.approx(chosen)
    assert (test["nfe"], test["num_steps"], test["sampler"], test["grid"]) == (4, 4, "ratio_path", "leading_uniform")
    (file,) = tmp_path.glob(f"artifacts/{job.digest}-0/ratio_path.npz")
    with np.load(file) as arrays:
        change = np.abs(arrays["log_snr"] - arrays["original_log_snr"]).max()
        assert arrays["times"].shape == arrays["original_image"].shape == (4,)
    assert named["path_log_snr_change"] == pytest.approx(change)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_a_trials_path_is_a_scheduler_for_the_denoiser_that_it_was_fitted_for(tmp_path, monkeypatch):
    import diffusers

    from sbbridge.integrations.diffusers import LDSBScheduler

    with isolated(0):
        unet = diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
            norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    unet.save_pretrained(tmp_path / "unet")
    monkeypatch.setenv("SB_DENOISER", str(tmp_path / "unet"))
    fit = {"kind": "teacher", "epochs": 1, "pairs": 64, "order": 2, "generation": {"scheme": "heun", "num_steps": 8}}
    whole = tree(dataset="digits", method__fit=fit, method__denoiser={"kind": "published", "prediction": "noise"})
    write_down_published([whole])
    job = tiny.job(tmp_path, whole)
    fields = execute(job)
    assert fields["status"] == "completed", fields
    (folder,) = tmp_path.glob(f"artifacts/{job.digest}-0")
    scheduler = LDSBScheduler.from_pretrained(folder)
    with np.load(folder / "ratio_path.npz") as arrays:
        for name in ("times", "image", "noise", "momentum"):
            assert np.array_equal(getattr(scheduler.path, name).numpy(), arrays[name])
    scheduler.require_denoiser(tmp_path / "unet")
    assert whole["method"]["denoiser"]["sha256"].startswith(scheduler.config["denoiser_digest"])
    pipeline = diffusers.DDPMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(2, num_inference_steps=4, output_type="np").images.shape == (2, 8, 8, 1)


def test_settings_of_eta_share_a_fit_and_differ_in_their_samples(tmp_path, steps):
    found = {}
    for eta in (0.0, 1.0):
        job = tiny.job(tmp_path, tree(evaluation__eta=eta, method__fit={"kind": "ipf_exact", "images": 128}))
        assert execute(job)["status"] == "completed"
        rows = [row for row in rows_of(tmp_path, job) if row["split"] == "test" and row["sampler"] == "ratio_path"]
        found[eta] = {row["metric"]: row["value"] for row in rows}
        found[eta, "steps"] = len(steps)
    assert found[0.0, "steps"] == found[1.0, "steps"] > 0
    assert found[0.0]["covariance_error"] != found[1.0]["covariance_error"]
    assert "teacher_distance" in found[0.0]
    assert "teacher_distance" not in found[1.0]


@pytest.mark.parametrize("family", ["vp", "flow"])
def test_the_exact_denoiser_needs_no_training(family, tmp_path, steps):
    grid = "leading_uniform" if family == "vp" else "trailing_uniform"
    job = tiny.job(tmp_path, tree(method__denoiser={"kind": "exact", "family": family}, method__grid=grid,
                                  method__fit={"kind": "none"}))  # fmt: skip
    fields = execute(job)
    assert fields["status"] == "completed", fields
    assert steps == []
    assert fields["simulation_evaluations"] == fields["optimisation_evaluations"] == 0


def test_a_denoiser_that_cannot_be_had_fails_in_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("SB_DENOISER", raising=False)
    for denoiser, message in (
        ({"kind": "exact"}, "DataError: method.denoiser.kind exact: the law of these data is not known"),
        ({"kind": "published"}, "DataError: method.denoiser.kind published needs SB_DENOISER"),
    ):
        fields = execute(tiny.job(tmp_path, tree(dataset="moons", method__denoiser=denoiser)))
        assert fields["status"] == "failed"
        assert fields["error"].startswith(message)


def test_results_belong_to_the_weights_that_the_user_brings(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"some weights")
    known = hashlib.sha256(b"some weights").hexdigest()
    monkeypatch.setenv("SB_DENOISER", str(weights))
    left_open, said = (
        tree(method__denoiser={"kind": "published", **more}) for more in ({}, {"sha256": "0" * 64})
    )  # fmt: skip
    plain, before = tree(), digests(left_open)
    write_down_published([left_open, said, plain])
    assert (left_open["method"]["denoiser"]["sha256"], said["method"]["denoiser"]["sha256"]) == (known, "0" * 64)
    assert plain == tree()
    assert digests(left_open) != before
    monkeypatch.setenv("SB_DENOISER", str(tmp_path / "nothing.pt"))
    with pytest.raises(DataError, match=r"^SB_DENOISER .*nothing.pt: "):
        write_down_published([tree(method__denoiser={"kind": "published"})])
    monkeypatch.delenv("SB_DENOISER")
    with pytest.raises(DataError, match=r"^method\.denoiser\.kind published needs SB_DENOISER"):
        write_down_published([tree(method__denoiser={"kind": "published"})])


# -- the distance from the teacher


def test_the_distance_from_the_teacher_is_that_of_equal_noise():
    run = trainer(method(FITS["none"]))
    run.train()
    solution, seed = solution_of(run), 6
    made = sample(solution, 300, seed=seed)
    (row,) = Teacher(solution, lambda x: x).distance(made, "ratio_path", seed)
    flow = sample(solution, x1=solution.problem.prior.draw(0, range(N), _stream(seed)), num_steps=NUM_STEPS,
                  sampler="heun", grid="trailing_quadratic").x  # fmt: skip
    wanted = np.sqrt(np.mean((made.x[:N] - flow).numpy() ** 2))
    assert (row["metric"], row["n"]) == ("teacher_distance", N)
    assert row["value"] == pytest.approx(float(wanted), rel=1e-4)
    (clipped,) = Teacher(solution, lambda x: x.clamp(-1, 1)).distance(made, "ratio_path", seed)
    assert 0 < clipped["value"] < row["value"]
    teacher = Teacher(solution, lambda x: x)
    itself = sample(solution, 50, NUM_STEPS, sampler="heun", grid="trailing_quadratic", seed=seed)
    (near,) = teacher.distance(itself, "heun", seed)
    assert (near["value"], near["n"]) == (pytest.approx(0.0, abs=1e-5), 50)
    (other,) = teacher.distance(itself, "heun", seed + 1)
    assert other["value"] > 0.5
    assert list(teacher.distance(itself, "ancestral", seed)) == []


def test_the_teacher_selects_the_nearest_path_on_noise_that_is_not_reported(tmp_path):
    job = tiny.job(tmp_path, tree(method__select="teacher"), seed=3)
    fields = execute(job)
    assert fields["status"] == "completed", fields
    rows = rows_of(tmp_path, job)
    told = [row["value"] for row in rows if row["metric"] == "selection_teacher"]
    assert len(told) == 3
    (reported,) = (row["value"] for row in rows if row["metric"] == "teacher_distance")
    assert reported == pytest.approx(min(told), rel=0.05)  # the same path
    assert abs(reported - min(told)) > 1e-6  # from other noise


def test_the_selector_measures_paths_against_the_flow_of_their_denoiser():
    task = open_task(config.parse(TrialConfig, tree()), None, False, "cpu")  # compares states as they are
    select, near = task.selector(task, 3), []
    run = trainer(method(FITS["teacher"], select="teacher"))
    run.judge = lambda criterion: near.append(select(solution_of(run), criterion)) or near[-1]
    run.train()
    best = selected(run)
    flow = sample(best, N, NUM_STEPS, sampler="heun", grid="trailing_quadratic", seed=6)
    own = sample(best, N, seed=6)
    assert min(near) == pytest.approx(float((own.x - flow.x).square().mean().sqrt()), rel=1e-4)
    assert min(near) < near[0]  # the fit goes nearer to its teacher than the original path


def _stream(seed):
    from sbbridge.rng import Stream

    return Stream(seed, ("sample", "prior"))

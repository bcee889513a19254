"""The studies that the project comes with: their presets, what they would run, and that rivals get equal budgets."""

import json
import os
import signal
import subprocess
import sys
import time
import typing
from pathlib import Path

import pytest
import torch

from sbbridge import config
from sbbridge.data import StandardNormal, TensorData
from sbbridge.methods import MethodConfig, cost
from sbbridge.networks import UNETS
from sbbridge.problems import BridgeProblem
from sbbridge.study import cli, design, driver, space
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.tasks import open_task
from sbbridge.study.trial import TrialConfig
from sbbridge.training import Reporter, Trainer
from studies import asbm_ingredients, asbm_sweep, joint_sweep, ldsb_sweep, method_comparison
from tests.study import tiny, tiny_study

ROOT = Path(__file__).parents[1]
STUDIES = {
    module.STUDY.name: module
    for module in (asbm_sweep, asbm_ingredients, joint_sweep, ldsb_sweep, method_comparison)
}
PRESETS = [(name, preset) for name, module in STUDIES.items() for preset in module.STUDY.presets]
TRAININGS = {
    ("asbm_sweep", "smoke"): (2, (3 + 1) * 2),
    ("asbm_sweep", "default"): (10, (3 * 3 + 1) * 3),
    ("asbm_sweep", "thorough"): (16, (3 * 3 + 3 * 2 + 6 - 1) * 5),  # the grid; cycles, warm start, steps; six arms
    ("asbm_sweep", "paper"): (0, (1 + 2 + 1 + 4) * 3),
    ("asbm_ingredients", "smoke"): (0, 1 + 2 + 1),
    ("asbm_ingredients", "default"): (0, (1 + 20) * 3),
    ("asbm_ingredients", "thorough"): (0, (1 + 20) * 5),
    # the full grid of noise, coupling and path; what does not see the noise, once; the search's best at some NFE
    ("joint_sweep", "smoke"): (5, 2 * 3 + 2),
    ("joint_sweep", "default"): (44, ((3 * 3 + 2) * 3 + 3) * 3),
    ("joint_sweep", "thorough"): (160, ((3 * 3 + 2) * 3 + 4) * 5),
    ("joint_sweep", "paper"): (60, ((3 + 1) * 3 + 3) * 3),
    ("ldsb_sweep", "smoke"): (4, 2 + 1 + 3 + 2),  # both N; the denoiser; ways of fitting; the search's best
    # KAN grid size x N; ways, node grids, parameterisations, order, times; the denoiser; controls; the search's best
    ("ldsb_sweep", "default"): (32, (4 * 3 + 3 + 3 + 3 + 1 + 1 + 1 + 3 + 3) * 3),
    ("ldsb_sweep", "grid_size"): (0, (4 * 4 * 2 + 1 + 4) * 3),
    ("ldsb_sweep", "ways"): (0, (1 + 2 + 10 * 2 * 2 + 7 + 5) * 3),
    ("ldsb_sweep", "calls"): (0, (1 + 2 + 5 * 5 * 2) * 3),
    ("ldsb_sweep", "further"): (0, (1 + 3 + 4 * 3 * 2 + 7 + 4 * 2 + 6 * 2 * 2 + 4 * 2 * 2 + 4 * 2) * 3),
    ("ldsb_sweep", "null"): (0, (1 + 8 * 2 * 2 + 3 * 2) * 3),
    ("ldsb_sweep", "plane"): (0, (1 + 5 + 1) * 3),  # both families: the original, LDSB, the best fit; DSB
    ("ldsb_sweep", "paper"): (0, 5 * 3 * 3),
    # KAN grid size x N; node grids, boundaries, parameterisations; denoisers; ways x NFE x families, controls,
    # parameterisations; flows on ASBM's pairs; leading grids; the search's best
    ("ldsb_sweep", "thorough"): (
        120, (4 * 4 + 3 + 2 + 3 + 3 + 11 * 4 * 2 + 5 * 2 + 7 + 4 * 2 + 4 * 4 - 1 + 4) * 5
    ),
    # three fields with two paths each, in `thorough` at two numbers of steps
    ("method_comparison", "smoke"): (0, (12 + 6) * 2),
    ("method_comparison", "default"): (0, (1 + 7 + 6) * 3 * 3),
    ("method_comparison", "tables"): (0, (1 + 3 + 12 - 3 + 6) * 3),
    ("method_comparison", "one_step"): (0, (1 + 4 + 5 * 2 + 6) * 3),
    ("method_comparison", "gap"): (0, (1 + 10 + 6) * 3),
    ("method_comparison", "thorough"): (0, 2 * (12 + 6 * 2) * 9 * 5),
}
"""(of the search, of the ablation: configurations, data sets, seeds), counted by hand."""

DOUBLES = {
    ("asbm_sweep", "thorough"): 1,
    # a flow on independent pairs, or on an optimal plan's, never sees the noise that is crossed with it
    ("joint_sweep", "default"): 2 * 2 * 3,
    ("joint_sweep", "thorough"): 2 * 2 * 3,
    ("joint_sweep", "paper"): 2 * 3,
    ("ldsb_sweep", "paper"): 1,  # the centre is "LDSB" at N = 10
    ("ldsb_sweep", "thorough"): 1,  # the boundary "code" is "DDIM, LDSB, N = 10"
    ("method_comparison", "tables"): 3,  # three families' published selves are candidates of their tuning, too
}
"""Where the centre's coupling is asbm, "bridge matching first" is the warm start's cell: asked twice, run once."""


def plan_of(study, preset, dataset=None):
    definition = STUDIES[study].STUDY
    chosen = definition.presets[preset]
    named = dataset or ("all" if chosen.together else chosen.datasets[0])
    return make_plan(definition, Options(named, preset, "/nowhere", "/nowhere", chosen.trials, chosen.seeds, {}))


def trees_of(plan, dataset):
    return list(design.ablation_trees(plan.space(dataset), plan.preset, plan.centre(dataset)))


@pytest.fixture(autouse=True)
def no_ray_here(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(driver.Driver, "_start", lambda self: pytest.fail("Ray was started"))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("study", "preset"), PRESETS)
def test_every_preset_resolves_for_every_data_set_that_it_names(study, preset):
    """Alone and together; no arm is another's double, so that as many runs are made as are announced."""
    chosen = STUDIES[study].STUDY.presets[preset]
    for dataset in dict.fromkeys([*chosen.datasets, *chosen.by_dataset]):
        plan = plan_of(study, preset, dataset)
        assert list(plan.bases) == [dataset]
        trees = trees_of(plan, dataset)
        assert (len(trees) + len(chosen.finalists)) * chosen.seeds == plan.trainings[1]
        asked = len(design.ablation_cells(plan.space(dataset), plan.preset, plan.centre(dataset))) + len(chosen.arms)
        assert asked - len(trees) == DOUBLES.get((study, preset), 0)
        assert {tree["dataset"] for tree in trees} == {dataset}
        for tree in trees:
            assert config.dump(config.parse(TrialConfig, tree)) == tree
    assert plan_of(study, preset).trainings == TRAININGS[study, preset]


@pytest.mark.parametrize("preset", ["default", "thorough", "paper"])
def test_colour_images_get_the_papers_u_nets(preset):
    """By name, as the library has them; digits keep their perceptron."""
    for dataset in ("cifar10", "ffhq_latent"):
        parsed = config.parse(TrialConfig, plan_of("asbm_sweep", preset, dataset).base)
        size = "backward" if preset == "paper" else "forward"
        assert parsed.network == UNETS[f"{dataset}_{size}"]
        assert parsed.method.forward_network == (UNETS[f"{dataset}_forward"] if preset == "paper" else None)
    if preset != "paper":
        assert plan_of("asbm_sweep", preset, "digits").base["network"]["kind"] == "mlp"


@pytest.mark.parametrize(("study", "preset"), PRESETS)
def test_a_dry_run_prints_the_trainings_and_starts_nothing(study, preset, capsys, tmp_path, monkeypatch):
    """Data that are not there are said to be missing, with status 2; the rest is printed all the same."""
    monkeypatch.chdir(tmp_path)
    module = STUDIES[study]
    status = cli.main(module.STUDY, lambda folder: folder, ["--preset", preset, "--dry-run"])
    out, err = capsys.readouterr()
    *_, missing = out.partition("\nmissing:")
    assert (status, missing == " nothing\n") in ((0, True), (2, False))
    assert (status == 2) == (preset == "paper")
    assert err == ""
    search, ablation = TRAININGS[study, preset]
    assert f"trainings: {search} in the search, {ablation} in the ablation" in out
    assert ("1 of denoisers before them" in out) == (study == "ldsb_sweep" and search > 0)  # the search's own
    assert module.STUDY.presets[preset].help in out
    assert list(tmp_path.iterdir()) == []


class TestTheComparison:
    """Methods are compared at equal cost, on equal networks, or not at all."""

    @pytest.mark.parametrize(("preset", "least"), [("smoke", 0.94), ("default", 0.989), ("thorough", 0.998)])
    def test_every_arm_takes_nearly_all_of_its_budget(self, preset, least):
        """Predicted costs over budgets: 0.942 to 0.998, 0.989 to 0.999, and 0.998 to 1 in `thorough`."""
        plan = plan_of("method_comparison", preset)
        for dataset in plan.bases:
            shares = {}
            for tree in trees_of(plan, dataset):
                field, fit, budget = field_of(tree, plan.bases[dataset])
                batch_size = field.training.batch_size
                within = cost.within(field.method, field.training.budget, batch_size)
                shares[config.digest(tree)] = (within.cost(batch_size) + fit) / budget
            assert least <= min(shares.values())
            assert max(shares.values()) <= 1

    @pytest.mark.parametrize("preset", ["smoke", "default", "thorough"])
    def test_arms_differ_in_method_reference_and_budget_alone(self, preset):
        plan = plan_of("method_comparison", preset)
        for dataset in plan.bases:
            fields = [field_of(tree, plan.bases[dataset]) for tree in trees_of(plan, dataset)]
            trees = [config.dump(field) for field, *_ in fields]
            for name in ("network", "evaluation"):
                assert len({config.digest(tree[name]) for tree in trees}) == 1
            without = [{key: value for key, value in tree["training"].items() if key != "budget"} for tree in trees]
            assert all(training == without[0] for training in without)
            budgets = {budget for *_, budget in fields}
            base = plan.bases[dataset]["training"]["budget"]
            assert budgets == ({base, 4 * base} if preset == "thorough" else {base})

    @pytest.mark.parametrize("preset", ["smoke", "thorough"])
    def test_every_method_is_named(self, preset):
        union, *_ = typing.get_args(MethodConfig)
        kinds = {typing.get_args(typing.get_type_hints(method)["kind"])[0] for method in typing.get_args(union)}
        plan = plan_of("method_comparison", preset)
        for dataset in plan.bases:
            assert {tree["method"]["kind"] for tree in trees_of(plan, dataset)} == kinds

    @pytest.mark.parametrize("preset", ["smoke", "default", "thorough"])
    def test_every_arm_can_be_built_on_every_data_set(self, preset):
        """A method that its reference does not allow is found here, not after hours."""
        plan = plan_of("method_comparison", preset)
        for dataset, base in plan.bases.items():
            problems = {}
            for tree in trees_of(plan, dataset):
                if tree["training"]["budget"] != base["training"]["budget"]:
                    continue  # a multiple of the budget changes the length alone
                trial, *_ = field_of(tree, base)
                name = config.digest(tree["reference"])
                problem = problems[name] = problems.get(name) or problem_of(trial)
                trainer = Trainer(trial.method, problem, trial.network, trial.training, 0, Reporter())
                assert trainer.method.sampled in trainer.networks

    def test_families_are_named_for_every_arm(self):
        """Of each family's arms, the tables show the best on validation."""
        for preset in method_comparison.STUDY.presets.values():
            assert all(arm.family for arm in preset.arms)
            assert len({arm.name for arm in preset.arms} | {preset.centre_name}) >= len(preset.arms)
            assert preset.centre_family == "ASBM"


def field_of(tree, base):
    """A run's field, the network evaluations of a path's fit beside it, and the budget of both."""
    field = design.denoiser_tree(tree)
    if field is None:
        trial = config.parse(TrialConfig, tree)
        return trial, 0, trial.training.budget
    path, trial = config.parse(TrialConfig, tree), config.parse(TrialConfig, space.resolve(TrialConfig, field, {}))
    fit, budget = path.method.cost(path.training.batch_size), base["training"]["budget"]
    return trial, fit, budget * max(1, round((trial.training.budget + fit) / budget))


def problem_of(trial):
    """The data set's problem; of images, noise in their shape, for no judge is needed here."""
    shape = {"digits": (1, 8, 8), "photos": (3, 16, 16)}.get(trial.dataset)
    if shape is None:
        return open_task(trial).problem
    scale = trial.reference.terminal_variance**0.5 if trial.reference.kind == "ve" else 1.0
    data = TensorData(torch.randn(64, *shape, generator=torch.Generator().manual_seed(0)))
    return BridgeProblem(data, StandardNormal(shape, scale), trial.reference)


# -- a study of two data sets, from the command line to the report


def run(*arguments):
    command = [sys.executable, "-m", "tests.study.tiny_study", "--preset", "together", *map(str, arguments)]
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def call(*arguments):
    return cli.main(tiny_study.STUDY, tiny_study.write_report, ["--preset", "together", *map(str, arguments)])


class TestTogether:
    """Tests share an output folder; only the first runs it."""

    @pytest.fixture(scope="class")
    @staticmethod
    def study(tmp_path_factory):
        folder = tmp_path_factory.mktemp("together") / "study"
        return folder, run("--launcher", "inline", "--max-concurrent", 1, "--output", folder)

    def test_it_finishes_with_a_report(self, study):
        folder, (status, out, err) = study
        assert status == 0, err
        assert out.strip() == f"report: {folder / 'report.html'}"
        assert "ablation 4/4" in err
        assert "search" not in err
        text = (folder / "report.html").read_text()
        assert all(dataset in text for dataset in ("gaussian64", "mixture2"))

    def test_study_json_has_both_problems(self, study):
        held = json.loads((study[0] / "study.json").read_text())
        assert (held["dataset"], list(held["problems"])) == ("all", ["gaussian64", "mixture2"])
        assert [problem["base"]["network"]["width"] for problem in held["problems"].values()] == [8, 16]
        assert all(problem["centre"]["chosen_by"] == "preset" for problem in held["problems"].values())

    def test_records_have_every_arm_on_both(self, study):
        held = json.loads((study[0] / "study.json").read_text())
        rows = tiny.collected(study[0])
        assert {row["status"] for row in rows} == {"completed"}
        for dataset, problem in held["problems"].items():
            wanted = {problem["centre"]["digest"], problem["design"]["arms"][0]["digest"]}
            assert {row["digest"] for row in rows if row["dataset"] == dataset} == wanted
        metrics = tiny.collected(study[0], "metrics")
        of = {row["digest"]: row["dataset"] for row in rows}
        judged = {(of[row["digest"]], row["metric"]) for row in metrics if row["split"] == "validation"}
        assert judged == {("gaussian64", "covariance_error"), ("mixture2", "cbw_uvp")}

    def test_the_same_command_again_starts_no_ray(self, study, capsys):
        folder, _ = study
        before = tiny.files(folder / "records")
        clock = time.monotonic()
        assert call("--launcher", "inline", "--output", folder) == 0
        assert time.monotonic() - clock < 15
        assert capsys.readouterr().out.strip() == f"report: {folder / 'report.html'}"
        assert tiny.files(folder / "records") == before

    def test_one_data_set_alone_runs_what_it_runs_among_others(self, study, tmp_path, monkeypatch):
        tiny.without_ray(monkeypatch)
        assert call("--dataset", "mixture2", "--output", tmp_path / "study") == 0
        held = json.loads((tmp_path / "study" / "study.json").read_text())
        assert held["dataset"] == "mixture2"
        assert "problems" not in held
        rows = tiny.trials(tmp_path / "study")
        assert {row["digest"] for row in rows} == {
            row["digest"] for row in tiny.trials(study[0]) if row["dataset"] == "mixture2"
        }
        assert len(rows) == 2

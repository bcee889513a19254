"""The ablation of studies of paths, around winners of every kind."""

from dataclasses import replace

import pytest

from sbbridge import config
from sbbridge.study import design
from sbbridge.study.definition import BEST_PATH, Arm
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.space import resolve, value_at
from sbbridge.study.trial import TrialConfig
from studies import ldsb_sweep
from tests.study.paths import Drawing, plan, planned

TEACHER = {"method.fit.kind": "teacher", "method.num_steps": 5}
FLOW = {"method.student": "flow", "method.coupling": "asbm", "method.num_steps": 5}
WINNERS = {
    ("ldsb_sweep", "a KAN"): {**TEACHER, "network.grid_size": 0.5, "method.grid": "trailing_uniform"},
    ("ldsb_sweep", "a table"): {**TEACHER, "network.kind": "table", "method.fit.order": 2},
    ("ldsb_sweep", "an MLP"): {**TEACHER, "network.kind": "ratio_mlp", "method.fit.learn_times": True},
    ("ldsb_sweep", "no fit"): {"method.fit.kind": "none", "method.num_steps": 3},
    ("ldsb_sweep", "moments"): {"method.fit.kind": "ipf_exact", "method.boundary": "code"},
    ("joint_sweep", "a flow"): FLOW,
    ("joint_sweep", "a flow that asks for 20 calls"): {**FLOW, "method.num_steps": 20},
    ("joint_sweep", "a path"): {**FLOW, "method.kind": "ldsb", "method.fit.kind": "teacher", "method.fit.order": 2},
    ("joint_sweep", "a path as published"): {
        **FLOW, "method.kind": "ldsb", "method.fit.kind": "ipf", "network.grid_size": 2,
    },
    ("joint_sweep", "a table's path"): {**FLOW, "method.kind": "ldsb", "method.fit.kind": "ipf_exact"},
    ("joint_sweep", "an SDE bridge"): {
        "method.student": "bridge", "method.coupling": "bridge_matching", "reference.beta_max": 2.0,
        "method.num_steps": 10,
    },
}  # fmt: skip
winners = pytest.mark.parametrize("winner", WINNERS, ids=lambda key: ", ".join(key))
PATH = {"method.kind": "ldsb", "method.fit.kind": "teacher", "network.grid_size": 4}
NOISELESS = ("independent", "minibatch_ot")
"""Couplings at which a flow never sees the noise."""


def centre_of(study, levels, preset="default", **fields):
    space = plan(study, preset).space()
    point = space.complete(levels)
    return design.Centre(space.tree(point), point, **fields)


def around(study, centre, preset="default"):
    """(the plan, {levels: tree})."""
    mine = plan(study, preset)
    cells = design.ablation_cells(mine.space(), mine.preset, centre)
    return mine, [(dict(cell.levels), design.cell_tree(mine.space(), mine.preset, centre, cell)) for cell in cells]


@winners
def test_the_grid_is_full_and_every_factor_stands_alone_somewhere(winner):
    mine, cells = around(winner[0], centre_of(winner[0], WINNERS[winner]))
    factors = {factor.path: factor for factor in mine.preset.factors}
    crossed = [tuple(levels[path] for path in mine.preset.grid) for levels, _ in cells]
    levels = {path: {level for level in column if level is not None}
              for path, column in zip(mine.preset.grid, zip(*crossed, strict=True), strict=True)}  # fmt: skip
    full = 1
    for path, values in levels.items():
        assert len(values) >= (factors[path].neighbours + 1 if factors[path].neighbours else len(factors[path].values))
        full *= len(values)
    assert len({levels for levels in crossed if None not in levels}) == full


@winners
def test_levels_are_those_of_the_configuration(winner):
    _, cells = around(winner[0], centre_of(winner[0], WINNERS[winner]))
    for levels, tree in cells:
        field = tree["method"].get("denoiser", {}).get("method", {}) if winner[0] == "joint_sweep" else {}
        for path, level in levels.items():
            noise = path == "reference.beta_max" and levels.get("method.coupling") in NOISELESS  # crossed all the same
            if path == "path" or level is None or noise:
                continue
            held = value_at(tree, path)
            held = value_at({"method": field}, path) if held is None else held
            if path == "network.grid_size":
                assert held is None or held == -(-level * tree["method"]["num_steps"] // 1)
            else:
                assert held is None or held == level
    assert cells[0][1] == centre_of(winner[0], WINNERS[winner]).tree


@pytest.mark.parametrize("preset", ["default", "thorough"])
@winners
def test_every_cell_and_arm_is_run_alone_by_what_study_json_says(winner, preset):
    """Which is the command line's --alone with these --set."""
    study, mine = winner[0], plan(winner[0], preset)
    centre = centre_of(study, WINNERS[winner], preset, evaluations=10**6,
                       best_path=PATH if study == "joint_sweep" else {},
                       finalists=tuple((n, mine.space().suggest(Drawing(n))) for n in (3, 5)))  # fmt: skip
    written = design.design_json(mine.definition, mine.preset, mine.space(), centre)
    trees = {config.digest(tree) for tree in design.ablation_trees(mine.space(), mine.preset, centre)}
    told = [*written["cells"], *written["arms"]]
    assert {entry["digest"] for entry in told} == trees
    once = {entry["digest"]: entry["set"] for entry in told}
    for digest, wanted in list(once.items())[:: max(1, len(once) // 40)]:
        assert config.digest(planned(study, preset, wanted, alone=True).centre().tree) == digest


def test_a_table_that_wins_stands_beside_a_grid_of_kans():
    winner = centre_of("ldsb_sweep", WINNERS["ldsb_sweep", "a table"])
    _, cells = around("ldsb_sweep", winner)
    sized = [(levels, tree) for levels, tree in cells if levels["network.kind"] == "efficient_kan"]
    assert len({tree["network"]["grid_size"] for _, tree in sized}) >= len(sized) / 3 == 4
    assert all(levels["network.grid_size"] is not None for levels, _ in sized)
    assert {tree["method"]["fit"]["kind"] for _, tree in sized} == {"teacher"}
    assert {tree["method"]["fit"]["order"] for _, tree in sized} == {2}  # all else is the winner's
    assert cells[0][0]["network.grid_size"] is None


def test_an_sde_bridge_that_wins_stands_apart_from_a_grid_of_flows():
    winner = centre_of("joint_sweep", WINNERS["joint_sweep", "an SDE bridge"], best_path=PATH)
    _, (first, *others) = around("joint_sweep", winner)
    assert (first[1], first[0]["path"]) == (winner.tree, None)
    assert len(others) == 3 * 5 * 3
    for levels, tree in others:
        assert levels["path"] in ("none", "as published", BEST_PATH)
        field = tree["method"] if levels["path"] == "none" else tree["method"]["denoiser"]["method"]
        assert (field["student"], field["coupling"]) == ("flow", levels["method.coupling"])
    best = {tree["network"]["grid_size"] for levels, tree in others if levels["path"] == BEST_PATH}
    assert best == {4 * 5}  # its multiple, at the ablation's number of steps


def test_where_noise_does_nothing_cells_share_their_run():
    _, cells = around("joint_sweep", centre_of("joint_sweep", FLOW))
    runs = {}
    for levels, tree in cells:
        runs.setdefault((levels["method.coupling"], levels["path"]), set()).add(config.digest(tree))
    for (coupling, _), digests in runs.items():
        assert len(digests) == (1 if coupling in NOISELESS else 3)


def test_finalists_run_as_they_were_found():
    mine = plan("joint_sweep")
    points = [mine.space().suggest(Drawing(seed)) for seed in (1, 2)]
    centre = centre_of("joint_sweep", FLOW, finalists=((3, points[0]), (5, points[1])))
    back = design.Centre.read(centre.as_json(), mine.space())
    assert back == centre
    trees = list(design.ablation_trees(mine.space(), mine.preset, back))
    assert all(mine.space().tree(point) in trees for point in points)
    arms = design.design_json(mine.definition, mine.preset, mine.space(), back)["arms"]
    assert [(arm["nfe"], arm["name"]) for arm in arms] == [
        (nfe, f"best of the search at NFE {nfe}") for nfe in (3, 5)
    ]  # fmt: skip


def test_fields_come_before_the_paths_that_are_fitted_for_them():
    mine = plan("joint_sweep")
    trees = list(design.ablation_trees(mine.space(), mine.preset, centre_of("joint_sweep", FLOW)))
    needs = [design.denoiser_tree(tree) is not None for tree in trees]
    assert needs == sorted(needs)


def test_an_arm_of_the_preset_stays_where_the_centre_goes():
    mine, arm = plan("ldsb_sweep"), Arm("LDSB", {"method.fit.kind": "ipf"}, of_preset=True)
    winners_ = [centre_of("ldsb_sweep", WINNERS["ldsb_sweep", name]) for name in ("a table", "no fit")]
    one, other = (design.arm_tree(mine.space(), arm, centre) for centre in winners_)
    assert one == other == resolve(TrialConfig, mine.centre().tree, arm.overrides)


def test_a_matched_path_leaves_its_denoiser_what_its_fit_does_not_take():
    mine = plan("ldsb_sweep")
    centre = centre_of("ldsb_sweep", {}, evaluations=1_000_000)
    tree = design.arm_tree(mine.space(), Arm("matched", {"method.fit.kind": "ipf"}, matched=True), centre)
    parsed = config.parse(TrialConfig, tree)
    assert parsed.method.denoiser.training.budget + parsed.method.cost(parsed.training.batch_size) == 1_000_000
    with pytest.raises(config.ConfigurationError, match=r"arm matched: its fit takes .* the whole budget is 1000 "):
        design.arm_tree(mine.space(), Arm("matched", {"method.fit.kind": "ipf"}, matched=True),
                        centre_of("ldsb_sweep", {}, evaluations=1000))  # fmt: skip


def test_lists_that_the_user_sets_are_told_with_every_cell(tmp_path):
    """A list is no key of anything: `--set evaluation.nfe=[3,5]`."""
    said = {"evaluation.nfe": [3, 5], "method.denoiser.network.width": 16}
    chosen = ldsb_sweep.STUDY.presets["default"]
    options = Options("digits", "default", tmp_path, str(tmp_path), chosen.trials, 1, said)
    plan = make_plan(ldsb_sweep.STUDY, options)
    told = design.design_json(ldsb_sweep.STUDY, plan.preset, plan.space(), plan.centre())
    assert all(cell["set"]["evaluation.nfe"] == [3, 5] for cell in told["cells"])
    again = make_plan(ldsb_sweep.STUDY, replace(options, trials=0, alone=True, assignments=told["cells"][0]["set"]))
    assert config.digest(again.centre().tree) == told["cells"][0]["digest"]

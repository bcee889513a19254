"""The searched space and the ablation's design: what a study is made of before anything runs."""

from dataclasses import replace

import pytest

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study import design
from sbbridge.study.definition import DATASETS, Arm, Definition, Factor, Preset
from sbbridge.study.job import execute
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.space import Space, resolve, value_at
from sbbridge.study.tasks import IMAGES
from sbbridge.study.trial import TrialConfig
from studies.asbm_sweep import STUDY
from tests.study import tiny

NOISE = Factor("reference.beta_max", "noise", (0.5, 1.0, 2.0, 4.0, 8.0, 20.0), neighbours=2)
COUPLING = Factor("method.coupling", "coupling", ("independent", "bridge_matching", "asbm"))
CYCLES = Factor("method.cycles", "cycles", (1, 2, 4), only_if=({"method.coupling": ("asbm",)},))


def options(tmp_path, preset="default", dataset="digits", assignments=None, **fields):
    chosen = STUDY.presets[preset]
    return Options(dataset=dataset, preset=preset, output=tmp_path, storage=str(tmp_path), trials=chosen.trials,
                   seeds=chosen.seeds, assignments=assignments or {}, **fields)  # fmt: skip


class TestLevels:
    @pytest.mark.parametrize(
        ("centre", "levels"),
        [
            (2.0, (1.0, 2.0, 4.0)),
            (8.0, (4.0, 8.0, 20.0)),
            (0.5, (0.5, 1.0, 2.0)),  # at an edge the neighbours are on one side
            (20.0, (4.0, 8.0, 20.0)),
            (3.0, (2.0, 3.0, 4.0)),  # a centre between the levels is one of them
            (0.2, (0.2, 0.5, 1.0)),
            (40.0, (8.0, 20.0, 40.0)),
        ],
    )
    def test_neighbours_stand_around_the_centre(self, centre, levels):
        assert NOISE.levels(centre) == levels

    def test_without_neighbours_all_values_are_levels(self):
        assert COUPLING.levels("asbm") == COUPLING.values
        assert COUPLING.levels("minibatch_ot") == (*COUPLING.values, "minibatch_ot")

    def test_four_neighbours(self):
        assert replace(NOISE, neighbours=4).levels(2.0) == (0.5, 1.0, 2.0, 4.0, 8.0)
        assert replace(NOISE, neighbours=4).levels(0.5) == (0.5, 1.0, 2.0, 4.0, 8.0)


def preset(**fields) -> Preset:
    return Preset(help="", base={}, trials=1, seeds=1, space=(), **({"factors": (NOISE, COUPLING, CYCLES)} | fields))


def space(preset_, base):
    return Space(TrialConfig, base, preset_.space)


def cells(preset_, base):
    """Of a preset that is its own centre."""
    return design.ablation_cells(space(preset_, base), preset_, design.Centre(base))


def moved(found):
    """What each cell changes in the centre, which is the first."""
    return [{path: level for path, level in cell.levels.items() if level != found[0].levels[path]} for cell in found]


class TestCells:
    CENTRE = tiny.tree({"reference.beta_max": 4.0, "method.coupling": "asbm", "method.cycles": 2})

    def test_the_centre_stands_once_and_first(self):
        found = cells(preset(), self.CENTRE)
        assert found[0].levels == {"reference.beta_max": 4.0, "method.coupling": "asbm", "method.cycles": 2}
        assert moved(found).count({}) == 1

    def test_without_a_grid_one_factor_at_a_time_is_changed(self):
        none = {"method.cycles": None}  # without simulation they do nothing, which is no level
        assert moved(cells(preset(), self.CENTRE))[1:] == [
            {"reference.beta_max": 2.0}, {"reference.beta_max": 8.0}, {"method.coupling": "independent", **none},
            {"method.coupling": "bridge_matching", **none}, {"method.cycles": 1}, {"method.cycles": 4},
        ]  # fmt: skip

    def test_the_grid_is_full(self):
        found = cells(preset(grid=("reference.beta_max", "method.coupling")), self.CENTRE)
        pairs = {(cell.levels["reference.beta_max"], cell.levels["method.coupling"]) for cell in found}
        assert pairs == {(noise, coupling) for noise in (2.0, 4.0, 8.0) for coupling in COUPLING.values}

    def test_a_grid_of_three_is_full_and_trains_once_what_differs_in_nothing(self):
        chosen = preset(grid=("reference.beta_max", "method.coupling", "method.cycles"))
        found = [tuple(cell.levels.values()) for cell in cells(chosen, self.CENTRE)]
        crossed = [levels for levels in found if None not in levels]
        assert len(crossed) == len(set(crossed)) == 27
        assert set(crossed) == {
            (noise, coupling, n) for noise in (2.0, 4.0, 8.0) for coupling in COUPLING.values for n in CYCLES.values
        }
        trees = list(design.ablation_trees(space(chosen, self.CENTRE), chosen, design.Centre(self.CENTRE)))
        assert len(trees) == 3 * (1 + 1 + 3)  # cycles do something where there is a simulation

    def test_no_cell_stands_twice(self):
        found = cells(preset(grid=("reference.beta_max", "method.coupling")), self.CENTRE)
        assert len(found) == 1 + 2 + 2 + 2 + 4
        assert len({str(sorted(cell.items())) for cell in moved(found)}) == len(found)

    def test_a_factor_that_does_nothing_at_the_centre_is_not_varied(self):
        found = cells(preset(), resolve(TrialConfig, self.CENTRE, {"method.coupling": "independent"}))
        assert [cell.levels["method.cycles"] for cell in found] == [None] * 3 + [None, 2]
        assert found[-1].levels["method.coupling"] == "asbm"

    def test_trees_are_whole_configurations_and_differ(self):
        centre = tiny.tree()
        chosen = preset(
            factors=(NOISE, COUPLING), grid=("reference.beta_max", "method.coupling"),
            arms=(Arm("score matching", tiny.SCORE_MATCHING), Arm("the centre again", {})),
        )  # fmt: skip
        trees = list(design.ablation_trees(space(chosen, centre), chosen, design.Centre(centre)))
        assert trees[0] == centre
        assert len({config.digest(tree) for tree in trees}) == len(trees) == 10
        assert [tree["method"]["kind"] for tree in trees] == ["asbm"] * 9 + ["score_matching_vp"]
        for tree in trees:
            assert config.dump(config.parse(TrialConfig, tree)) == tree


class TestPresets:
    @pytest.mark.parametrize("name", STUDY.presets)
    @pytest.mark.parametrize("dataset", DATASETS)
    def test_every_preset_resolves_on_every_data_set(self, name, dataset, tmp_path):
        if name == "paper" and not (dataset in IMAGES or dataset == "ffhq_latent"):
            with pytest.raises(ConfigurationError, match="a U-Net of 4 resolutions needs images"):
                make_plan(STUDY, options(tmp_path, name, dataset))
            return
        plan = make_plan(STUDY, options(tmp_path, name, dataset))
        assert plan.base["dataset"] == dataset
        for tree in design.ablation_trees(plan.space(), plan.preset, plan.centre()):
            assert config.dump(config.parse(TrialConfig, tree)) == tree

    def test_the_default_is_27_runs_of_the_grid_and_3_of_the_rival(self, tmp_path):
        plan = make_plan(STUDY, options(tmp_path))
        assert plan.trainings == (10, 30)
        winner = plan.space().complete({"reference.beta_max": 8.0, "method.coupling": "independent"})
        centre = design.Centre(plan.space().tree(winner), winner, 10**6)
        assert len(list(design.ablation_trees(plan.space(), plan.preset, centre))) * 3 == 30

    def test_smoke_is_8_runs(self, tmp_path):
        assert make_plan(STUDY, options(tmp_path, "smoke")).trainings == (2, 8)

    def test_at_least_three_seeds_where_claims_are_made(self):
        assert all(STUDY.presets[name].seeds >= 3 for name in STUDY.presets if name != "smoke")

    def test_seeds_of_the_ablation_never_meet_the_searchs(self):
        assert all(preset_.seeds <= design.SEARCH_SEED for preset_ in STUDY.presets.values())

    def test_what_the_user_sets_is_not_varied(self, tmp_path):
        plan = make_plan(STUDY, options(tmp_path, assignments={"reference.beta_max": 3.0}))
        assert plan.base["reference"]["beta_max"] == 3.0
        assert "reference.beta_max" not in {f.path for f in (*plan.preset.space, *plan.preset.factors)}
        assert not plan.preset.grid
        assert plan.trainings == (10, (3 + 1) * 3)

    @pytest.mark.parametrize("name", [name for name in STUDY.presets if name != "paper"])
    def test_the_baseline_is_a_cell(self, name, tmp_path):
        plan = make_plan(STUDY, options(tmp_path, name))
        trees = list(design.ablation_trees(plan.space(), plan.preset, plan.centre()))
        assert resolve(TrialConfig, plan.base, STUDY.baseline) in trees


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (
            Factor("reference.beta_max", "noise β_max", (4.0, 0.05)),
            "noise β_max = 0.05: .*beta_max must be >= beta_min",
        ),
        (Factor("method.cycles", "cycles", (2, 0)), "cycles = 0: .*cycles must be >= 1"),
        (Factor("method.coupling", "coupling", ("asbm", "magic")), "coupling = magic: .*'independent'"),
        (Factor("method.cycle", "cycles", (2,)), "cycles = 2: method.cycle: unknown key .allowed: .*cycles"),
    ],
)
@pytest.mark.parametrize("place", ["space", "factors"])
def test_an_impossible_value_is_found_before_anything_runs(factor, words, place):
    chosen = replace(preset(factors=()), **{place: (COUPLING, factor)})
    with pytest.raises(ConfigurationError, match=words) as caught:
        design.check_space(space(chosen, tiny.tree()), chosen.factors)
    assert "\n" not in str(caught.value)


def test_a_level_that_cannot_keep_the_budget_is_found_before_anything_runs(tmp_path):
    """One cycle takes 5120 network evaluations at least; eight cannot be had for 8000."""
    base = {**tiny.TRAINING, **tiny.ASBM, "training.budget": 8000}
    cycles = Factor("method.cycles", "cycles", (1, 8))
    chosen = Preset(help="", base=base, trials=0, seeds=1, space=(), factors=(cycles,), centre="preset")
    given = Options(dataset="gaussian64", preset="only", output=tmp_path, storage=str(tmp_path), trials=0, seeds=1,
                    assignments={})  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"training\.budget = 8000"):
        make_plan(Definition("ingredients", "?", {"only": chosen}), given)


def test_factors_of_the_evaluation_are_no_configuration():
    chosen = replace(preset(factors=()), space=(Factor("nfe", "NFE", (1,)), Factor("sampler", "sampler", ("heun",))))
    design.check_space(space(chosen, tiny.tree()), chosen.factors)


class TestArms:
    ARM = Arm("rival", tiny.SCORE_MATCHING, matched=True, family="score matching", table="rivals")

    def tree(self, arm, evaluations=None, **centre):
        stands = tiny.tree(centre)
        return design.arm_tree(space(preset(), stands), arm, design.Centre(stands, evaluations=evaluations))

    def test_a_budget_is_matched_where_the_centres_is_known(self):
        plain = resolve(TrialConfig, tiny.tree(), tiny.SCORE_MATCHING)
        assert self.tree(self.ARM, 10**6) == resolve(TrialConfig, plain, {"training.budget": 10**6})
        assert self.tree(self.ARM) == plain
        assert self.tree(replace(self.ARM, matched=False), 10**6) == plain

    def test_a_budget_that_the_centre_was_given_is_known_before_it_is_trained(self):
        assert self.tree(self.ARM, **{"training.budget": 70_000})["training"]["budget"] == 70_000

    def test_the_matched_rival_really_takes_the_centres_network_evaluations(self, tmp_path):
        """Both are run: simulation counted, the rival is less than one of its epochs below the centre."""
        centre = execute(tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64"})))
        budget = centre["simulation_evaluations"] + centre["optimisation_evaluations"]
        rival = execute(tiny.job(tmp_path, self.tree(self.ARM, budget, dataset="gaussian64")))
        assert rival["status"] == "completed", rival
        taken = rival["simulation_evaluations"] + rival["optimisation_evaluations"]
        assert 0 <= budget - taken < tiny.SCORE_MATCHING["method.pairs"]
        assert taken > tiny.SCORE_MATCHING["method.pairs"] * tiny.SCORE_MATCHING["method.epochs"]  # its own epochs

    def test_study_json_names_every_arm_by_the_digest_that_its_runs_have(self):
        other = Arm("other", {"method.coupling": "bridge_matching"})
        chosen = preset(factors=(NOISE,), arms=(self.ARM, other), centre_name="mine", centre_family="bridges")
        over, centre = space(chosen, tiny.tree()), design.Centre(tiny.tree(), evaluations=1_000_000)
        written = design.design_json(STUDY, chosen, over, centre)
        run = list(design.ablation_trees(over, chosen, centre))[-2:]
        assert [arm.pop("digest") for arm in written["arms"]] == [config.digest(tree) for tree in run]
        assert [resolve(TrialConfig, tiny.tree(), arm.pop("set")) for arm in written["arms"]] == run
        assert written["arms"] == [
            {"name": "rival", "overrides": {**tiny.SCORE_MATCHING, "training.budget": 1_000_000},
             "family": "score matching", "table": "rivals"},
            {"name": "other", "overrides": {"method.coupling": "bridge_matching"}, "family": None, "table": None},
        ]  # fmt: skip
        assert (written["centre_name"], written["centre_family"]) == ("mine", "bridges")
        assert "centre_table" not in written

    def test_study_json_has_the_factors_levels_the_grid_and_every_cell(self):
        chosen = preset(factors=(NOISE, COUPLING), grid=("reference.beta_max", "method.coupling"))
        over, centre = space(chosen, tiny.tree()), design.Centre(tiny.tree())
        written = design.design_json(STUDY, chosen, over, centre)
        assert written["factors"][0] == {
            "path": "reference.beta_max", "label": "noise", "values": [2.0, 4.0, 8.0], "multiple_of": None,
        }  # fmt: skip
        assert written["grid"] == ["reference.beta_max", "method.coupling"]
        assert written["baseline"] == {"method.coupling": "independent"}
        trees = {config.digest(tree): tree for tree in design.ablation_trees(over, chosen, centre)}
        assert [cell["digest"] for cell in written["cells"]] == list(trees)
        for cell in written["cells"]:
            assert resolve(TrialConfig, tiny.tree(), cell["set"]) == trees[cell["digest"]]
            assert {path: value_at(trees[cell["digest"]], path) for path in cell["levels"]} == cell["levels"]

    def test_before_there_is_a_centre_nothing_depends_on_it(self):
        chosen = preset(factors=(NOISE,), arms=(self.ARM,))
        written = design.design_json(STUDY, chosen, space(chosen, tiny.tree()), None)
        assert "digest" not in written["arms"][0]
        assert written["cells"] == []
        assert written["factors"][0]["values"] == list(NOISE.values)


class TestSeveralDataSets:
    """One study over several data sets: configurations of their own, one design."""

    PRESET = Preset(
        help="", base={**tiny.TRAINING, **tiny.ASBM}, trials=0, seeds=2, space=(), factors=(), centre="preset",
        datasets=("gaussian64", "moons", "mixture2"), together=True, centre_name="ASBM",
        by_dataset={"moons": {"network.width": 16}, "mixture2": {"reference.kind": "brownian"}},
        arms=(Arm("independent", {"method.coupling": "independent"}),),
    )  # fmt: skip

    def plan(self, tmp_path, dataset="all", preset_=PRESET, **assignments):
        given = {path.replace("__", "."): value for path, value in assignments.items()}
        given = Options(dataset=dataset, preset="only", output=tmp_path, storage=str(tmp_path), trials=0, seeds=2,
                        assignments=given)  # fmt: skip
        return make_plan(Definition("several", "?", {"only": preset_}), given)

    def test_every_data_set_has_its_own_configuration_and_all_are_counted(self, tmp_path):
        plan = self.plan(tmp_path)
        assert list(plan.bases) == ["gaussian64", "moons", "mixture2"]
        assert [base["network"]["width"] for base in plan.bases.values()] == [8, 16, 8]
        assert [base["reference"]["kind"] for base in plan.bases.values()] == ["vp", "vp", "brownian"]
        assert plan.base == plan.bases["gaussian64"]
        assert plan.trainings == (0, 2 * 2 * 3)

    def test_one_data_set_alone_has_the_configuration_that_it_has_among_others(self, tmp_path):
        alone = self.plan(tmp_path, "moons")
        assert alone.bases == {"moons": self.plan(tmp_path).bases["moons"]}
        assert alone.trainings == (0, 2 * 2)

    def test_what_the_user_sets_goes_before_a_data_sets_own(self, tmp_path):
        plan = self.plan(tmp_path, network__width=24)
        assert {base["network"]["width"] for base in plan.bases.values()} == {24}

    def test_an_arm_that_cannot_keep_the_budget_is_named_with_the_least(self, tmp_path):
        arm = Arm("greedy", {"method.cycles": 5, "training.budget": 5000})
        words = r"^greedy: training.budget = 5000: asbm .* at least \d+ "
        with pytest.raises(ConfigurationError, match=words) as caught:
            self.plan(tmp_path, preset_=replace(self.PRESET, arms=(arm,)))
        least = int(str(caught.value).split("at least ")[1].split()[0])
        enough = replace(arm, overrides={**arm.overrides, "training.budget": least})
        self.plan(tmp_path, preset_=replace(self.PRESET, arms=(enough,)))
        short = replace(arm, overrides={**arm.overrides, "training.budget": least - 1})
        with pytest.raises(ConfigurationError, match=f"at least {least} "):
            self.plan(tmp_path, preset_=replace(self.PRESET, arms=(short,)))

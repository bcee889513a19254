"""The searched space and the ablation's design: what a study is made of before anything runs."""

import pickle
from dataclasses import replace

import pytest
from sbbridge.study.search_space import SearchSpace

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study import design
from sbbridge.study.definition import DATASETS, Arm, Definition, Factor, Preset
from sbbridge.study.job import execute
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.tasks import IMAGES
from sbbridge.study.trial import TrialConfig
from studies.asbm_sweep import STUDY
from tests.study import tiny

NOISE = Factor("reference.beta_max", "noise", (0.5, 1.0, 2.0, 4.0, 8.0, 20.0), neighbours=2)
COUPLING = Factor("method.coupling", "coupling", ("independent", "bridge_matching", "asbm"))
CYCLES = Factor("method.cycles", "cycles", (1, 2, 4), only_if=("method.coupling", "asbm"))


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


def cells(preset_, centre):
    return design.ablation_cells(preset_, centre)


class TestCells:
    CENTRE = {"reference": {"beta_max": 4.0}, "method": {"coupling": "asbm", "cycles": 2}}  # noqa: RUF012

    def test_the_centre_stands_once_and_first(self):
        found = cells(preset(), self.CENTRE)
        assert found[0] == {}
        assert found.count({}) == 1

    def test_without_a_grid_one_factor_at_a_time_is_changed(self):
        found = cells(preset(), self.CENTRE)
        assert found[1:] == [
            {"reference.beta_max": 2.0}, {"reference.beta_max": 8.0}, {"method.coupling": "independent"},
            {"method.coupling": "bridge_matching"}, {"method.cycles": 1}, {"method.cycles": 4},
        ]  # fmt: skip

    def test_the_grid_is_full(self):
        found = cells(preset(grid=("reference.beta_max", "method.coupling")), self.CENTRE)
        pairs = {(cell.get("reference.beta_max", 4.0), cell.get("method.coupling", "asbm")) for cell in found}
        assert pairs == {(noise, coupling) for noise in (2.0, 4.0, 8.0) for coupling in COUPLING.values}

    def test_no_cell_stands_twice(self):
        found = cells(preset(grid=("reference.beta_max", "method.coupling")), self.CENTRE)
        assert len(found) == 1 + 2 + 2 + 2 + 4
        assert len({str(sorted(cell.items())) for cell in found}) == len(found)

    def test_a_factor_that_does_nothing_at_the_centre_is_not_varied(self):
        centre = {"reference": {"beta_max": 4.0}, "method": {"coupling": "independent", "cycles": 2}}
        assert not any("method.cycles" in cell for cell in cells(preset(), centre))

    def test_trees_are_whole_configurations_and_differ(self):
        centre = tiny.tree()
        chosen = preset(
            factors=(NOISE, COUPLING), grid=("reference.beta_max", "method.coupling"),
            arms=(Arm("score matching", tiny.SCORE_MATCHING), Arm("the centre again", {})),
        )  # fmt: skip
        trees = list(design.ablation_trees(TrialConfig, chosen, centre, None))
        assert trees[0] == centre
        assert len({config.digest(tree) for tree in trees}) == len(trees) == 10
        assert [tree["method"]["kind"] for tree in trees] == ["asbm"] * 9 + ["score_matching_vp"]
        for tree in trees:
            assert config.dump(config.parse(TrialConfig, tree)) == tree


class Suggesting:
    """Optuna's trial, choosing what it is told."""

    number = 7

    def __init__(self, **choices):
        self.choices, self.asked = {name.replace("__", "."): value for name, value in choices.items()}, {}

    def suggest_categorical(self, name, values):
        self.asked[name] = values
        return self.choices[name]


class TestSpace:
    SPACE = design.Space((COUPLING, CYCLES, Factor("nfe", "NFE", (1, 5)), Factor("sampler", "sampler", ("heun",))))

    def test_a_factor_is_asked_for_where_it_matters(self):
        trial = Suggesting(method__coupling="asbm", method__cycles=4, nfe=5, sampler="heun")
        found = self.SPACE(trial)
        assert found == {"choices": trial.choices, "optuna_number": 7}
        assert trial.asked["method.cycles"] == [1, 2, 4]

    def test_and_not_asked_for_elsewhere(self):
        trial = Suggesting(method__coupling="independent", nfe=5, sampler="heun")
        assert "method.cycles" not in self.SPACE(trial)["choices"]
        assert "method.cycles" not in trial.asked

    def test_plain_pickle_carries_it(self):
        """Tune's own checkpoints of a searcher use no cloudpickle."""
        back = pickle.loads(pickle.dumps(self.SPACE))
        assert back == self.SPACE

    def test_the_searched_jobs_pickle_and_carry_their_digests(self, tmp_path):
        template = tiny.job(tmp_path, tiny.tree(), phase="search").as_dict()
        fields = {"jobs": [template], "nfe": 10, "sampler": None, "metric": "frechet_distance"}
        space = pickle.loads(pickle.dumps(SearchSpace(self.SPACE, TrialConfig, tiny.tree(), fields)))
        choices = {"method__coupling": "asbm", "method__cycles": 4}
        one, other = (space(Suggesting(**choices, nfe=nfe, sampler="heun"))["trial"] for nfe in (1, 5))
        assert (one["nfe"], other["nfe"], one["sampler"], one["optuna_number"]) == (1, 5, "heun", 7)
        # NFE and sampler choose among what one training's evaluation has measured
        assert one["jobs"][0]["digest"] == other["jobs"][0]["digest"] == config.digest(tiny.tree({"method.cycles": 4}))
        assert one["jobs"][0]["tree"]["method"]["cycles"] == 4


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
        for cell in design.ablation_cells(plan.preset, plan.base):
            design.resolve(TrialConfig, plan.base, cell)

    def test_the_default_is_27_runs_of_the_grid_and_3_of_the_rival(self, tmp_path):
        plan = make_plan(STUDY, options(tmp_path))
        assert plan.trainings == (10, 30)
        centre = design.resolve(TrialConfig, plan.base, {"reference.beta_max": 8.0, "method.coupling": "independent"})
        assert len(list(design.ablation_trees(TrialConfig, plan.preset, centre, 10**6))) * 3 == 30

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
        assert plan.preset.grid is None
        assert plan.trainings == (10, (3 + 1) * 3)

    @pytest.mark.parametrize("name", [name for name in STUDY.presets if name != "paper"])
    def test_the_baseline_is_a_cell(self, name, tmp_path):
        plan = make_plan(STUDY, options(tmp_path, name))
        trees = list(design.ablation_trees(TrialConfig, plan.preset, plan.base, None))
        assert design.resolve(TrialConfig, plan.base, STUDY.baseline) in trees


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
        design.check_preset(TrialConfig, chosen, tiny.tree())
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
    design.check_preset(TrialConfig, chosen, tiny.tree())


class TestArms:
    ARM = Arm("rival", tiny.SCORE_MATCHING, matched=True, family="score matching", table="rivals")

    def test_a_budget_is_matched_where_the_centres_is_known(self):
        assert design.arm_changes(self.ARM, 1_000_000) == {**tiny.SCORE_MATCHING, "training.budget": 1_000_000}
        assert design.arm_changes(self.ARM, None) == tiny.SCORE_MATCHING
        assert design.arm_changes(replace(self.ARM, matched=False), 10**6) == tiny.SCORE_MATCHING

    def test_the_matched_rival_really_takes_the_centres_network_evaluations(self, tmp_path):
        """Both are run: simulation counted, the rival is less than one of its epochs below the centre."""
        centre = execute(tiny.job(tmp_path, tiny.tree({"dataset": "gaussian64"})))
        budget = centre["simulation_evaluations"] + centre["optimisation_evaluations"]
        changes = design.arm_changes(self.ARM, budget)
        rival = execute(tiny.job(tmp_path, tiny.tree({**changes, "dataset": "gaussian64"}, method={})))
        assert rival["status"] == "completed", rival
        taken = rival["simulation_evaluations"] + rival["optimisation_evaluations"]
        assert 0 <= budget - taken < tiny.SCORE_MATCHING["method.pairs"]
        assert taken > tiny.SCORE_MATCHING["method.pairs"] * tiny.SCORE_MATCHING["method.epochs"]  # its own epochs

    def test_study_json_names_every_arm_by_the_digest_that_its_runs_have(self):
        other = Arm("other", {"method.coupling": "bridge_matching"})
        chosen = preset(factors=(NOISE,), arms=(self.ARM, other), centre_name="mine", centre_family="bridges")
        written = design.design_json(TrialConfig, STUDY, chosen, tiny.tree(), 1_000_000)
        run = [config.digest(tree) for tree in design.ablation_trees(TrialConfig, chosen, tiny.tree(), 1_000_000)]
        assert [arm.pop("digest") for arm in written["arms"]] == run[-2:]
        assert written["arms"] == [
            {"name": "rival", "overrides": {**tiny.SCORE_MATCHING, "training.budget": 1_000_000},
             "family": "score matching", "table": "rivals"},
            {"name": "other", "overrides": {"method.coupling": "bridge_matching"}, "family": None, "table": None},
        ]  # fmt: skip
        assert (written["centre_name"], written["centre_family"]) == ("mine", "bridges")
        assert "centre_table" not in written

    def test_study_json_has_the_factors_levels_and_the_grid(self):
        chosen = preset(factors=(NOISE, COUPLING), grid=("reference.beta_max", "method.coupling"))
        written = design.design_json(TrialConfig, STUDY, chosen, tiny.tree(), None)
        assert written["factors"][0] == {"path": "reference.beta_max", "label": "noise", "values": [2.0, 4.0, 8.0]}
        assert written["grid"] == ["reference.beta_max", "method.coupling"]
        assert written["baseline"] == {"method.coupling": "independent"}

    def test_before_there_is_a_centre_nothing_depends_on_it(self):
        chosen = preset(factors=(NOISE,), arms=(self.ARM,))
        written = design.design_json(TrialConfig, STUDY, chosen, None, None)
        assert "digest" not in written["arms"][0]
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


def test_value_at():
    assert design.value_at({"a": {"b": 1}}, "a.b") == 1
    assert design.value_at({"a": {"b": 1}}, "a.c") is None
    assert design.value_at({"a": 1}, "a.b.c") is None

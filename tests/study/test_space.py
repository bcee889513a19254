"""The searched space: which factor matters when, what a choice of levels makes, and that no two choices are one run."""

import pickle
from dataclasses import replace

import pytest

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study.definition import Factor
from sbbridge.study.feasible import check_feasible
from sbbridge.study.space import Space, differences, resolve, value_at
from sbbridge.study.trial import TrialConfig, digests
from tests.study import tiny
from tests.study.paths import Drawing, plan, planned

COUPLING = Factor("method.coupling", "coupling", ("independent", "bridge_matching", "asbm"))
STUDENT = Factor("method.student", "student", ("flow", "bridge"))
CYCLES = Factor("method.cycles", "cycles", (1, 2, 4), only_if=({"method.coupling": ("asbm",)},))
EPOCHS = Factor(
    "method.corrector_epochs", "epochs", (2, 3),
    only_if=({"method.cycles": (4,)}, {"method.coupling": ("bridge_matching",), "method.student": ("flow",)}),
)  # fmt: skip
SPACE = Space(TrialConfig, tiny.tree(), (COUPLING, STUDENT, CYCLES, EPOCHS))
REAL = [("ldsb_sweep", "smoke"), ("ldsb_sweep", "default"), ("ldsb_sweep", "thorough"), ("joint_sweep", "default")]
real = pytest.mark.parametrize(("study", "preset"), REAL, ids=[" ".join(pair) for pair in REAL])


def test_value_at():
    assert value_at({"a": {"b": 1}}, "a.b") == 1
    assert value_at({"a": {"b": 1}}, "a.c") is None
    assert value_at({"a": 1}, "a.b.c") is None


class TestConditions:
    @pytest.mark.parametrize(
        ("chosen", "asked"),
        [
            ({"method__coupling": "independent", "method__student": "flow"}, {"method.coupling", "method.student"}),
            ({"method__coupling": "asbm", "method__cycles": 2}, {"method.coupling", "method.student", "method.cycles"}),
            ({"method__coupling": "asbm", "method__cycles": 4}, {factor.path for factor in SPACE.factors}),
            # of the conjunction both have to hold
            ({"method__coupling": "bridge_matching", "method__student": "flow"},
             {"method.coupling", "method.student", "method.corrector_epochs"}),
            ({"method__coupling": "bridge_matching", "method__student": "bridge"},
             {"method.coupling", "method.student"}),
        ],
    )  # fmt: skip
    def test_a_factor_is_asked_for_where_one_of_its_conditions_holds(self, chosen, asked):
        trial = Drawing(**chosen)
        found = SPACE.suggest(trial)
        assert set(trial.asked) == set(found) == asked
        assert trial.asked["method.coupling"] == list(COUPLING.values)

    def test_one_that_does_nothing_here_meets_no_condition_though_the_base_has_its_level(self):
        """Cycles are 4 in the base, but nothing is simulated where pairs are independent."""
        space = replace(SPACE, base=tiny.tree({"method.cycles": 4}))
        assert not space.matters(EPOCHS, {"method.coupling": "independent", "method.student": "flow"})
        assert space.matters(EPOCHS, {"method.coupling": "asbm", "method.cycles": 4})

    def test_what_is_not_searched_meets_conditions_as_the_base_has_it(self):
        fixed = Space(TrialConfig, tiny.tree({"method.coupling": "asbm"}), (CYCLES,))
        assert set(fixed.complete({})) == {"method.cycles"}
        assert Space(TrialConfig, tiny.tree({"method.coupling": "independent"}), (CYCLES,)).complete({}) == {}

    def test_complete_takes_the_bases_levels_and_drops_what_does_nothing(self):
        assert SPACE.complete({"method.coupling": "asbm", "method.corrector_epochs": 3}) == {
            "method.coupling": "asbm", "method.student": "bridge", "method.cycles": 1,
        }  # fmt: skip
        assert SPACE.complete({"method.coupling": "independent", "method.cycles": 4}) == {
            "method.coupling": "independent", "method.student": "bridge",
        }  # fmt: skip

    def test_meeting_takes_the_first_condition_that_can_be_had(self):
        point = {"method.coupling": "independent", "method.student": "bridge"}
        assert SPACE.meeting(EPOCHS, point) == {**point, "method.cycles": 4}
        assert SPACE.meeting(CYCLES, point) == {**point, "method.coupling": "asbm"}
        assert SPACE.meeting(COUPLING, point) == point

    def test_meeting_leaves_what_is_held(self):
        point = {"method.coupling": "bridge_matching", "method.student": "bridge"}
        held = SPACE.meeting(EPOCHS, point, held={"method.cycles"})
        assert held == {**point, "method.student": "flow"}
        assert SPACE.meeting(EPOCHS, point, held={"method.cycles", "method.student"}) == point


class TestMultiples:
    GRID_SIZE = "network.grid_size"

    @pytest.mark.parametrize(("ratio", "n", "size"), [(0.5, 3, 2), (0.5, 5, 3), (1, 3, 3), (2, 5, 10), (4, 10, 40)])
    def test_they_are_rounded_up_and_recorded_as_numbers(self, ratio, n, size):
        space = plan("ldsb_sweep").space()
        asked = {"method.fit.kind": "teacher", "network.kind": "efficient_kan", "method.num_steps": n}
        point = space.complete({**asked, self.GRID_SIZE: ratio})
        assert point[self.GRID_SIZE] == ratio
        assert value_at(space.tree(point), self.GRID_SIZE) == space.changes(point)[self.GRID_SIZE] == size

    def test_optuna_knows_the_ratio_by_the_configurations_path(self):
        trial = Drawing(method__fit__kind="teacher", network__kind="kan", network__grid_size=0.5)
        plan("ldsb_sweep").space().suggest(trial)
        assert trial.asked[self.GRID_SIZE] == [0.5, 1, 2, 4]

    def test_the_base_is_the_level_that_it_is_a_multiple_of(self):
        assert plan("ldsb_sweep").space().complete({})[self.GRID_SIZE] == 2  # 20 at N = 10
        other = planned("ldsb_sweep", assignments={"method.num_steps": 5})
        assert other.space().complete({})[self.GRID_SIZE] == 4


class TestWhatALevelBrings:
    def test_a_way_of_fitting_comes_with_its_options(self):
        space = plan("ldsb_sweep").space()
        exact, teacher = (space.tree(space.complete({"method.fit.kind": kind})) for kind in ("ipf_exact", "teacher"))
        assert (exact["network"]["kind"], exact["method"]["fit"]["images"]) == ("table", 6400)
        assert (teacher["network"]["kind"], teacher["method"]["fit"]["pairs"]) == ("efficient_kan", 1024)

    def test_what_the_user_has_set_stays_whatever_a_level_brings(self):
        """Also where a level would bring another kind of network."""
        mine = planned("ldsb_sweep", assignments={"method.fit.pairs": 64})
        assert value_at(mine.space().tree(mine.space().complete({})), "method.fit.pairs") == 64
        kind = planned("ldsb_sweep", assignments={"network.kind": "ratio_mlp"}).space()
        trees = [kind.tree(kind.complete({"method.fit.kind": way})) for way in ("none", "ipf", "ipf_exact", "teacher")]
        assert {tree["network"]["kind"] for tree in trees} == {"ratio_mlp"}

    def test_a_path_that_the_user_wants_is_in_every_trial(self):
        space = planned("joint_sweep", assignments={"method.kind": "ldsb"}).space()
        for seed in range(30):
            assert space.tree(space.suggest(Drawing(seed)))["method"]["kind"] == "ldsb"

    def test_none_of_the_users_settings_of_a_path_moves_a_field(self):
        plain, mine = plan("joint_sweep"), planned("joint_sweep", assignments={"method.prefit_steps": 77})
        assert mine.base == plain.base
        path = mine.space().complete({"method.student": "flow", "method.kind": "ldsb"})
        assert value_at(mine.space().tree(path), "method.prefit_steps") == 77


class TestJudgedAt:
    @pytest.mark.parametrize(
        ("point", "calls"),
        [({"method.kind": "asbm", "method.num_steps": 20}, 20), ({"method.kind": "ldsb", "method.num_steps": 3}, 3),
         ({}, 5)],
    )  # fmt: skip
    def test_where_a_path_may_be_both_are_judged_at_as_many_calls_as_a_path_would_take(self, point, calls):
        assert plan("joint_sweep").space().judged_at(point) == calls

    def test_elsewhere_it_is_the_presets_number_or_the_levels(self):
        assert plan("ldsb_sweep").space().judged_at({"method.num_steps": 3}) == 10
        assert SPACE.judged_at({"nfe": 4}) == 4


def test_plain_pickle_carries_it():
    """Tune's own checkpoints of a searcher use no cloudpickle."""
    for space in (SPACE, plan("joint_sweep").space()):
        _ = space.with_path  # what it has looked up goes with it
        back = pickle.loads(pickle.dumps(space))
        assert back == space
        assert back.tree(back.suggest(Drawing(1))) == space.tree(space.suggest(Drawing(1)))


class TestRealSpaces:
    """Properties of whatever the search may propose."""

    POINTS = 150

    def drawn(self, space):
        points = [space.suggest(Drawing(seed)) for seed in range(self.POINTS)]
        return list({str(point): point for point in points}.values())

    @real
    def test_no_two_proposals_are_one_run_under_different_values(self, study, preset):
        space, seen = plan(study, preset).space(), {}
        for point in self.drawn(space):
            what = (digests(space.tree(point))[0], space.judged_at(point) if study == "joint_sweep" else None)
            assert seen.setdefault(what, point) == point

    @real
    def test_every_proposal_is_whole_can_be_trained_and_is_made_again_by_hand(self, study, preset):
        space = plan(study, preset).space()
        for point in self.drawn(space)[::3]:
            assert space.complete(point) == point
            tree = space.tree(point)
            parsed = config.parse(TrialConfig, tree)
            assert config.dump(parsed) == tree
            check_feasible(parsed, "a proposal")
            assert by_hand(study, preset, space.assignments(tree, point)) == tree

    def test_paths_are_fitted_for_the_very_field_that_is_searched_without_one(self):
        from sbbridge.study.design import denoiser_tree

        space, kinds = plan("joint_sweep").space(), set()
        for point in self.drawn(space):
            if point.get("method.kind") != "ldsb":
                continue
            field = space.tree(space.complete({**point, "method.kind": "asbm"}))
            wanted = resolve(TrialConfig, denoiser_tree(space.tree(point)), {})
            assert digests(wanted)[1] == digests(field)[1]
            kinds.add((point["method.student"], point["method.coupling"]))
        assert len(kinds) > 5


def by_hand(study, preset, assignments):
    """What these `--set` values make of a preset."""
    return planned(study, preset, assignments, alone=True).centre().tree


def test_differences_make_one_configuration_out_of_another():
    one, other = tiny.tree(), tiny.tree(tiny.SCORE_MATCHING, method={})
    assert resolve(TrialConfig, one, differences(TrialConfig, one, other)) == other
    assert differences(TrialConfig, one, one) == {}


def test_levels_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigurationError, match="cycles"):
        SPACE.tree({"method.coupling": "asbm", "method.cycles": 0})

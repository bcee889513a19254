"""What the driver decides: which runs, through which launcher, which centre, and whether all is there. No Ray."""

import json
from dataclasses import replace

import pytest

from sbbridge import config
from sbbridge.study import design, ray_cluster, ray_tune
from sbbridge.study.definition import Arm, Definition, Preset
from sbbridge.study.driver import Driver
from sbbridge.study.folder import OutputError
from sbbridge.study.job import trial_row
from sbbridge.study.plan import Options, make_plan
from sbbridge.study.space import resolve, value_at
from sbbridge.study.trial import TrialConfig, digests
from studies.asbm_sweep import STUDY
from tests.study import tiny

METRIC = "frechet_distance"


def make(tmp_path, preset="default", assignments=None, **fields) -> Driver:
    output = tmp_path / "study"
    output.mkdir(exist_ok=True)
    chosen = STUDY.presets[preset]
    options = Options("digits", preset, output, str(output), chosen.trials, chosen.seeds, assignments or {})
    return Driver(make_plan(STUDY, replace(options, **fields)))


def searched(driver, changes, values, status="completed", number=0):
    """Records a finished search trial with these (value, nfe) on validation."""
    tree = resolve(TrialConfig, driver.plan.base, changes)
    digest, training_digest = digests(tree)
    job = replace(driver._job(tree, design.SEARCH_SEED, "search"), digest=digest, training_digest=training_digest)
    costs = {"simulation_evaluations": 1_000_000, "optimisation_evaluations": 638_400}
    driver.store.add_trial(trial_row(job, {"status": status, "attempt": 1, **costs}, [number], changes))
    entries = [{"metric": METRIC, "value": value, "sampler": "exponential", "nfe": nfe} for value, nfe in values]
    driver.store.finish(training_digest, digest, design.SEARCH_SEED, {"entries": entries})
    return tree


class TestCentre:
    def test_the_best_on_validation_within_the_calls_is_the_centre(self, tmp_path):
        driver = make(tmp_path)
        searched(driver, {"reference.beta_max": 2.0}, [(30.0, 5), (29.0, 10)])
        best = searched(driver, {"reference.beta_max": 8.0}, [(40.0, 5), (20.0, 10)])
        searched(driver, {"reference.beta_max": 20.0}, [(50.0, 10), (1.0, 20)])  # better, with too many calls
        searched(driver, {"reference.beta_max": 1.0}, [(2.0, 10)], status="failed")
        searched(driver, {"reference.beta_max": 0.5}, [(float("nan"), 10)])
        driver._place_centre()
        centre = driver.study["centre"]
        assert centre["config"] == best
        assert centre["digest"] == config.digest(best)
        assert (centre["chosen_by"], centre["evaluations"]) == ("search", 1_638_400)
        # the rival's budget follows it, and study.json says so
        written = json.loads((tmp_path / "study" / "study.json").read_text())
        assert written["centre"] == centre
        (arm,) = written["design"]["arms"]
        assert arm["overrides"]["training.budget"] == 1_638_400
        assert [job.digest for job in driver._ablation_jobs()][-1] == arm["digest"]

    def test_it_is_placed_once(self, tmp_path):
        driver = make(tmp_path)
        first = searched(driver, {"reference.beta_max": 8.0}, [(20.0, 10)])
        driver._place_centre()
        again = make(tmp_path)
        searched(again, {"reference.beta_max": 2.0}, [(10.0, 10)])
        again._place_centre()
        assert again.study["centre"]["config"] == first

    def test_without_a_finished_training_there_is_none(self, tmp_path):
        driver = make(tmp_path)
        searched(driver, {}, [(2.0, 10)], status="failed")
        driver._place_centre()
        assert driver.study["centre"] is None
        assert driver._ablation_jobs() == []
        assert not driver._complete()

    def test_a_preset_may_be_its_own_centre(self, tmp_path):
        driver = make(tmp_path, "smoke")
        driver._place_centre()
        assert driver.study["centre"]["config"] == driver.plan.base


TWO = Preset(
    help="", base={**tiny.TRAINING, **tiny.ASBM}, trials=0, seeds=1, space=(), factors=(), centre="preset",
    arms=(Arm("independent", {"method.coupling": "independent"}),), datasets=("digits", "moons"), together=True,
    by_dataset={"moons": {"network.width": 16}}, centre_name="ASBM", centre_family="bridges",
)  # fmt: skip


def two(tmp_path, dataset="all", preset=TWO, **assignments) -> Driver:
    output = tmp_path / "study"
    output.mkdir(exist_ok=True)
    given = {path.replace("__", "."): value for path, value in assignments.items()}
    options = Options(dataset, "only", output, str(output), preset.trials, preset.seeds, given)
    return Driver(make_plan(Definition("two", "?", {"only": preset}), options))


class TestSeveralDataSets:
    def test_study_json_has_each_ones_problem_and_at_the_top_the_firsts(self, tmp_path):
        driver = two(tmp_path)
        driver._search()
        written = json.loads((tmp_path / "study" / "study.json").read_text())
        assert (written["dataset"], list(written["problems"])) == ("all", ["digits", "moons"])
        for dataset, problem in written["problems"].items():
            base = driver.plan.bases[dataset]
            assert problem["base"] == problem["centre"]["config"] == base
            assert problem["centre"]["digest"] == config.digest(base)
            assert problem["design"]["centre_name"] == "ASBM"
            jobs = {job.digest for job in driver._ablation_jobs() if job.tree["dataset"] == dataset}
            assert {problem["centre"]["digest"], problem["design"]["arms"][0]["digest"]} == jobs
        metrics = {name: problem["primary_metric"] for name, problem in written["problems"].items()}
        assert metrics["digits"] == {"metric": "frechet_distance", "features": "digits-CNN"}
        assert metrics["moons"] == {"metric": "wasserstein2", "features": None}
        for name, value in written["problems"]["digits"].items():
            assert written[name] == value

    def test_a_study_of_one_data_set_has_no_problems(self, tmp_path):
        driver = two(tmp_path, "moons")
        driver._search()
        assert "problems" not in driver.study
        assert driver.study["dataset"] == "moons"
        assert {job.tree["dataset"] for job in driver._ablation_jobs()} == {"moons"}

    def test_without_trials_no_search_is_run_nor_missing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Driver, "_start", lambda self: pytest.fail("Ray was started"))
        driver = two(tmp_path)
        driver._search()
        for job in driver._ablation_jobs():
            assert not driver._complete()
            driver.store.add_trial(trial_row(job, {"status": "completed", "attempt": 1}, []))
        assert driver._complete()

    def test_every_run_is_judged_by_its_own_data_sets_metric(self, tmp_path, monkeypatch):
        seen = {}

        def run_jobs(launch, configs):
            jobs = [(job, config_["metric"]) for config_ in configs for job in config_["jobs"]]
            seen.update({job["tree"]["dataset"]: metric for job, metric in jobs})
            return {(job["phase"], job["digest"], job["seed"]) for job, _ in jobs}

        monkeypatch.setattr(ray_cluster, "start", lambda resources, marker: None)
        monkeypatch.setattr(ray_tune, "run_jobs", run_jobs)
        driver = two(tmp_path)
        driver._search()
        driver._ablation()
        assert seen == {"digits": "frechet_distance", "moons": "wasserstein2"}

    @pytest.mark.parametrize(
        ("assignments", "preset", "words"),
        [
            ({"training__batch_size": 64}, TWO, "digits.training.batch_size is 128 there and 64 here"),
            ({}, replace(TWO, by_dataset={"moons": {"network.width": 24}}),
             "moons.network.width is 16 there and 24 here"),
        ],
    )  # fmt: skip
    def test_another_configuration_is_named_with_its_data_set(self, assignments, preset, words, tmp_path):
        two(tmp_path)
        with pytest.raises(OutputError, match=words):
            two(tmp_path, preset=preset, **assignments)

    def test_another_version_of_the_code_is_named_where_configurations_differ(self, tmp_path):
        path = two(tmp_path).options.output / "study.json"
        held = json.loads(path.read_text())
        path.write_text(json.dumps(held | {"commit": "abc1234", "versions": held["versions"] | {"sbbridge": "0.0.9"}}))
        two(tmp_path)  # the same configuration goes on
        with pytest.raises(OutputError, match=r"64 here \(it was begun with sbbridge's version 0\.0\.9, this is .*; "
                                              r"commit abc1234, this is .*\) \(use --fresh"):  # fmt: skip
            two(tmp_path, training__batch_size=64)

    def test_a_study_begun_without_conditions_in_its_space_goes_on(self, tmp_path):
        path = make(tmp_path).options.output / "study.json"
        held = json.loads(path.read_text())
        older = [{name: entry[name] for name in ("path", "label", "values")} for entry in held["space"]]
        path.write_text(json.dumps(held | {"space": older}))
        make(tmp_path)
        path.write_text(json.dumps(held | {"space": older[:-1]}))
        with pytest.raises(OutputError, match="the searched space differs"):
            make(tmp_path)

    def test_the_winner_of_an_older_study_stays_the_centre_of_all_cells(self, tmp_path):
        """Its levels were not written down, its configuration was."""
        driver = make(tmp_path)
        space, levels = driver.plan.space(), {"reference.beta_max": 4.0, "method.coupling": "independent"}
        tree = space.tree(space.complete(levels))
        written = design.Centre(tree, space.complete(levels), 10**6)
        held = {"config": tree, "digest": config.digest(tree), "evaluations": 10**6, "chosen_by": "search"}
        now = [config.digest(t) for t in design.ablation_trees(space, driver.preset, written)]
        assert [
            config.digest(t)
            for t in design.ablation_trees(space, driver.preset, design.Centre.read(held, space))
        ] == now  # fmt: skip

    def test_one_data_set_does_not_go_on_in_the_folder_of_all(self, tmp_path):
        two(tmp_path)
        with pytest.raises(OutputError, match="holds dataset 'all', not 'moons'"):
            two(tmp_path, "moons")

    def test_failures_are_the_newest_attempts_and_each_is_said_once(self, tmp_path):
        driver = two(tmp_path)
        driver._search()
        jobs = driver._ablation_jobs()
        for job in jobs:
            driver.store.add_trial(trial_row(job, {"status": "failed", "attempt": 1, "error": "OSError: full"}, []))
        assert driver.failures() == ["OSError: full"]
        driver.store.add_trial(trial_row(jobs[0], {"status": "failed", "attempt": 2, "error": "DataError: gone"}, []))
        driver.store.add_trial(trial_row(jobs[1], {"status": "completed", "attempt": 2}, []))
        assert sorted(driver.failures()) == ["DataError: gone", "OSError: full"]
        for job in jobs:
            driver.store.add_trial(trial_row(job, {"status": "completed", "attempt": 3}, []))
        assert driver.failures() == []


def placed(tmp_path, preset="smoke", **fields):
    driver = make(tmp_path, preset, **fields)
    driver._place_centre()
    return driver


class TestJobs:
    def test_every_cell_has_every_seed_once(self, tmp_path):
        jobs = placed(tmp_path)._ablation_jobs()
        assert len({job.key for job in jobs}) == len(jobs) == 8
        assert {job.seed for job in jobs} == {0, 1}
        assert {job.phase for job in jobs} == {"ablation"}
        for job in jobs:
            assert (job.digest, job.training_digest) == digests(job.tree)

    def test_smoke_sends_one_run_through_a_worker_group(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 4)
        jobs = placed(tmp_path)._ablation_jobs()
        assert [(job.launcher, job.num_workers) for job in jobs] == [("train", 2)] + [("inline", 1)] * 7

    def test_on_one_core_its_group_has_one_worker(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 1)
        jobs = placed(tmp_path)._ablation_jobs()
        assert (jobs[0].launcher, jobs[0].num_workers) == ("train", 1)

    @pytest.mark.parametrize(
        ("options", "launcher", "workers"),
        [
            ({}, "inline", 1),
            ({"use_gpu": True}, "train", 1),  # one GPU: a second worker would wait for ever
            ({"num_workers": 4}, "train", 4),
            ({"launcher": "train"}, "train", 1),
            ({"launcher": "inline", "use_gpu": True}, "inline", 1),
        ],
    )
    def test_launchers_and_workers(self, options, launcher, workers, tmp_path):
        jobs = placed(tmp_path, **options)._ablation_jobs()
        assert {(job.launcher, job.num_workers) for job in jobs[1:]} == {(launcher, workers)}

    def test_the_search_starts_at_the_presets_own_configuration(self, tmp_path):
        for preset in ("smoke", "default", "thorough"):
            driver = make(tmp_path / preset if (tmp_path / preset).mkdir() is None else tmp_path, preset)
            (point,) = driver.plan.points
            for factor in driver.preset.space:
                if factor.path in point:
                    assert point[factor.path] in factor.values
                    if factor.path not in ("nfe", "sampler"):
                        assert point[factor.path] == value_at(driver.plan.base, factor.path)
            assert point["nfe"] == driver.preset.centre_nfe


class TestCompleteness:
    def finish(self, driver, jobs, status="completed"):
        for job in jobs:
            driver.store.add_trial(trial_row(job, {"status": status, "attempt": 1}, []))

    def test_it_takes_every_run_and_every_search_trial(self, tmp_path, monkeypatch):
        from sbbridge.study import search

        driver = placed(tmp_path)
        jobs = driver._ablation_jobs()
        monkeypatch.setattr(search, "completed", lambda study: 2)
        self.finish(driver, jobs[:-1])
        assert not driver._complete()
        self.finish(driver, jobs[-1:], "failed")
        assert not driver._complete()
        self.finish(driver, jobs[-1:])
        assert driver._complete()
        monkeypatch.setattr(search, "completed", lambda study: 1)
        assert not driver._complete()

    def test_more_seeds_are_missing_again(self, tmp_path, monkeypatch):
        from sbbridge.study import search

        monkeypatch.setattr(search, "completed", lambda study: 2)
        driver = placed(tmp_path)
        self.finish(driver, driver._ablation_jobs())
        larger = make(tmp_path, "smoke", seeds=3)
        assert not larger._complete()
        left = [job for job in larger._ablation_jobs() if job.key not in larger._completed()]
        assert {job.seed for job in left} == {2}
        assert len(left) == 4
        assert make(tmp_path, "smoke", seeds=1)._complete()

    @pytest.mark.parametrize("uri", [False, True])
    def test_records_that_lie_apart_are_brought_home(self, uri, tmp_path, monkeypatch):
        """Even where nothing was left to run, and where there are no artefacts: every trial has failed."""
        far = tmp_path / "far"
        storage = far.as_uri() if uri else str(far)
        driver = placed(tmp_path, storage=storage)
        self.finish(driver, driver._ablation_jobs(), "failed")
        (tmp_path / "study" / ".ray" / "run").mkdir(parents=True)  # a killed driver's
        for phase in ("_search", "_ablation"):
            monkeypatch.setattr(Driver, phase, lambda self: None)
        assert driver.run() is False
        assert len(list((tmp_path / "study" / "records" / "trials").glob("*.parquet"))) == 8
        assert not (tmp_path / "study" / ".ray").exists()
        assert len(tiny.trials(tmp_path / "study")) == 8


class TestDenoisers:
    """What paths are fitted for is trained before anything asks for it, and measured once."""

    def test_arms_are_the_ablations_and_the_searchs_are_nobodys(self, tmp_path, monkeypatch):
        from studies import ldsb_sweep

        output = tmp_path / "study"
        output.mkdir()
        options = Options("digits", "default", output, str(output), 2, 3, {})
        driver = Driver(make_plan(ldsb_sweep.STUDY, options))
        ran = []
        monkeypatch.setattr(Driver, "_run_jobs", lambda self, jobs, launcher, progress: ran.extend(jobs))
        driver._denoisers()
        (arm,) = ldsb_sweep.denoisers(("DDIM",))
        digest = config.digest(design.arm_tree(driver.plan.space(), arm, driver.plan.centre()))
        assert {job.digest for job in ran} == {digest}
        assert [(job.phase, job.seed) for job in ran] == [
            ("ablation", 0), ("ablation", 1), ("ablation", 2), ("denoiser", design.SEARCH_SEED)
        ]  # fmt: skip
        searched(driver, {"method.num_steps": 5}, [(20.0, 5)])
        driver._place_centre()
        assert digest in {job.digest for job in driver._ablation_jobs()}

    def test_a_study_without_paths_trains_none(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Driver, "_run_jobs", lambda *a: pytest.fail("there is nothing to train"))
        make(tmp_path)._denoisers()

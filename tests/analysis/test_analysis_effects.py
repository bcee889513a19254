"""Effects against closed forms and planted truths; importances and optimism against what was planted in a search."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fabricated_study import COUPLINGS, NOISE, Fabricator, config, digest, evaluation_rows, frechet, study_json
from scipy import stats

from analysis.__main__ import main
from analysis.collect import collect
from analysis.effects import analyse, effects_table, residual_deviation
from analysis.importances import Searched, importances, importances_table
from analysis.linear_model import LinearModel
from analysis.optimism import expected_optimism, optimism_table
from analysis.results import Results, build_results

ROOT = Path(__file__).parents[2]


def crossed(first: int, second: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    codes = np.array([(i, j) for i in range(first) for j in range(second) for _ in range(seeds)])
    return codes, np.tile(np.arange(seeds), first * second)


def test_a_balanced_experiment_is_the_textbook_analysis_of_variance() -> None:
    codes, seeds = crossed(3, 4, 5)
    y = np.random.default_rng(0).normal(size=len(codes)) + codes[:, 0] + seeds
    fit = LinearModel(codes, [3, 4], [(0,), (1,), (0, 1)], seeds).fit(y)
    cells = y.reshape(3, 4, 5)
    rows, columns = cells.mean(axis=(1, 2)), cells.mean(axis=(0, 2))
    between = {
        (0,): 20 * ((rows - y.mean()) ** 2).sum(),
        (1,): 15 * ((columns - y.mean()) ** 2).sum(),
        (0, 1): 5 * ((cells.mean(axis=2) - rows[:, None] - columns + y.mean()) ** 2).sum(),
    }
    block = 12 * ((cells.mean(axis=(0, 1)) - y.mean()) ** 2).sum()
    error = ((y - y.mean()) ** 2).sum() - block - sum(between.values())
    degrees = {(0,): 2, (1,): 3, (0, 1): 6}
    assert fit.model.degrees == 11 * 4
    for term, squares in between.items():
        effects = fit.effects(term)
        f = squares / degrees[term] / (error / 44)
        assert float(effects.f_p_value) == pytest.approx(stats.f.sf(f, degrees[term], 44))
        assert float(effects.share) == pytest.approx(squares / (((y - y.mean()) ** 2).sum() - block))
    effects = fit.effects((0,))
    assert effects.estimate == pytest.approx(rows - y.mean())
    half = stats.t.ppf(0.975, 44) * math.sqrt(error / 44 * (1 - 1 / 3) / 20)
    assert effects.high - effects.estimate == pytest.approx(half)


def test_a_factor_of_two_levels_with_blocks_is_the_paired_t_test() -> None:
    left, right = np.random.default_rng(1).normal(size=(2, 6))
    model = LinearModel(np.repeat([0, 1], 6)[:, None], [2], [(0,)], np.tile(np.arange(6), 2))
    effects = model.fit(np.concatenate([left, right])).effects((0,))
    test = stats.ttest_rel(left, right)
    assert effects.p_values == pytest.approx([test.pvalue, test.pvalue])
    assert float(effects.f_p_value) == pytest.approx(test.pvalue)
    interval = test.confidence_interval(0.95)
    assert (2 * effects.low[0], 2 * effects.high[0]) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_missing_runs_leave_unweighted_means() -> None:
    codes, seeds = crossed(2, 2, 3)
    truth = np.array([[0.0, 1.0], [4.0, 7.0]])
    keep = np.ones(len(codes), dtype=bool)
    keep[[0, 4, 11]] = False
    y = truth[codes[:, 0], codes[:, 1]] + seeds
    fit = LinearModel(codes[keep], [2, 2], [(0,), (1,), (0, 1)], seeds[keep]).fit(y[keep])
    assert fit.effects((0,)).estimate == pytest.approx([-2.5, 2.5])
    assert fit.effects((0, 1)).estimate == pytest.approx([0.5, -0.5, -0.5, 0.5])
    with pytest.raises(ValueError, match="no run"):
        LinearModel(codes[3:], [2, 2], [(0,), (1,), (0, 1)], seeds[3:])


@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_and_nothing_is_called_an_effect_in_one_of_twenty_studies(seeds: int) -> None:
    codes, blocks = crossed(3, 3, seeds)
    generator = np.random.default_rng(seeds)
    studies = 3000
    truth = np.array([0.3, 0.0, -0.3])[codes[:, 0]]
    shared = generator.normal(0, 0.2, size=(seeds, studies))
    y = truth[:, None] + shared[blocks] + generator.normal(0, 0.1, size=(len(codes), studies))
    fit = LinearModel(codes, [3, 3], [(0,), (1,), (0, 1)], blocks).fit(y)
    error = 4 * math.sqrt(0.95 * 0.05 / studies)
    first, second = fit.effects((0,)), fit.effects((1,))
    covered = (first.low <= np.array([0.3, 0.0, -0.3])[:, None]) & (first.high >= np.array([0.3, 0.0, -0.3])[:, None])
    assert abs(covered.mean(axis=1) - 0.95) == pytest.approx(0, abs=error)
    assert ((second.f_p_value < 0.05).mean()) == pytest.approx(0.05, abs=error)
    assert (first.f_p_value < 0.05).all()


def multiplied(tree: dict, seed: int, nfe: int, sampler: str, split: str) -> float:  # type: ignore[type-arg]
    """Noise acts, coupling does not, and only the pair (8, asbm) is special."""
    noise, coupling = tree["reference"]["beta_max"], tree["method"].get("coupling")
    own = np.random.default_rng([seed, int(digest(tree)[:6], 16), len(split)]).normal() * 0.02
    factor = {1.0: 2.0, 4.0: 1.0, 8.0: 0.5}[noise] * (3.0 if (noise, coupling) == (8.0, "asbm") else 1.0)
    return float(10 * factor * (1 + seed) * np.exp(own))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("planted")
    maker = Fabricator(folder)
    for seed in (0, 1, 2):
        for noise in NOISE:
            for coupling in COUPLINGS:
                maker.run(config(noise, coupling), seed, value=multiplied)
        maker.run(config(cycles=2), seed, value=multiplied)
    return build_results(collect(folder))


def test_effects_of_a_study_are_those_that_were_planted(planted: Results) -> None:
    noise, coupling, both, cycles = analyse(planted)
    assert [term.factors[-1] for term in (noise, coupling, cycles)] == [
        "reference.beta_max", "method.coupling", "method.cycles",
    ]  # fmt: skip
    assert (noise.runs, noise.seeds, noise.degrees) == (27, 3, 8 * 2)
    truth = np.log([[2, 2, 2], [1, 1, 1], [0.5, 0.5, 1.5]])
    expected = truth.mean(axis=1) - truth.mean()
    assert [name for (name,) in noise.names] == ["1", "4", "8"]
    assert noise.effects.estimate == pytest.approx(expected, abs=0.02)
    assert float(noise.effects.f_p_value) < 1e-6
    special = dict(zip(both.names, both.effects.estimate.tolist(), strict=True))
    rest = truth - truth.mean(axis=1, keepdims=True) - truth.mean(axis=0) + truth.mean()
    assert special["8", "ASBM"] == pytest.approx(rest[2, 2], abs=0.03)
    assert abs(cycles.effects.estimate).max() < 0.05  # cycles were never part of the formula
    assert residual_deviation(planted, "test", 10)[0] == pytest.approx(0.02, rel=0.5)


def test_the_table_of_effects_says_factors_and_p_values(planted: Results) -> None:
    table = effects_table(planted)
    row = next(row for row in table.rows if (row["term"], row["level"]) == ("noise β_max", "8"))
    truth = np.log([[2, 2, 2], [1, 1, 1], [0.5, 0.5, 1.5]])
    assert row["effect"].mean == pytest.approx(math.exp(truth[2].mean() - truth.mean()), rel=0.02)
    assert row["effect"].low < row["effect"].mean < row["effect"].high
    assert row["p"] < 1e-6
    assert "seeds as blocks" in table.caption


def test_one_seed_has_effects_without_intervals(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for noise in NOISE:
        for coupling in COUPLINGS:
            maker.run(config(noise, coupling), 0)
    table = effects_table(build_results(collect(tmp_path)))
    assert {row["note"] for row in table.rows if "×" in row["term"]} == {"one seed: no interval"}
    assert all(math.isnan(row["effect"].low) for row in table.rows if "×" in row["term"])


def test_a_cell_without_a_run_costs_the_interaction_alone(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for seed in (0, 1, 2):
        for noise in NOISE:
            for coupling in COUPLINGS:
                if (noise, coupling) != (8.0, "asbm"):
                    maker.run(config(noise, coupling), seed)
    table = effects_table(build_results(collect(tmp_path)))
    assert {row["term"] for row in table.rows} == {"noise β_max", "coupling"}
    assert all("no interaction" in row["note"] for row in table.rows)


def searched(count: int) -> list[Searched]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        noise, other = float(generator.choice([1, 2, 4, 8])), str(generator.choice(["a", "b", "c"]))
        found.append(Searched({"noise": noise, "other": other}, math.log(noise) + 0.05 * generator.normal()))
    return found


def test_importances_find_the_parameter_that_matters() -> None:
    found = {(item.evaluator, item.path): item.share for item in importances(searched(40))}
    for evaluator in ("PED-ANOVA", "fANOVA"):
        noise, other = found[evaluator, "noise"], found[evaluator, "other"]
        assert noise.mean > 0.8 > 0.2 > other.mean
        assert noise.low > other.high
        assert noise.mean + other.mean == pytest.approx(1)


def test_few_runs_have_no_bootstrap_and_fewer_no_importance() -> None:
    assert all(math.isnan(item.share.low) for item in importances(searched(19)))
    assert importances(searched(3)) == []
    same = [Searched({"noise": 1.0}, float(value)) for value in range(10)]
    assert importances(same) == []  # nothing varies


def test_the_table_of_importances_says_what_they_mean(results: Results) -> None:
    table = importances_table(results)
    assert {row["evaluator"] for row in table.rows} == {"PED-ANOVA", "fANOVA"}
    assert {row["parameter"] for row in table.rows} <= {"noise β_max", "coupling"}
    assert all(row["meaning"] for row in table.rows)
    assert "not what a parameter does" in table.caption


def test_optimism_is_estimated_where_the_truth_is_known() -> None:
    generator = np.random.default_rng(0)
    means = generator.choice([0.0, 0.3, 1.5], size=(30, 2000))  # many good ones, some bad
    seen = means + generator.normal(0, 0.2, size=means.shape)
    winner = seen.argmin(axis=0)
    true = np.take_along_axis(means - seen, winner[None], axis=0).mean()
    assert expected_optimism(seen, 0.2).mean() == pytest.approx(true, rel=0.2)  # a little low: it sees the winner, too
    clear = np.array([0.0, 5.0, 6.0, 7.0])
    assert float(expected_optimism(clear, 0.1)) == pytest.approx(0, abs=0.05)  # nothing was left to luck
    assert np.isnan(expected_optimism(clear[:3], 0.1))


def test_the_searchs_best_beside_its_own_rerun(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path, study_json(space=[{"path": "reference.beta_max", "label": "noise", "values": NOISE}]))
    lucky = {1.0: 8.0, 4.0: 5.0, 8.0: 9.0}

    def in_search(tree: dict, *_: object) -> float:  # type: ignore[type-arg]
        return lucky[tree["reference"]["beta_max"]]

    def in_ablation(tree: dict, seed: int, *_: object) -> float:  # type: ignore[type-arg]
        return 10.0 * 1.1 ** (seed - 1)

    for noise in NOISE:
        maker.run(config(noise), 99, "search", value=in_search)
    for seed in (0, 1, 2):
        maker.run(config(4.0), seed, value=in_ablation)
    row, *rest = optimism_table(build_results(collect(tmp_path))).rows
    assert (row["search"], row["n"], row["tried"]) == (5.0, 3, 3)
    assert row["optimism"].mean == pytest.approx(2.0)
    logs = np.log(2.0) + np.log(1.1) * np.array([-1, 0, 1])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / math.sqrt(3)
    assert row["optimism"].high == pytest.approx(math.exp(np.log(2.0) + half))
    assert rest == []  # three runs are too few to estimate from


def test_an_estimate_without_repeated_settings_says_why(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for noise in (0.5, 1.0, 4.0, 8.0, 20.0):
        maker.run(config(noise), 0, "search")
    best, estimate = optimism_table(build_results(collect(tmp_path))).rows
    assert best["note"] == "its setting was not run again"
    assert "not known" in estimate["note"]


def test_the_command_and_what_it_loads(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["effects", str(study)]) == 0
    printed = capsys.readouterr().out
    for title in ("Effects of the factors", "Importance of parameters", "Optimism of the search's best"):
        assert title in printed
    assert main(["effects", str(study), "--nfe", "7"]) == 2
    assert "nothing is reported at NFE 7" in capsys.readouterr().err
    code = (
        "import sys\nfrom analysis.__main__ import main\n"
        f"main(['effects', {str(study)!r}, '--out', {str(study / 'effects.md')!r}])\n"
        "print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    (study / "effects.md").unlink()


def test_values_that_are_not_positive_are_analysed_as_they_are(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    for seed in (0, 1, 2):
        for noise in NOISE:
            tree = config(noise)
            maker.write_trials(maker.trial(tree, seed))
            value = {1.0: -1.0, 4.0: 0.0, 8.0: 1.0}[noise] + 0.01 * np.random.default_rng([seed, int(noise)]).normal()
            maker.write_metrics(*evaluation_rows(tree, seed, "ablation", lambda *_, v=value: v))
    table = effects_table(build_results(collect(tmp_path)))
    effects = {row["level"]: row["effect"].mean for row in table.rows if row["term"] == "noise β_max"}
    assert effects == {
        "1": pytest.approx(-1, abs=0.03),
        "4": pytest.approx(0, abs=0.03),
        "8": pytest.approx(1, abs=0.03),
    }
    assert "in units of the metric" in table.caption


def test_frechet_of_the_fabricated_study_depends_on_its_factors(results: Results) -> None:
    """The study that other tests read: its formula has both factors, so both are found."""
    assert frechet(config(1.0), 0, 10, "ddim", "test") > frechet(config(4.0), 0, 10, "ddim", "test")
    found = {term.factors: float(term.effects.f_p_value) for term in analyse(results)}
    assert found["reference.beta_max",] < 1e-4
    assert found["method.coupling",] < 1e-4

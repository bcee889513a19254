"""Two studies side by side: what is said of their configuration, and which scores are said to have changed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_comparison import fabricate_comparison
from fabricated_study import Fabricator, config, digest, frechet, study_json
from scipy import stats

from analysis.__main__ import main
from analysis.collect import collect
from analysis.compare import compare_tables
from analysis.errors import InputError
from analysis.statistics import compare_seeds, holm
from analysis.tables import Table


def study_of(folder: Path, seeds: tuple[int, ...], value: Callable[..., float] = frechet,
             tree: dict[str, Any] | None = None, **changes: Any) -> Path:  # fmt: skip
    """Three settings: the centre, another noise, and flow matching as an arm."""
    centre = tree or config()
    maker = Fabricator(folder, study_json(base=centre, centre={"config": centre, "digest": digest(centre)}, **changes))
    for seed in seeds:
        maker.run(centre, seed, value=value)
        maker.run(config(8.0), seed, value=value)
        maker.run(config(coupling=None, kind="score_matching_vp"), seed, value=value)
    return folder


def shifted(tree: dict[str, Any], seed: int, *rest: Any) -> float:
    """The same numbers, a fifth higher at one noise; small noise of its own, as new code would have."""
    own = np.random.default_rng([seed, 5, *[len(str(item)) for item in rest]]).normal() * 0.005
    return frechet(tree, seed, *rest) * math.exp(own + 0.2 * (tree["reference"]["beta_max"] == 8.0))


def compared(left: Path, right: Path, **options: Any) -> tuple[Table, Table]:
    configuration, changes = compare_tables(collect(left), collect(right), **options)
    return configuration, changes


def test_what_changed_is_found_and_the_rest_is_not(tmp_path: Path) -> None:
    seeds = tuple(range(6))
    left = study_of(tmp_path / "a", seeds)
    right = study_of(tmp_path / "b", seeds, shifted, commit="def5678")
    configuration, changes = compared(left, right)
    assert configuration.rows == [{"path": "commit", "left": "abc1234", "right": "def5678"}]
    assert {row["setting"] for row in changes.rows} == {"noise β_max = 8"}
    assert {row["verdict"] for row in changes.rows} == {"worse"}
    row = next(row for row in changes.rows if (row["metric"], row["nfe"]) == ("FD (digits-CNN)", 10))
    assert row["ratio"].low < math.exp(0.2) < row["ratio"].high
    assert (row["test"], row["n"], row["configuration"]) == ("paired", 6, "the same")
    assert f"{len(changes.rows)} of " in changes.caption


def test_p_values_are_corrected_over_all_that_is_compared(tmp_path: Path) -> None:
    seeds = (0, 1, 2, 3)
    left, right = study_of(tmp_path / "a", seeds), study_of(tmp_path / "b", seeds, shifted)
    _, table = compared(left, right, every=True)
    assert len({(row["setting"], row["metric"], row["nfe"]) for row in table.rows}) == len(table.rows) > 20
    least = min((row for row in table.rows if row["p"] < 1), key=lambda row: row["p"])
    assert (least["setting"], least["metric"]) == ("noise β_max = 8", "FD (digits-CNN)")
    raw = [
        stats.ttest_rel(*(
            [math.log(function(config(8.0), seed, least["nfe"], sampler, "test")) for seed in seeds]
            for function in (shifted, frechet)
        )).pvalue
        for sampler in ("ancestral", "ddim")
    ]  # fmt: skip
    assert any(least["p"] == pytest.approx(len(table.rows) * p) for p in raw)  # either sampler may have been chosen
    identical = [row for row in table.rows if row["metric"] == "straightness"]
    assert all(row["p"] == 1 and row["verdict"] == "cannot be told from none" for row in identical)


def test_without_shared_seeds_it_is_welchs_test(tmp_path: Path) -> None:
    left, right = study_of(tmp_path / "a", (0, 1, 2)), study_of(tmp_path / "b", (3, 4, 5, 6), shifted)
    _, table = compared(left, right, metric="frechet_distance", every=True)
    assert {row["test"] for row in table.rows} == {"Welch"}
    assert {row["metric"] for row in table.rows} == {"FD (digits-CNN)"}


def test_welchs_interval_and_p_value_are_scipys() -> None:
    generator = np.random.default_rng(0)
    left, right = np.exp(generator.normal(size=4)), np.exp(2 * generator.normal(size=7))
    pair = compare_seeds(dict(enumerate(left)), dict(enumerate(right, start=100)))
    test = stats.ttest_ind(np.log(left), np.log(right), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert pair.ratio is not None
    assert (pair.n, pair.method, pair.p_value) == (4, "Welch", pytest.approx(test.pvalue))
    assert np.log([pair.ratio.low, pair.ratio.high]) == pytest.approx([interval.low, interval.high])
    difference = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert (pair.difference.low, pair.difference.high) == (
        pytest.approx(difference.low),
        pytest.approx(difference.high),
    )


def test_welch_does_not_test_what_has_no_spread() -> None:
    assert math.isnan(compare_seeds({0: 1.0}, {1: 2.0, 2: 2.5}).p_value)
    assert compare_seeds({0: 1.0, 1: 1.0}, {2: 1.0, 3: 1.0}).p_value == 1.0
    assert compare_seeds({}, {1: 1.0}).n == 0
    assert holm([math.nan, 0.5]) == [pytest.approx(math.nan, nan_ok=True), 0.5]


def test_another_configuration_under_one_name_is_said(tmp_path: Path) -> None:
    tree = {**config(), "training": {"steps": 4000, "batch_size": 256}}
    left, right = study_of(tmp_path / "a", (0, 1, 2)), study_of(tmp_path / "b", (0, 1, 2), tree=tree)
    configuration, table = compared(left, right, every=True)
    assert {"path": "training.steps", "left": "2000", "right": "4000"} in configuration.rows
    assert not any(row["path"].startswith("centre: training") for row in configuration.rows)
    found = {row["setting"]: row["configuration"] for row in table.rows}
    assert found["centre"] == "differs"
    assert found["score matching VP"] == "the same"


def test_one_seed_compares_without_a_claim(tmp_path: Path) -> None:
    left, right = study_of(tmp_path / "a", (0,)), study_of(tmp_path / "b", (0,), shifted)
    _, table = compared(left, right)
    assert table.rows == []
    assert "One seed: no interval" in table.caption
    _, every = compared(left, right, every=True)
    assert {row["verdict"] for row in every.rows} == {"cannot be tested: too few seeds, or no spread"}


def test_studies_of_several_data_sets_are_compared_by_data_set(comparison: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    fabricate_comparison(other)
    configuration, table = compared(comparison, other, every=True)
    assert configuration.rows == []
    assert {row["dataset"] for row in table.rows} == {"digits", "moons", "gaussian64"}


def test_wrong_input_is_one_line(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fabricator(tmp_path / "begun")
    assert main(["compare", str(study), str(tmp_path / "begun")]) == 2
    assert "have no setting in common" in capsys.readouterr().err
    assert main(["compare", str(study), str(study), "--metric", "frechet"]) == 2
    assert "nearest: frechet_distance" in capsys.readouterr().err
    assert main(["compare", str(study), str(tmp_path)]) == 2
    assert "holds no study.json" in capsys.readouterr().err
    with pytest.raises(InputError, match="no data set in common"):
        problems = json.loads((study / "study.json").read_text())
        entries = {name: problems[name] for name in ("primary_metric", "base", "centre", "design")}
        for name, sets in (("x", ("cifar10", "celeba")), ("y", ("photos", "moons"))):
            Fabricator(tmp_path / name, study_json(problems=dict.fromkeys(sets, entries)))
        compared(tmp_path / "x", tmp_path / "y")


def test_a_study_against_itself_has_not_changed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(study), str(study)]) == 0
    printed = capsys.readouterr().out
    assert "No entry of study.json differs" in printed
    assert "0 of " in printed

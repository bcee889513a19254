"""Tables of LDSB: planted numbers come back, published ones stay apart, chance and failures are counted."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_ldsb import (
    CANDIDATES,
    SEEDS,
    STEPS,
    WAYS,
    LDSBFabricator,
    base_tree,
    changed,
    csv_rows,
    digest,
    distance,
    fabricate_ldsb,
    own_noise,
    path_arrays,
    sampled,
    shared,
    tree_of,
    value,
)
from scipy import stats

from analysis.collect import collect
from analysis.ldsb.parameterisations import network_comparisons
from analysis.ldsb.tables import ldsb_tables
from analysis.ldsb.ways import read_denoisers
from analysis.ldsb.words import ldsb_sentences
from analysis.report import write_report
from analysis.results import Results, build_results
from analysis.statistics import deviation, reduction
from analysis.tables import Table


def tables_of(results: Results) -> dict[str, Table]:
    return {table.key: table for table in ldsb_tables(results)}


def by_way(table: Table) -> dict[str, dict[str, Any]]:
    return {row["way"]: row for row in table.rows}


def built(maker: LDSBFabricator) -> Results:
    return build_results(collect(maker.folder))


def paired(values: list[float], baseline: list[float]) -> tuple[float, float, float]:
    """100 (1 − ratio) with its t interval, by scipy, seed by seed."""
    logs = np.log(np.array(values) / np.array(baseline))
    low, high = stats.t.interval(0.95, len(logs) - 1, logs.mean(), stats.sem(logs))
    return tuple(float(100 * (1 - math.exp(number))) for number in (logs.mean(), high, low))  # type: ignore[return-value]


def scores(family: str, name: str, n: int) -> list[float]:
    return [value(family, name, n, seed, "test") for seed in SEEDS]


def test_a_reduction_is_that_of_the_mean_log_ratio() -> None:
    found = reduction({0: 1.0, 1: 2.5, 5: 9.0}, {0: 2.0, 1: 4.0, 6: 1.0})
    logs = np.log([0.5, 0.625])
    assert found.n == 2 and found.mean == pytest.approx(100 * (1 - math.exp(logs.mean())))
    assert found.low < found.mean < found.high < 100
    alone = reduction({3: 1.0}, {3: 4.0})
    assert (alone.n, alone.mean) == (1, pytest.approx(75)) and math.isnan(alone.low)
    assert reduction({0: 1.0}, {1: 1.0}).n == 0 and reduction({0: -1.0}, {0: 1.0}).n == 0
    spread = deviation([1.0, 2.0, 3.0])
    assert (spread.n, spread.mean, spread.half_width) == (3, 2.0, pytest.approx(1.0))


@pytest.mark.parametrize("family", ["DDIM", "flow"])
@pytest.mark.parametrize("n", STEPS)
def test_reductions_and_intervals_are_those_that_were_planted(ldsb_study: Path, family: str, n: int) -> None:
    rows = {row["way"]: row for row in csv_rows(ldsb_study, f"ldsb_against_{family.lower()}")}
    for name in WAYS:
        row, values = rows[name], scores(family, name, n)
        assert float(row[f"nfe_{n}"]) == pytest.approx(np.mean(values))
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        assert float(row[f"nfe_{n}_high"]) - float(row[f"nfe_{n}"]) == pytest.approx(half)
        assert row[f"nfe_{n}_n"] == row["n"] == "3"
        assert float(row[f"teacher_{n}"]) == pytest.approx(np.mean([distance(name, n, seed) for seed in SEEDS]))
        assert float(row["floor"]) == pytest.approx(0.3)
        quadratic = "quadratic" in name or "times" in name
        for column, against in (("reduction", "original, quadratic" if quadratic else "original"),
                                ("best", "original, quadratic")):  # fmt: skip
            cells = [row[f"{column}_{n}{part}"] for part in ("", "_low", "_high")]
            if name == against:
                assert cells == ["", "", ""]  # nothing is compared with itself
            else:
                expected = paired(values, scores(family, against, n))
                assert [float(cell) for cell in cells] == pytest.approx(expected)
    # The spread of seeds (1, 1.2, 1.4) cancels in pairs.
    low, high = (float(rows["LDSB"][f"reduction_{n}{part}"]) for part in ("_low", "_high"))
    assert 0 < high - low < 10


def test_a_path_is_compared_with_the_original_on_its_own_grid(ldsb_results: Results) -> None:
    denoiser = read_denoisers(ldsb_results)[0]
    ways = {way.label: way for way in denoiser.ways}
    assert list(ways)[:2] == ["original", "original, quadratic"]
    original = denoiser.original(ways["teacher, order 2, times"], 10)
    assert original is not None and original.recorded
    assert original.setting.digest == digest(tree_of("DDIM", "original, quadratic", 10))
    best = denoiser.best_original(10)
    assert best is not None and best.setting.digest == original.setting.digest  # on validation


def test_other_samplers_take_the_grid_that_validation_chose(ldsb_results: Results) -> None:
    rows = by_way(tables_of(ldsb_results)["ldsb_against_ddim"])
    row = rows["other sampler: UniPC"]
    assert row["grid"] == "leading uniform"  # on test the other one looks better
    for n in STEPS:
        values = [sampled("DDIM", "unipc", "leading_uniform", n, seed, "test") for seed in SEEDS]
        assert row[f"nfe_{n}"].mean == pytest.approx(np.mean(values))
        assert row[f"best_{n}"].mean == pytest.approx(paired(values, scores("DDIM", "original, quadratic", n))[0])
        assert f"reduction_{n}" not in row
        far = [distance("unipcleading_uniform", n, seed) for seed in SEEDS]
        assert row[f"teacher_{n}"].mean == pytest.approx(np.mean(far))
    assert rows["other sampler: DDIM"]["grid"] == "trailing quadratic"
    assert "other sampler: Heun" not in rows  # 49 calls are more than any N


def test_published_rows_stand_beside_ldsb_and_enter_nothing(ldsb_results: Results) -> None:
    found = tables_of(ldsb_results)
    labels = [row["way"] for row in found["ldsb_against_ddim"].rows]
    at = labels.index("LDSB")
    assert labels[at + 1 : at + 3] == ["published: CIFAR-10, Tab. 4", "published: CelebA, Tab. 4"]
    assert sum(label.startswith("published") for label in labels) == 2
    row = by_way(found["ldsb_against_ddim"])["published: CIFAR-10, Tab. 4"]
    assert (row["reduction_5"].mean, row["reduction_10"].mean) == (39.34, 48.50)
    assert not {"nfe_5", "best_5", "teacher_5", "floor", "failed"} & set(row) and row["reduction_5"].n == 1
    flow = [row["way"] for row in found["ldsb_against_flow"].rows if row["way"].startswith("published")]
    assert flow == ["published: CIFAR-10, Tab. 5", "published: CelebA-HQ, Tab. 5"]
    own = by_way(found["ldsb_against_ddim"])["LDSB"]
    assert own["reduction_10"].mean == pytest.approx(
        paired(scores("DDIM", "LDSB", 10), scores("DDIM", "original", 10))[0]
    )


def test_a_data_set_of_the_paper_shows_its_own_published_row_alone(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path, dataset="cifar10")
    for name in ("original", "LDSB"):
        maker.way("DDIM", name, 10, 0)
    labels = [row["way"] for row in tables_of(built(maker))["ldsb_against_ddim"].rows]
    assert labels == ["original", "LDSB", "published: CIFAR-10, Tab. 4"]


def test_nothing_is_published_where_the_procedure_was_not_run(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for name in ("original", "teacher, order 2, times"):
        maker.way("DDIM", name, 10, 0)
    table = tables_of(built(maker))["ldsb_against_ddim"]
    assert [row["way"] for row in table.rows] == ["original", "teacher, order 2, times"]
    assert "published" not in table.caption


def test_missing_cells_are_dashes_and_failed_runs_are_counted(ldsb_study: Path, ldsb_results: Results) -> None:
    rows = by_way(tables_of(ldsb_results)["ldsb_against_ddim"])
    assert rows["LDSB, table"]["failed"] == 1 and rows["LDSB"]["failed"] == 0
    text = (ldsb_study / "tables" / "ldsb_against_ddim.md").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| LDSB, MLP |"))
    assert [cell.strip() for cell in line.split("|")[4:8]] == ["–"] * 4  # it was run at N = 10 alone
    published = next(line for line in text.splitlines() if "CIFAR-10, Tab. 4" in line)
    assert "| 39.3 |" in published and "48.5" in published
    network = next(row for row in tables_of(ldsb_results)["ldsb_parameterisations"].rows if row["network"] == "table")
    assert network["failed"] == 1


def test_only_failed_runs(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    maker.way("DDIM", "original", 10, 0)
    maker.write_trials(maker.trial(tree_of("DDIM", "LDSB"), 0, status="failed", error="PathError: too far"))
    row = by_way(tables_of(built(maker))["ldsb_against_ddim"])["LDSB"]
    assert (row["n"], row["failed"], row["nfe_10"].n, row["reduction_10"]) == ("0", 1, 0, None)
    write_report(tmp_path)


def test_seeds_that_differ_between_nfe_are_listed(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for n, seeds in ((5, (0, 1)), (10, SEEDS)):
        for seed in seeds:
            maker.way("DDIM", "original", n, seed)
    row = by_way(tables_of(built(maker))["ldsb_against_ddim"])["original"]
    assert row["n"] == "2, 3"


def test_without_a_run_of_the_original_ddim_on_the_same_grid_stands_in(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for seed in SEEDS:
        maker.denoiser("DDIM", seed)
        maker.way("DDIM", "LDSB", 5, seed)
    table = tables_of(built(maker))["ldsb_against_ddim"]
    row = by_way(table)["LDSB"]
    original = [sampled("DDIM", "ddim", "leading_uniform", 5, seed, "test") for seed in SEEDS]
    assert row["reduction_5"].mean == pytest.approx(paired(scores("DDIM", "LDSB", 5), original)[0])
    quadratic = [sampled("DDIM", "ddim", "trailing_quadratic", 5, seed, "test") for seed in SEEDS]
    assert row["best_5"].mean == pytest.approx(paired(scores("DDIM", "LDSB", 5), quadratic)[0])
    assert "leading uniform at NFE 5, trailing quadratic at NFE 5), DDIM on the same grid" in table.caption


def test_levels_of_factors_are_named_by_what_they_do(tmp_path: Path) -> None:
    factors = [
        {"path": "method.num_steps", "label": "NFE", "values": [5, 10]},
        {"path": "network.grid_size", "label": "KAN grid size", "values": [5, 20]},
        {"path": "network.kind", "label": "parameterisation", "values": ["efficient_kan", "table"]},
    ]
    centre = base_tree()
    maker = LDSBFabricator(tmp_path, design={"factors": factors, "grid": None, "arms": [], "baseline": {}})
    trees = {
        10: [centre, changed(centre, {"network.grid_size": 5}), changed(centre, {"network": {"kind": "table"}})],
        5: [changed(centre, {"method.num_steps": 5})],
    }
    for n, every in trees.items():
        for tree in every:
            maker.way("DDIM", "LDSB", n, 0, tree)
    rows = by_way(tables_of(built(maker))["ldsb_against_ddim"])
    assert [label for label in rows if not label.startswith("published")] == [
        "LDSB, KAN", "LDSB, KAN, KAN grid size 5", "LDSB, table",
    ]  # fmt: skip
    assert {"nfe_5", "nfe_10"} <= set(rows["LDSB, KAN"])  # one row for both N


def test_denoisers_of_one_family_are_told_apart(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for width in (192, 256):
        tree = changed(tree_of("DDIM", "LDSB"), {"method.denoiser.network.width": width})
        maker.way("DDIM", "LDSB", 10, 0, tree)
    assert {denoiser.label for denoiser in read_denoisers(built(maker))} == {"DDIM, width 192", "DDIM, width 256"}
    assert set(tables_of(built(maker))) >= {"ldsb_against_ddim_width_192", "ldsb_against_ddim_width_256"}


def test_parameterisations_with_their_sizes_and_differences(ldsb_results: Results) -> None:
    table = tables_of(ldsb_results)["ldsb_parameterisations"]
    rows = {row["way"]: row for row in table.rows}
    assert [row["way"] for row in table.rows] == ["original", "LDSB", "LDSB, table", "LDSB, MLP"]
    kan = rows["LDSB"]
    assert (kan["network"], kan["parameters"], kan["bytes"], kan["scalars"]) == ("KAN, G = 20", 6800, 27_200, 20)
    assert kan["published"] == "0.057 MB, published" and rows["LDSB, table"]["published"] is None
    assert (rows["LDSB, table"]["parameters"], rows["LDSB, table"]["bytes"]) == (20, 80)
    logs = np.log(np.array(scores("DDIM", "LDSB", 10)) / np.array(scores("DDIM", "LDSB, table", 10)))
    differences = np.array(scores("DDIM", "LDSB", 10)) - np.array(scores("DDIM", "LDSB, table", 10))
    assert kan["difference"].mean == pytest.approx(differences.mean())
    assert kan["difference"].half_width == pytest.approx(stats.t.ppf(0.975, 2) * stats.sem(differences))
    assert kan["ratio"].mean == pytest.approx(math.exp(logs.mean()))
    raw = {
        name: stats.ttest_rel(np.log(scores("DDIM", name, 10)), np.log(scores("DDIM", "LDSB, table", 10))).pvalue
        for name in ("LDSB", "LDSB, MLP")
    }
    smallest, largest = sorted(raw, key=lambda name: raw[name])
    assert rows[smallest]["p"] == pytest.approx(2 * raw[smallest])  # Holm over two
    assert rows[largest]["p"] == pytest.approx(max(raw[largest], 2 * raw[smallest]))
    assert "difference" not in rows["LDSB, table"] and "FID at NFE 5, 10, 20" in table.caption
    assert len(network_comparisons(read_denoisers(ldsb_results))) == 2


def test_controls_say_how_often_chance_helps(ldsb_results: Results) -> None:
    table = tables_of(ldsb_results)["ldsb_controls"]
    rows = {(row["control"], row["scale"]): row for row in table.rows}
    assert list(rows) == [
        ("reverse only", None), ("random paths", 0.1), ("random paths", 0.4), ("LDSB as published", None),
    ]  # fmt: skip
    for scale, ratios in CANDIDATES.items():
        row = rows["random paths", scale]
        assert row["candidates"] == 4
        assert row["improving"].mean == pytest.approx(100 * np.mean([ratio < 1 for ratio in ratios]))
        assert row["best"].mean == pytest.approx(100 * (1 - min(ratios)))
    # reverse 1 is better than the original with seed 0 (0.9), not with 1 (1.1) and 2; forward 1 never
    reverse = rows["reverse only", None]
    assert (reverse["candidates"], reverse["improving"].n) == (2, 3)
    assert reverse["improving"].mean == pytest.approx(100 * np.mean([0.5, 0, 0]))
    assert reverse["best"].mean == pytest.approx(np.mean([10, 0, 0]))
    best_of = rows["random paths", 0.1]
    expected = paired(scores("DDIM", "best of 4 random paths", 10), scores("DDIM", "original", 10))
    assert (best_of["reduction"].mean, best_of["reduction"].low) == pytest.approx(expected[:2])


def test_an_exact_denoiser_is_a_control(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for name in ("original", "LDSB"):
        tree = changed(tree_of("DDIM", name), {"method.denoiser": {"kind": "exact", "family": "vp"}})
        for seed in SEEDS:
            maker.way("DDIM", name, 10, seed, tree)
    found = tables_of(built(maker))
    assert [row["control"] for row in found["ldsb_controls"].rows] == ["exact denoiser"]
    assert found["ldsb_against_exact_ddim"].title.endswith("exact DDIM")
    assert not any(row["way"].startswith("published") for row in found["ldsb_against_exact_ddim"].rows)


def test_paths_are_means_over_seeds_with_their_deviation(ldsb_results: Results) -> None:
    table = tables_of(ldsb_results)["ldsb_paths"]
    names = {column.name for column in table.columns}
    assert {"learned_t", "momentum"} <= names
    assert {row["way"] for row in table.rows} == {"LDSB", "teacher, order 2, times"}
    assert len(table.rows) == 2 * 2 * sum(STEPS)  # denoisers, ways, nodes
    own = [row for row in table.rows if (row["denoiser"], row["nfe"], row["way"]) == ("DDIM", 5, "LDSB")]
    paths = [path_arrays(tree_of("DDIM", "LDSB", 5), seed) for seed in SEEDS]
    for node, row in enumerate(own):
        learned = [path["image"][node] for path in paths]
        assert (row["n"], row["a"].mean) == (3, pytest.approx(np.mean(learned)))
        assert row["a"].half_width == pytest.approx(np.std(learned, ddof=1))
        assert (row["t"], row["original_a"]) == pytest.approx(
            (paths[0]["times"][node], paths[0]["original_image"][node])
        )
        assert "momentum" not in row and "learned_t" not in row
    moved = [row for row in table.rows if row["way"].startswith("teacher") and row["nfe"] == 5][:5]
    assert moved[1]["momentum"].mean == pytest.approx(np.linspace(0.1, 0.5, 4)[1] + 0.1)
    assert "momentum" not in moved[4]
    assert moved[0]["learned_t"].mean == pytest.approx(0.04**1.1)


def test_torn_paths_and_paths_of_other_lengths_are_no_crash(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    for seed in SEEDS:
        maker.way("DDIM", "LDSB", 5, seed)
    place = tmp_path / "artifacts"
    tree = tree_of("DDIM", "LDSB", 5)
    np.savez(place / f"{digest(tree)}-1" / "ratio_path.npz", **path_arrays(tree_of("DDIM", "LDSB", 10), 1))
    (place / f"{digest(tree)}-2" / "ratio_path.npz").write_bytes(b"PK\x03\x04 torn")
    rows = tables_of(built(maker))["ldsb_paths"].rows
    assert [row["n"] for row in rows] == [1] * 5
    write_report(tmp_path)


def test_a_study_without_ldsb_has_none_of_its_tables(results: Results) -> None:
    assert ldsb_tables(results) == [] and ldsb_sentences(results) == []


def test_the_search_never_enters(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    maker.way("DDIM", "original", 10, 0)
    maker.write_trials(maker.trial(tree_of("DDIM", "LDSB"), 0, "search"))
    assert list(by_way(tables_of(built(maker))["ldsb_against_ddim"])) == ["original"]


def test_the_baseline_of_an_arm_is_the_original_of_its_own_table(ldsb_results: Results) -> None:
    by_digest = {setting.digest: setting for setting in ldsb_results.settings}
    for family in ("DDIM", "flow"):
        for n in STEPS:
            own = by_digest[digest(tree_of(family, "LDSB", n))]
            fitted = by_digest[digest(tree_of(family, "teacher, order 2, times", n))]
            for setting, original in ((own, "original"), (fitted, "original, quadratic")):
                baseline = ldsb_results.baseline(setting)
                assert baseline is not None and baseline.digest == digest(tree_of(family, original, n))
                assert baseline.is_baseline and ldsb_results.baseline(baseline) is baseline


def test_sentences_say_what_was_planted(ldsb_results: Results) -> None:
    found = ldsb_sentences(ldsb_results)
    assert len(found) == 5  # two a denoiser, and the networks
    reduction_text = next(text for text in found if "LDSB as published (DDIM denoiser)" in text)
    mean, low, high = paired(scores("DDIM", "LDSB", 10), scores("DDIM", "original", 10))
    assert f"{mean:.3g} [{low:.3g}, {high:.3g}] % at NFE 10" in reduction_text
    best = next(text for text in found if text.startswith("Best way on validation with the DDIM denoiser"))
    assert best.count("“teacher, order 2, times”") == 2 and "(n = 3" in best
    assert "all 8 other ways are worse" in best
    networks = found[-1]
    assert networks.startswith("A KAN against a table of logits") and "“LDSB” at NFE 10 with DDIM is worse" in networks


def test_sentences_claim_nothing_with_one_seed_or_without_a_difference(tmp_path: Path) -> None:
    one = ldsb_sentences(built(fabricate_ldsb(tmp_path / "one", seeds=(0,))))
    assert all("one seed, no interval" in text or "too few seeds" in text for text in one)
    assert not any("worse" in text for text in one)
    maker = LDSBFabricator(tmp_path / "same")
    for seed in SEEDS:
        maker.way("DDIM", "original", 10, seed)
    text = "\n".join(ldsb_sentences(built(maker)))
    assert "no fit is better" in text and "published" not in text


def test_a_reduction_whose_interval_holds_zero_is_said_to_be_none(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(WAYS, "LDSB", (WAYS["LDSB"][0], 1.0, 1.0))
    maker = LDSBFabricator(tmp_path)
    for seed in SEEDS:
        for name in ("original", "LDSB"):
            maker.way("DDIM", name, 10, seed)
    low, high = paired(scores("DDIM", "LDSB", 10), scores("DDIM", "original", 10))[1:]
    assert low < 0 < high and shared(1) != own_noise("LDSB", 10, 1)
    assert any("(not distinguishable from none)" in text for text in ldsb_sentences(built(maker)))

"""Tables by the papers' names: what is printed stands beside what it means the same as, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from fabricated_ldsb import SEEDS, LDSBFabricator, changed, path_arrays, tree_of
from fabricated_study import Fabricator, config, digest, study_json, values_of

from analysis.collect import collect
from analysis.errors import InputError
from analysis.families import group_tables
from analysis.ldsb.paths import headline_ways
from analysis.ldsb.tables import ldsb_tables
from analysis.ldsb.ways import read_denoisers
from analysis.ldsb.words import ldsb_sentences
from analysis.pareto import candidates
from analysis.published import published
from analysis.report import write_report
from analysis.results import build_results
from analysis.summary_answer import recommend
from analysis.table_command import Request, asked_tables
from sbbridge.records import metric_row


def test_published_numbers_of_ldsb_stand_in_columns_of_their_own(ldsb_study: Path) -> None:
    tables = {
        name: asked_tables(collect(ldsb_study), Request(preset=name))[0]
        for name in ("ldsb-2", "ldsb-3", "ldsb-4", "ldsb-5")
    }
    quality = tables["ldsb-4"]
    rows = {row["nfe"]: row for row in quality.rows if row["data"] == "CIFAR-10 (published only)"}
    assert {n: row["published_reduction"] for n, row in rows.items()} == {5: 39.34, 10: 48.50, 20: 36.16}
    ours = [row for row in quality.rows if row.get("ldsb")]
    assert ours
    assert all(row.get("published_ldsb") is None for row in ours)  # digits are in no paper
    assert {row["published"] for row in tables["ldsb-3"].rows} >= {0.057}
    assert "enter no mean" in quality.caption
    assert any(row.get("published_10") == 9.619 for row in tables["ldsb-2"].rows)
    printed = {column.name for column in tables["ldsb-5"].columns if "published" in column.label}
    assert printed == {"published_original", "published_ldsb", "published_reduction"}


def test_published_nodes_stand_beside_those_of_the_same_place(ldsb_study: Path) -> None:
    for preset, table, first in (("ldsb-6", "Tab. 6", 0.001), ("ldsb-7", "Tab. 7", 0.001)):
        (made,) = asked_tables(collect(ldsb_study), Request(preset=preset))
        printed = {(item.nfe, item.t, item.quantity): item.value
                   for item in published("LDSB", table) if (item.data, item.row) == ("CIFAR-10", "LDSB")}  # fmt: skip
        assert made.rows[0]["t"] == pytest.approx(first)  # the paper says 0
        assert len(made.rows) == 5 + 10
        for n in (5, 10):
            rows = [row for row in made.rows if row["nfe"] == n]
            for node, row in enumerate(rows):
                for quantity in "ab":
                    assert row[f"{quantity} CIFAR-10"] == printed[n, 1000 * node // n, quantity]


def test_published_nodes_stand_on_their_own_grid_alone(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    trailing = changed(tree_of("DDIM", "LDSB", 5), {"method.grid": "trailing_uniform"})
    maker.study["design"]["arms"][:] = [{"name": "LDSB, N = 5", "overrides": {"method.grid": "trailing_uniform"},
                                         "digest": digest(trailing)}]  # fmt: skip
    maker = LDSBFabricator(tmp_path, design=maker.study["design"])
    for seed in SEEDS:
        maker.way("DDIM", "LDSB", 5, seed, trailing)
    (made,) = asked_tables(collect(tmp_path), Request(preset="ldsb-6"))
    assert len(made.rows) == 5
    assert all(row["a CIFAR-10"] is None for row in made.rows)


def test_the_paper_stands_beside_its_own_ends_of_the_path_alone(tmp_path: Path) -> None:
    corrected = changed(tree_of("DDIM", "LDSB", 10), {"method.boundary": "corrected"})  # the centre
    maker = LDSBFabricator(tmp_path)
    for seed in SEEDS:
        maker.way("DDIM", "LDSB", 10, seed)
        maker.way("DDIM", "LDSB", 10, seed, corrected)
    (made,) = asked_tables(collect(tmp_path), Request(preset="ldsb-2"))
    found = [row.get("published_10") for row in made.rows if row["network"].startswith("LDSB")]
    assert sorted(found, key=str) == [9.619, None]


def test_a_way_that_was_selected_on_test_is_never_called_best(tmp_path: Path) -> None:
    honest, chosen = tree_of("DDIM", "LDSB", 5), changed(tree_of("DDIM", "LDSB", 5), {"method.select": "reported"})
    arms = [
        {"name": f"DDIM, {name}, N = 5", "overrides": {}, "family": "DDIM", "table": "DDIM, N = 5",
         "digest": digest(one)}
        for name, one in (("LDSB", honest), ("LDSB, selected as published", chosen))
    ]  # fmt: skip
    design = {"factors": [], "grid": None, "arms": arms, "baseline": {"method.fit.kind": "none"}}
    maker = LDSBFabricator(tmp_path, design=design)
    for seed in SEEDS:
        maker.way("DDIM", "LDSB", 5, seed, honest)
        maker.way("DDIM", "teacher, order 2, times", 5, seed, chosen)  # with its scores, which are much better
    results = build_results(collect(tmp_path))
    found = recommend(results)
    assert found is not None and found.setting.digest == digest(honest)
    assert not found.rivals
    assert {one.setting.digest for one in candidates(results)} == {digest(honest)}
    assert not any("selected as published" in text for text in ldsb_sentences(results))
    (denoiser,) = read_denoisers(results)
    assert denoiser.published_way is not None and denoiser.published_way.label == "LDSB"
    assert [way.label for way in headline_ways(denoiser, 5)] == ["LDSB"]
    marked = "LDSB, selected as published (selected on the reported split)"
    tables = {table.key: table for table in ldsb_tables(results)}
    assert marked in [row["way"] for row in tables["ldsb_against_ddim"].rows]
    assert [row["control"] for row in tables["ldsb_controls"].rows] == [
        "selected on the reported split", "LDSB as published"
    ]  # fmt: skip
    assert any("(selected on the reported split)" in str(row["setting"]) for row in group_tables(results)[0].rows)
    write_report(tmp_path)


@pytest.mark.parametrize(
    ("dataset", "family", "presets"),
    [
        ("cifar10", "DDIM", ("ldsb-2", "ldsb-3", "ldsb-4", "ldsb-6")),
        ("celeba_hq", "flow", ("ldsb-3", "ldsb-5", "ldsb-7")),
    ],
)
def test_a_denoiser_that_the_user_brought_is_of_the_family_of_its_path(
    tmp_path: Path, dataset: str, family: str, presets: tuple[str, ...]
) -> None:
    brought = {"dataset": dataset, "method.denoiser": {"kind": "published", "sha256": None, "prediction": None}}
    trees = {name: changed(tree_of("DDIM", name, 5), brought) for name in ("original", "LDSB")}
    centre = trees["LDSB"]
    arm = {"name": "published denoiser, original, N = 5", "overrides": {"method.fit.kind": "none"},
           "family": "published denoiser", "table": "N = 5", "digest": digest(trees["original"])}  # fmt: skip
    maker = LDSBFabricator(
        tmp_path, dataset=dataset, base=centre,
        centre={"config": centre, "digest": digest(centre), "chosen_by": "preset"},
        design={"factors": [], "grid": None, "arms": [arm], "baseline": {"method.fit.kind": "none"}},
    )  # fmt: skip
    for seed in SEEDS:
        for name, tree in trees.items():
            maker.way("DDIM", name, 5, seed, tree)
            own = path_arrays(tree_of(family, name, 5), seed)
            np.savez(tmp_path / "artifacts" / f"{digest(tree)}-{seed}" / "ratio_path.npz", **own)
    (denoiser,) = read_denoisers(build_results(collect(tmp_path)))
    assert (denoiser.family, denoiser.label) == (family, f"published {family}")
    made = {name: asked_tables(collect(tmp_path), Request(preset=name))[0] for name in presets}
    quality, paths = made[presets[-2]], made[presets[-1]]
    (row,) = [row for row in quality.rows if row.get("ldsb")]
    name = "CIFAR-10" if family == "DDIM" else "CelebA-HQ"
    printed = {(item.data, item.row, item.quantity): item.value
               for item in published("LDSB", "Tab. 4" if family == "DDIM" else "Tab. 5") if item.nfe == 5}  # fmt: skip
    assert (row["data"], row["published_ldsb"]) == (name, printed[name, "LDSB", "FID"])
    assert all(row[f"a {name}"] is not None for row in paths.rows)
    against = {table.key: table for table in ldsb_tables(denoiser.results)}[f"ldsb_against_published_{family.lower()}"]
    assert any(str(row["way"]).startswith(f"published: {name}") for row in against.rows)


def test_the_published_paths_are_printed_whole() -> None:
    for table, own in (("Tab. 6", 0.80274), ("Tab. 7", 0.77570)):
        found = published("LDSB", table)
        assert len(found) == 6 * 35
        (value,) = [
            item.value for item in found
            if (item.data, item.row, item.nfe, item.t, item.quantity) == ("CIFAR-10", "LDSB", 5, 200, "a")
        ]  # fmt: skip
        assert value == own


def test_published_rows_beside_asbm_are_never_best_and_only_of_the_same_images(tmp_path: Path) -> None:
    metric = {"metric": "frechet_distance", "features": "inception"}
    base = {**config(), "dataset": "cifar10", "evaluation": {"nfe": [10, 20]}}
    maker = Fabricator(tmp_path, study_json(dataset="cifar10", primary_metric=metric, base=base,
                                            centre={"config": base, "digest": digest(base)}))  # fmt: skip
    for seed in SEEDS:
        maker.write_trials(maker.trial(base, seed))
        place = {"digest": digest(base), "seed": seed, "phase": "ablation", "stage": "evaluation", "attempt": 1}
        maker.write_metrics(*[
            metric_row("frechet_distance", 50.0 + seed + nfe, features="inception", split="test", sampler="heun",
                       grid="trailing_uniform", num_steps=nfe, nfe=nfe, **place)
            for nfe in (10, 20)
        ])  # fmt: skip
    (table,) = asked_tables(collect(tmp_path), Request(preset="asbm-nfe"))
    centre, *rest = table.rows
    assert centre["value_10"].mean == pytest.approx(61)
    assert rest[0]["setting"].startswith("published: DDIM, quadratic grid")
    assert rest[0]["value_10"].mean == 13.36
    assert not table.bold
    assert "not known to this project" in table.caption
    assert "against the training set; ours are against the test split" in table.caption


def test_presets_of_asbm(study: Path) -> None:
    (noise,) = asked_tables(collect(study), Request(preset="asbm-beta-max"))
    assert [row["setting"] for row in noise.rows] == ["noise β_max = 1", "centre", "noise β_max = 8"]
    found = next(row for row in noise.rows if row["setting"] == "centre")
    assert found["nfe_10"].mean == pytest.approx(np.mean(values_of(config(), 10)))
    assert found["straightness"].mean == pytest.approx(0.31)
    with pytest.raises(InputError, match="was not varied"):
        asked_tables(collect(study), Request(preset="asbm-forward-steps"))


def test_a_distilled_run_stands_after_its_teacher(tmp_path: Path) -> None:
    design = {**study_json()["design"],
              "arms": [{"name": "one step", "overrides": {"method.distillation.epochs": 5}}]}  # fmt: skip
    maker = Fabricator(tmp_path, study_json(design=design))
    student = config()
    student["method"] = {**student["method"], "distillation": {"epochs": 5}}
    for seed in SEEDS:
        maker.run(student, seed)
        maker.run(config(), seed)
        maker.run(config(8.0), seed)
    (table,) = asked_tables(collect(tmp_path), Request(preset="asbm-distillation"))
    assert [row["setting"] for row in table.rows] == ["centre", "one step"]
    assert [row["n"] for row in table.rows] == [3, 3]

"""Samples by way of fitting: every family and every N are seen."""

from pathlib import Path

import numpy as np
from fabricated_ldsb import FAMILIES, SEEDS, STEPS, LDSBFabricator, digest, tree_of
from ldsb_checks import built

from analysis.artifacts import Artifacts
from analysis.figures.ldsb_samples import path_sample_panels
from analysis.ldsb.ways import read_denoisers


def test_rows_are_ways_and_columns_are_steps(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    names = ("original", "LDSB", "teacher, order 2, times")
    for family in FAMILIES:
        for n in STEPS:
            for name in names:
                for seed in SEEDS:
                    maker.way(family, name, n, seed)
                place = tmp_path / "artifacts" / f"{digest(tree_of(family, name, n))}-0"
                pictures = np.zeros((64, 8, 8), dtype=np.uint8)
                np.savez(place / "samples.npz", real=pictures, **{f"nfe_{n}": pictures})
    results = built(maker)
    panels = path_sample_panels(read_denoisers(results), Artifacts(results.collected))
    assert [panel.key for panel in panels] == ["ldsb_samples_ddim", "ldsb_samples_flow"]
    for panel in panels:
        assert [strip.label for strip in panel.strips] == ["original", "LDSB", "best way on validation"]
        assert [[label for label, *_ in strip.pictures] for strip in panel.strips] == [
            ["NFE 5", "NFE 10"], ["NFE 5", "NFE 10"],
            ["NFE 5, teacher, order 2, times", "NFE 10, teacher, order 2, times"],
        ]  # fmt: skip


def test_without_pictures_there_is_no_panel(tmp_path: Path) -> None:
    maker = LDSBFabricator(tmp_path)
    maker.way("DDIM", "LDSB", 5, 0)
    results = built(maker)
    assert not path_sample_panels(read_denoisers(results), Artifacts(results.collected))

"""Which sampler stands for a setting: the best on validation, whichever way the metric goes."""

import math

import pandas as pd
import pytest

from analysis.quality import read_scores
from analysis.spent import cost_of, evaluations_of


def rows(metric: str, values: dict[str, float]) -> pd.DataFrame:
    """Each sampler's value on validation; a tenth of it on test."""
    return pd.DataFrame([
        {"metric": metric, "digest": "a", "seed": seed, "sampler": sampler, "grid": "trailing_uniform",
         "split": split, "num_steps": 5, "nfe": 5, "value": value * share}
        for sampler, value in values.items() for seed in (0, 1)
        for split, share in (("validation", 1.0), ("test", 0.1))
    ])  # fmt: skip


@pytest.mark.parametrize(("metric", "best"), [("recall", "ddim"), ("coverage", "ddim"), ("frechet_distance", "heun")])
def test_more_is_better_where_it_is(metric, best):
    scores = read_scores(rows(metric, {"heun": 0.5, "ddim": 0.9}), {("a", 0), ("a", 1)}, [5], [])
    assert scores.by_key["a", 5].sampler == (best, "trailing_uniform")


@pytest.mark.parametrize("metric", ["recall", "frechet_distance"])
@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_the_best(metric, lost):
    scores = read_scores(rows(metric, {"heun": lost, "ddim": 0.9}), {("a", 0), ("a", 1)}, [5], [])
    assert scores.by_key["a", 5].sampler == ("ddim", "trailing_uniform")


def test_a_path_costs_what_its_denoiser_did_too():
    """However many paths share it; studies of before have no such column."""
    run = {"simulation_evaluations": 100, "optimisation_evaluations": 20, "denoiser_evaluations": 3000,
           "peak_memory_bytes": None, "training_seconds": 1.0, "evaluation_seconds": 2.0, "seconds": 9.0}  # fmt: skip
    field = {name: value for name, value in run.items() if name != "denoiser_evaluations"}
    assert cost_of([run, run]).evaluations == evaluations_of(run) == 3120
    assert cost_of([field]).evaluations == evaluations_of(field) == 120

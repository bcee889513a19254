"""Figures of training, from records as the trainer leaves them."""

from pathlib import Path

from fabricated_study import Fabricator, config, digest, evaluation_rows, frechet

from analysis.collect import collect
from analysis.figures.training import learning_panel
from analysis.results import build_results
from analysis.stages import stage_order
from sbbridge.records import metric_row


def test_learning_curves_have_the_steps_of_the_whole_training(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    tree = config()
    shared = {"digest": digest(tree), "seed": 0, "phase": "ablation", "attempt": 1000}
    maker.write_trials(maker.trial(tree, 0))
    stages = ["prefit", *(f"iteration {turn}: {half}" for turn in range(1, 11) for half in ("backward", "forward"))]
    maker.write_metrics(*evaluation_rows(tree, 0, "ablation", frechet), *[
        metric_row("loss", float(place), stage=stage, step=100 * place, **shared)
        for place, stage in enumerate(stages, 1)
    ])  # fmt: skip
    figure = learning_panel(build_results(collect(tmp_path))).figure
    assert figure is not None
    assert [text.text for text in figure.layout.annotations] == ["prefit", "backward", "forward"]
    prefit, backward, forward = figure.data
    assert (prefit.mode, list(prefit.x), backward.mode) == ("markers", [100], "lines")
    assert list(backward.x) == [100 * place for place in range(2, 22, 2)] and list(backward.y) == list(range(2, 22, 2))
    assert list(forward.x) == [100 * place for place in range(3, 22, 2)]
    assert sorted(sorted(stages), key=stage_order) == stages

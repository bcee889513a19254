"""Which fields with paths of their own a report shows in full: all of a few, of a grid of fields the best."""

from analysis.ldsb.ways import Denoiser, read_denoisers, validation_rank
from analysis.results import Results

_BEST = 2
_OF_FIELDS = ("reference.", "method.coupling")


def shown_denoisers(results: Results) -> list[Denoiser]:
    """Every denoiser that paths were fitted for; where the design varies the field, those of the best paths.

    The best are those of validation.
    """
    found = read_denoisers(results)
    if not results.design.cells or not any(path.startswith(_OF_FIELDS) for path in results.design.grid):
        return found
    best = sorted(range(len(found)), key=lambda index: _rank(found[index]))[:_BEST]
    return [found[index] for index in sorted(best)]


def left_out(results: Results, shown: int) -> str:
    """What is not shown, in a sentence; nothing where all are."""
    count = len(read_denoisers(results))
    if count == shown:
        return ""
    return (
        f" Paths were fitted for {count} fields: the {shown} of the best paths on validation are shown, the others "
        f"stand in the tables of the ablation."
    )


def _rank(denoiser: Denoiser) -> tuple[int, float, float]:
    scores = [score for score in denoiser.scores if score is not None and score.test]
    return min((validation_rank(score) for score in scores), default=(0, float("inf"), float("inf")))

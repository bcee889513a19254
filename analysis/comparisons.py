"""Which setting is compared with which, and the p values of a table corrected together."""

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.design import Setting
from analysis.results import Results
from analysis.statistics import PairedDifference, holm, paired_difference


@dataclass(frozen=True)
class Comparison:
    """A setting against its reference at the headline NFE, with the p value corrected within its table."""

    setting: Setting
    reference: Setting
    paired: PairedDifference
    corrected: float


def factor_comparisons(results: Results, path: str) -> list[Comparison]:
    """Each level of a factor against the baseline if the factor has one among its levels, else against the centre."""
    settings = results.factor_settings(path)
    if path in results.design.baseline:
        return _compare(results, [(setting, results.baseline(setting)) for setting in settings])
    centre = next((setting for setting in settings if setting.is_centre), None)
    return _compare(results, [(setting, centre) for setting in settings])


def grid_comparisons(results: Results) -> list[Comparison]:
    """Each cell of the grid against the baseline with the cell's other level."""
    return _compare(results, [(setting, results.baseline(setting)) for setting in results.grid_settings()])


def arm_comparisons(results: Results) -> list[Comparison]:
    """The centre and each arm against the baseline."""
    return _compare(results, [(setting, results.baseline(setting)) for setting in results.arm_settings()])


def table_comparisons(results: Results, table: str) -> list[Comparison]:
    """Each arm of a table against the baseline, or against the centre where there is none."""
    centre = next((setting for setting in results.settings if setting.is_centre), None)
    return _compare(results, [(setting, results.baseline(setting) or centre) for setting in results.in_table(table)])


def _compare(results: Results, pairs: Sequence[tuple[Setting, Setting | None]]) -> list[Comparison]:
    found = []
    for setting, reference in pairs:
        if reference is None or reference.digest == setting.digest:
            continue
        score, other = results.score(setting), results.score(reference)
        if score is not None and other is not None:
            found.append((setting, reference, paired_difference(score.test, other.test)))
    # The same runs in several places are one comparison.
    once = {(setting.digest, reference.digest): paired.p_value for setting, reference, paired in found}
    corrected = dict(zip(once, holm(list(once.values())), strict=True))
    return [Comparison(*item, corrected[item[0].digest, item[1].digest]) for item in found]


def counted(comparisons: Sequence[Comparison]) -> int:
    """How many they are, those of the same runs once."""
    return len({(comparison.setting.digest, comparison.reference.digest) for comparison in comparisons})

"""What to use, and how sure that is: the setting that validation chose, set against every other, its cost beside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis import formats
from analysis.design import Setting
from analysis.ldsb.names import is_control
from analysis.quality import Score
from analysis.recipes import recipe
from analysis.results import Results
from analysis.statistics import PairedDifference, compare_seeds, holm
from analysis.tables import budget_label

_LEVEL = 0.05
_LISTED = 3  # settings that a sentence names one by one


@dataclass(frozen=True)
class Rival:
    """Another setting against the recommended one, rival / recommended: above 1 it is worse.

    Attributes:
        corrected: p value, corrected by Holm over all rivals.
    """

    setting: Setting
    paired: PairedDifference
    corrected: float

    @property
    def apart(self) -> bool:
        """Whether the difference is more than chance."""
        return self.corrected < _LEVEL

    @property
    def worse(self) -> bool:
        """Whether the rival's values are the higher ones."""
        ratio, difference = self.paired.ratio, self.paired.difference
        return ratio.mean > 1 if ratio is not None else difference.mean > 0


@dataclass(frozen=True)
class Recommendation:
    """The setting that is best on validation at the headline NFE, and the others by rank on validation."""

    results: Results
    setting: Setting
    rivals: list[Rival]

    @property
    def validated(self) -> bool:
        """Whether validation values made the choice."""
        score = self.results.score(self.setting)
        return score is not None and bool(score.validation)


def recommend(results: Results) -> Recommendation | None:
    """The best setting by validation, so that the test value reported for it is not the best of many; no control."""
    scored = sorted(
        (one for one in results.settings if results.interval(one).n and not is_control(one.leaves)),
        key=lambda setting: chosen_value(results, setting),
    )
    if not scored:
        return None
    best, others = scored[0], scored[1:]
    return Recommendation(results, best, rivals_of(results, best, others))


def rivals_of(results: Results, best: Setting, others: Sequence[Setting]) -> list[Rival]:
    """Others against one at the headline NFE, seed by seed; p corrected by Holm over all of them."""
    own = score.test if (score := results.score(best)) is not None else {}
    pairs = [compare_seeds(score.test if (score := results.score(other)) else {}, own) for other in others]
    corrected = holm([pair.p_value for pair in pairs])
    return [Rival(*item) for item in zip(others, pairs, corrected, strict=True)]


def chosen_value(results: Results, setting: Setting) -> float:
    """What a setting is ranked by: its mean on validation, for want of it that on test."""
    score = results.score(setting)
    if score is None:
        return math.inf
    return score.validation_mean if score.validation else score.interval.mean


def answer(results: Results) -> list[str]:
    """What to use; how sure that is; what it costs."""
    found = recommend(results)
    if found is None:
        if not results.runs["ablation"]:
            return ["There is no ablation yet, so nothing can be claimed; what follows is the search, and optimistic."]
        return ["No run of the ablation is completed with a score on the test split, so nothing can be claimed."]
    chosen = use(results, found.setting, results.score(found.setting))
    return [text for text in (chosen, lead(found), sure(found), _against_baseline(found), _cost(found)) if text]


def lead(found: Recommendation) -> str:
    """The score with interval and seeds, and how far that is from the floor."""
    results, interval = found.results, found.results.interval(found.setting)
    by = "on validation" if found.validated else "on the same values, for want of validation values"
    text = (
        f"It is the best of {formats.plural(len(found.rivals) + 1, 'setting')} {budget_label(results.headline)} {by}: "
        f"{results.metric.label} {formats.interval(interval)} on the test split ({_seeds(interval.n)})"
    )
    if not results.floor.n:
        return f"{text}. No floor was recorded, so it cannot be said how far this is from perfect."
    floor = formats.number(results.floor.mean)
    if results.floor.mean <= 0:
        return f"{text}; the floor, real against real, is {floor}."
    times = formats.number(interval.mean / results.floor.mean, 2)
    return f"{text}, {times} times the floor of {floor} (real against real)."


def sure(found: Recommendation) -> str:
    """Against which others it holds, and which cannot be told from it."""
    if found.results.interval(found.setting).n == 1:
        return "How sure: not at all. With one seed there is no interval, and no difference can be told from chance."
    if not found.rivals:
        return "How sure: there is nothing to compare it with."
    if all(math.isnan(rival.corrected) for rival in found.rivals):
        return "How sure: not at all. Too few seeds are shared with the other settings for a test."
    runner_up = found.rivals[0]
    text = f"How sure: {shares(found.rivals)}. "
    return f"{text}The runner-up on validation, {quoted(runner_up.setting)}, {against(runner_up)}."


def shares(rivals: Sequence[Rival], noun: str = "setting") -> str:
    """How many rivals are worse, better, or cannot be told from the recommended one."""
    count = len(rivals)
    worse = [rival for rival in rivals if rival.apart and rival.worse]
    better = [rival for rival in rivals if rival.apart and not rival.worse]
    alike = [rival for rival in rivals if not rival.apart]
    if len(worse) == count:
        others = f"the only other {noun} is" if count == 1 else f"all {count} others are"
        return f"{others} worse by more than chance"
    corrected = f"paired by seed, Holm over {count}"
    if len(alike) == count:
        others = f"the only other {noun} cannot" if count == 1 else f"none of the {count} other {noun}s can"
        return f"{others} be told from it ({corrected})"
    parts = [f"{len(worse)} of {formats.plural(count, f'other {noun}')} worse by more than chance"] if worse else []
    if better:
        parts.append(f"{_listed(better)} better on test than it by more than chance")
    parts.append(f"{_listed(alike)} cannot be told from it")
    return f"{', '.join(parts)} ({corrected})"


def _listed(rivals: Sequence[Rival]) -> str:
    if len(rivals) > _LISTED:
        return str(len(rivals))
    return f"{len(rivals)} ({', '.join(quoted(rival.setting) for rival in rivals)})"


def against(rival: Rival) -> str:
    """A rival's difference in words: its ratio and interval, and whether that is more than chance.

    Neither the baseline nor the runner-up on validation was picked by its test values: alone, each p is its own.
    """
    ratio, difference = rival.paired.ratio, rival.paired.difference
    size = f"has {formats.limits(ratio)} times its value" if ratio is not None else (
        f"differs by {formats.interval(difference)}"
    )  # fmt: skip
    p = rival.paired.p_value
    if math.isnan(p):
        return f"{size}; too few seeds to test"
    return f"{size}, {'more than chance' if p < _LEVEL else 'which may be chance'} ({formats.p_equals(p)})"


def _against_baseline(found: Recommendation) -> str:
    """The gain over the baseline, which is the null of most studies."""
    results, baseline = found.results, found.results.baseline(found.setting)
    label = results.design.baseline_label
    if baseline is None:
        return ""
    if baseline.digest == found.setting.digest:
        return f"It is the baseline itself ({label}): what was varied has brought nothing on validation."
    rival = next((rival for rival in found.rivals if rival.setting.digest == baseline.digest), None)
    if rival is None:
        return ""
    value = formats.interval(results.interval(baseline))
    return f"Its baseline, “{baseline.label}”, has {value}: it {against(rival)}."


def _cost(found: Recommendation) -> str:
    """Evaluations and seconds of a run, and the cheapest setting that cannot be told from it."""
    results, cost = found.results, found.results.cost(found.setting)
    if not cost.evaluations:
        return f"Cost: {formats.duration(cost.seconds)} a run." if cost.seconds > 0 else ""
    text = (
        f"Cost: {formats.count(cost.evaluations)} network evaluations of training a run "
        f"({formats.count(cost.simulation)} of them to simulate pairs), {formats.duration(cost.seconds)}"
    )
    alike = [(results.cost(rival.setting).evaluations, rival.setting) for rival in found.rivals if not rival.apart]
    alike = [item for item in alike if item[0] > 0]
    if not alike or results.interval(found.setting).n < 2:
        return f"{text}."
    least, setting = min(alike, key=lambda item: item[0])
    if least > 0.95 * cost.evaluations:
        return f"{text}; none of those that cannot be told from it is cheaper."
    return (
        f"{text}. The cheapest that cannot be told from it is {quoted(setting)}: {formats.count(least)} evaluations, "
        f"{formats.number(100 * least / cost.evaluations, 2)} % of that."
    )


def use(results: Results, setting: Setting, score: Score | None) -> str:
    """What to use, with everything that has to be set: "Use “flow matching”: …, sampled with Heun at NFE 9"."""
    where = "" if score is not None and score.sampler[0] else f" {budget_label(results.headline)}"
    return f"Use {quoted(setting)}: {recipe(results.design, setting, score)}{where}."


def quoted(setting: Setting) -> str:
    """A setting's name inside a sentence."""
    return "the centre" if setting.label == "centre" else f"“{setting.label}”"


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"95 % t interval over {n} seeds"

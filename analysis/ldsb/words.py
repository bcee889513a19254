"""What a study of LDSB found, in sentences that claim no more than its seeds carry."""

import math
from collections.abc import Sequence
from dataclasses import replace

from analysis import formats
from analysis.ldsb.names import KANS, ORIGINAL, is_control, procedure_name
from analysis.ldsb.parameterisations import NetworkComparison, network_comparisons
from analysis.ldsb.shown import shown_denoisers
from analysis.ldsb.ways import Denoiser, Way, compare, validation_rank
from analysis.results import Results
from analysis.statistics import Interval, holm

_LEVEL = 0.05


def ldsb_sentences(results: Results) -> list[str]:
    """The published procedure, the best way at each NFE, and whether a KAN differs from a table of logits."""
    denoisers = shown_denoisers(results)
    found = [text for denoiser in denoisers for text in (_published(denoiser), _best(denoiser))]
    return [text for text in [*found, _networks(denoisers)] if text]


def _published(denoiser: Denoiser) -> str:
    way = denoiser.published_way
    if way is None:
        return ""
    parts = []
    for n, setting in sorted(way.settings.items()):
        found = denoiser.reduction(setting, denoiser.score(way, n), denoiser.original(way, n))
        if found is not None and found.n:
            parts.append(f"{_change(found)} at NFE {n}")
    if not parts:
        return ""
    return (
        f"Reduction of {denoiser.results.metric.short} by {procedure_name(way.leaves)} ({denoiser.label} denoiser) "
        f"against the original path on the same grid: {', '.join(parts)}."
    )


def _best(denoiser: Denoiser) -> str:
    """The best way on validation at each NFE, its score on test, and which others cannot be told from it."""
    parts = [part for n in denoiser.steps if (part := _best_at(denoiser, n))]
    if not parts:
        return ""
    chosen = any(
        score.validation for way in denoiser.ways for n in way.settings if (score := denoiser.score(way, n)) is not None
    )
    by = "on validation" if chosen else "on the values shown, for want of validation values"
    return f"Best way {by} with the {denoiser.label} denoiser: {'; '.join(parts)}."


def _best_at(denoiser: Denoiser, n: int) -> str:
    ways = [way for way in denoiser.ways if not is_control(way.leaves)]
    scored = [(way, score) for way in ways if (score := denoiser.score(way, n)) is not None and score.test]
    if not scored:
        return ""
    way, score = min(scored, key=lambda item: validation_rank(item[1]))
    text = f"at NFE {n} “{way.label}”, {denoiser.results.metric.short} {formats.interval(score.interval)} on test "
    text += f"(n = {score.interval.n}"
    original = denoiser.best_original(n)
    found = denoiser.reduction(way.settings[n], score, original)
    if way.fit == ORIGINAL:
        text += ", no fit is better"
    elif found is not None and found.n:
        side, change = ("above", _negative(found)) if found.mean < 0 else ("below", found)
        text += f", {_change(change)} {side} the original on its best fixed grid"
    else:
        text += ", no original to compare it with"
    return text + _others(denoiser, n, way, [other for other, _ in scored if other is not way]) + ")"


def _others(denoiser: Denoiser, n: int, way: Way, others: Sequence[Way]) -> str:
    """How many other ways are worse, better on test, or cannot be told apart; p values corrected together."""
    own = denoiser.score(way, n)
    pairs = [compare(denoiser.score(other, n), own) for other in others]
    corrected = holm([pair.p_value for pair in pairs])
    if not others or all(math.isnan(p) for p in corrected):
        return "; too few seeds to compare it with the other ways" if others else ""
    apart = [pair for pair, p in zip(pairs, corrected, strict=True) if p < _LEVEL]
    worse = sum(pair.difference.mean > 0 for pair in apart)
    if worse == len(others):
        return (
            f"; {'all ' if worse > 1 else ''}{formats.plural(worse, 'other way')} {'are' if worse > 1 else 'is'} worse"
        )
    if not apart:
        return f"; none of {formats.plural(len(others), 'other way')} can be told from it"
    counts = [(worse, "worse"), (len(apart) - worse, "better on test"), (len(others) - len(apart), "indistinguishable")]
    named = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
    return f"; of {formats.plural(len(others), 'other way')}: {named}"


def _negative(found: Interval) -> Interval:
    return replace(found, mean=-found.mean, low=-found.high, high=-found.low)


def _change(found: Interval) -> str:
    """A reduction with its interval, and what it cannot say."""
    text = f"{formats.limits(found)} %"
    if math.isnan(found.low):
        return f"{text} (one seed, no interval)"
    return f"{text} (not distinguishable from none)" if found.low <= 0 <= found.high else text


def _networks(denoisers: Sequence[Denoiser]) -> str:
    """Whether a KAN differs from a table of logits that is fitted in the same way."""
    found = [
        item for item in network_comparisons(denoisers)
        if str(item.way.settings[item.n].leaves.get("network.kind")) in KANS
        and not is_control(item.way.settings[item.n].leaves) and item.paired.n
    ]  # fmt: skip
    if not found:
        return ""
    counted = formats.plural(len(found), "comparison")
    text = f"A KAN against a table of logits fitted in the same way ({counted}, paired by seed): "
    tested = [item for item in found if not math.isnan(item.corrected)]
    if not tested:
        return f"{text}too few seeds to tell them apart."
    apart = [item for item in tested if item.corrected < _LEVEL]
    if not apart:
        return f"{text}none can be told apart (Holm-corrected)."
    named = [_named(item) for item in apart]
    rest = len(found) - len(apart)
    return f"{text}{', '.join(named)}{f'; {rest} cannot be told apart' if rest else ''} (Holm-corrected)."


def _named(item: NetworkComparison) -> str:
    worse = "worse" if item.paired.difference.mean > 0 else "better"
    ratio = f"× {formats.number(item.paired.ratio.mean)}, " if item.paired.ratio is not None else ""
    label = item.denoiser.label
    return f"“{item.way.label}” at NFE {item.n} with {label} is {worse} ({ratio}{formats.p_equals(item.corrected)})"

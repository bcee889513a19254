"""The summary of a whole study: of one data set its own, of several what can be said across them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from analysis import formats, summary
from analysis.costs import largest_deviation, percent
from analysis.design import Setting
from analysis.ldsb.names import is_control
from analysis.overview import Method, methods, ranked
from analysis.results import Results
from analysis.summary import Card
from analysis.summary_answer import answer, chosen_value, rivals_of, shares, use
from analysis.tables import budget_label


def study_cards(parts: Sequence[Results]) -> list[Card]:
    """The few numbers on top of the report."""
    if len(parts) == 1:
        return summary.cards(parts[0])
    runs = [run for results in parts for phase in results.runs.values() for run in phase]
    completed = sum(run["status"] == "completed" for run in runs)
    failed = sum(run["status"] == "failed" for run in runs)
    note = f"{failed} failed, {formats.duration(sum(run['seconds'] or 0 for run in runs))}"
    names = ", ".join(formats.level(results.dataset) for results in parts)
    rows = methods(parts)
    return [
        Card("data sets", str(len(parts)), names),
        Card("methods", str(len(rows)), "tuned candidates count once a family"),
        Card("runs completed", f"{completed} of {len(runs)}", note),
    ]


def unfinished(parts: Sequence[Results]) -> str:
    """That the study is not at its end, and what is still missing; nothing of one that is."""
    runs = [run for results in parts for phase in results.runs.values() for run in phase]
    running = sum(run["status"] == "running" for run in runs)
    sessions = parts[0].study.get("sessions") or []
    going = bool(sessions) and not sessions[-1].get("ended")
    stopped = bool(sessions) and sessions[-1].get("outcome") == "stopped"
    if not running and not going and not stopped:
        return ""
    text = "This study was stopped before its end; the same command continues it." if stopped else ""
    if going:
        text = "The last session of this study has not ended: it is still running, or it was cut off."
    if running:
        verb = "is" if running == 1 else "are"
        text += f" {formats.plural(running, 'run').capitalize()} of {len(runs)} {verb} recorded as not finished."
    return f"{text.strip()} Numbers and words below are of the runs that are completed, and may change."


def study_sentences(parts: Sequence[Results]) -> list[str]:
    """The whole summary: the answer, then the findings."""
    return [*study_answer(parts), *study_findings(parts)]


def study_answer(parts: Sequence[Results]) -> list[str]:
    """What to use and how sure that is; of several data sets a sentence for each."""
    if len(parts) == 1:
        return answer(parts[0])
    rows = _contenders(parts)
    return [text for results in parts if (text := _best(results, rows))]


def study_findings(parts: Sequence[Results]) -> list[str]:
    """What else was found."""
    if len(parts) == 1:
        return summary.findings(parts[0])
    return [*_wins(parts, _contenders(parts)), *_cost(parts, methods(parts)), *_failures(parts)]


def _contenders(parts: Sequence[Results]) -> list[Method]:
    """The methods that may be recommended: no controls."""
    return [row for row in methods(parts) if not any(is_control(one.leaves) for one in row.settings.values())]


def _best(results: Results, rows: Sequence[Method]) -> str:
    """The best method on validation of a data set, and how many others cannot be told from it."""
    name, metric = formats.level(results.dataset), results.metric.label
    # A configuration may stand in two rows: it counts once.
    named: dict[str, Setting] = {}
    for row in rows:
        setting = row.settings.get(results.dataset)
        if setting is not None and results.interval(setting).n:
            named.setdefault(setting.digest, replace(setting, label=row.name))
    ordered = sorted(named.values(), key=lambda setting: chosen_value(results, setting))
    if not ordered:
        return f"On {name} no run is completed with a score on the test split, so nothing can be claimed."
    chosen, others = ordered[0], ordered[1:]
    score, interval = results.score(chosen), results.interval(chosen)
    by = "on validation" if score is not None and score.validation else "on the values shown"
    floor = f"floor {formats.number(results.floor.mean)}" if results.floor.n else "no floor was recorded"
    text = (
        f"On {name} {decapitalised(use(results, chosen, score))} It is the best {by} "
        f"{budget_label(results.headline)}: {metric} {formats.interval(interval)} on test (n = {interval.n}; {floor}). "
    )
    if math.isnan(interval.high):
        return text + "With one seed there is no interval, and no difference can be told from chance."
    if not others:
        return f"{text}There is nothing to compare it with."
    rivals = rivals_of(results, chosen, others)
    if all(math.isnan(rival.corrected) for rival in rivals):
        return f"{text}How sure: not at all. No test is possible with the seeds that are shared."
    return f"{text}How sure: {shares(rivals, 'method')}."


def decapitalised(text: str) -> str:
    """A sentence inside another."""
    return text[0].lower() + text[1:]


def _wins(parts: Sequence[Results], rows: Sequence[Method]) -> list[str]:
    """On how many data sets each method has the lowest mean; raw scores are not averaged."""
    wins: dict[str, int] = {}
    for results in parts:
        own = {name: one.interval.mean for name, one in ranked(results, rows).items() if one.interval.n}
        if own:
            least = min(own, key=lambda name: own[name])
            wins[least] = wins.get(least, 0) + 1
    if not wins:
        return []
    named = [f"“{name}” on {count}" for name, count in sorted(wins.items(), key=lambda item: -item[1])]
    return [
        f"Lowest mean on test, of {formats.plural(len(parts), 'data set')}: {', '.join(named)}; a count, not a test. "
        f"Raw scores of different data sets are not averaged."
    ]


def _cost(parts: Sequence[Results], rows: Sequence[Method]) -> list[str]:
    largest: tuple[float, str] = (-1.0, "")
    for results in parts:
        settings = [row.settings[results.dataset] for row in rows if results.dataset in row.settings]
        spent = [cost for setting in settings if (cost := results.cost(setting).evaluations) > 0]
        if len(spent) > 1:
            largest = max(largest, (largest_deviation(spent), formats.level(results.dataset)))
    if largest[0] < 0:
        return []
    return [
        f"Training cost in counted network evaluations, simulation included, differs between methods of one data set "
        f"by at most {percent(largest[0])} (on {largest[1]})."
    ]


def _failures(parts: Sequence[Results]) -> list[str]:
    runs = [run for results in parts for phase in results.runs.values() for run in phase]
    failed = sum(run["status"] == "failed" for run in runs)
    if not runs:
        return ["No run has been recorded yet."]
    listed = "listed under its data set with the error"
    return [f"{formats.plural(failed, 'run').capitalize()} of {len(runs)} failed; each is {listed}."] if failed else []

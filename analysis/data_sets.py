"""A study of several data sets as one `Results` for each of them."""

from analysis.collect import Collected
from analysis.results import Results, build_results

_PER_DATA_SET = ("primary_metric", "base", "centre", "design")


def build_all(collected: Collected) -> list[Results]:
    """One `Results` for each data set of a study, in its order; a study of one data set has one."""
    return [build_results(part) for part in split(collected)]


def split(collected: Collected) -> list[Collected]:
    """The records of each data set, with the entries of study.json that are its own; problems are shared by all."""
    problems = collected.study.get("problems") or {}
    if not problems:
        return [collected]
    return [
        collected.of_data_set(dataset, {name: problem.get(name) for name in _PER_DATA_SET})
        for dataset, problem in problems.items()
    ]

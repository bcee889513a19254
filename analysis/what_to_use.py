"""What to use at few network calls: the recipe for each budget, how sure it is, and the command to run it again."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from analysis import formats
from analysis.ldsb.names import is_control
from analysis.pareto import Candidate, candidates
from analysis.recipes import recipe
from analysis.results import Results
from analysis.statistics import Interval, compare_seeds
from analysis.summary_answer import Rival, against, quoted

BUDGETS = (3, 5, 10)


@dataclass(frozen=True)
class Use:
    """The best on validation within a budget.

    Attributes:
        nfe: the budget.
        name: the setting's.
        recipe: everything that has to be set.
        value: its score on the test split.
        text: the same, for people, with n.
        sure: against the runner-up.
        command: it alone, again; empty where the study did not record how.
    """

    nfe: int
    name: str
    recipe: str
    value: Interval
    text: str
    sure: str
    command: str


def uses(results: Results) -> list[Use]:
    """One for each of 3, 5 and 10 NFE that the study has; none of a study that does not say how to run one alone."""
    if not results.design.can_run_alone:
        return []
    known = [item for item in candidates(results) if not is_control(item.setting.leaves)]
    found = []
    for nfe in BUDGETS:
        within = sorted((item for item in known if item.score.counted <= nfe), key=lambda item: item.value)
        if nfe in results.budgets and within:
            found.append(_use(results, nfe, within))
    return found


def _use(results: Results, nfe: int, within: list[Candidate]) -> Use:
    best = within[0]
    setting, _, score, _ = best
    rival = next((item for item in within if item.setting.digest != setting.digest), None)
    sure = "There is nothing to compare it with."
    if rival is not None:
        paired = compare_seeds(rival.score.test, score.test)
        sure = f"The runner-up, {quoted(rival.setting)}, {against(Rival(rival.setting, paired, paired.p_value))}."
    return Use(
        nfe, setting.label, recipe(results.design, setting, score), score.interval, formats.with_n(score.interval),
        sure, command(results, setting.assignments),
    )  # fmt: skip


def command(results: Results, assignments: Mapping[str, Any] | None) -> str:
    """What runs one configuration alone, with as many seeds as the study has; empty without assignments."""
    study = results.study
    if assignments is None or not study.get("study"):
        return ""
    words = ["python", f"studies/{study['study']}.py", "--dataset", results.dataset]
    words += ["--preset", str(study["preset"])] if study.get("preset") else []
    words += ["--alone", "--seeds", str(len(study.get("seeds") or results.seeds) or 1)]
    for path, value in assignments.items():
        words += ["--set", f"{path}={scalar(value)}"]
    return shlex.join(words)


def scalar(value: Any) -> str:
    """A value as YAML reads it back, on one line."""
    if isinstance(value, float):
        text = repr(value)
        # YAML takes 1e-05 for a text.
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    dumped: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=True)
    return dumped.removesuffix("\n").removesuffix("\n...").strip()

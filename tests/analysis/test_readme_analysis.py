"""The README's section on analysis: its commands run, its queries answer."""

import ast
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from fabricated_study import fabricate

from analysis.__main__ import main
from analysis.collect import collect

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Analysis\n")[2].partition("\n## ")[0]


def commands() -> list[list[str]]:
    """The arguments of every command that ends by itself."""
    lines = [line for line in SECTION.splitlines() if line.startswith("python -m analysis")]
    found = [shlex.split(line, comments=True)[3:] for line in lines]
    every = {"watch", "report", "table", "effects", "compare", "figures", "collect", "tensorboard"}
    assert {command[0] for command in found} == every
    return [command for command in found if command[0] != "watch"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies under the names that the README uses."""
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path / "results/asbm_sweep-digits-default")
    shutil.copytree(tmp_path / "results/asbm_sweep-digits-default", tmp_path / "results/other")
    return tmp_path


def test_the_commands_run_and_the_queries_answer(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands():
        assert main(command) == 0, command
    assert list(results.glob("results/*/figures/pareto.pdf"))
    rows = collect("results/asbm_sweep-digits-default").select(["frechet_distance"])
    expected = rows.loc[rows["nfe"] == 10, "value"].mean()
    for answer in answers():
        assert answer == pytest.approx(expected)


def answers() -> list[float]:
    """What each query says of one study at NFE 10."""
    (block,) = re.findall(r"```py\n(.*?)```", SECTION, re.DOTALL)
    scope: dict[str, Any] = {}
    found = []
    for statement in ast.parse(block).body:
        if isinstance(statement, ast.Expr):
            answer = eval(ast.unparse(statement), scope)
            found.append(value_of(answer))
        else:
            exec(ast.unparse(statement), scope)
    assert len(found) == 3
    return found


def value_of(answer: Any) -> float:
    place = ("asbm_sweep-digits-default", 10)
    if hasattr(answer, "fetchall"):
        return next(value for study, nfe, value in answer.fetchall() if (study, nfe) == place)
    if hasattr(answer, "iter_rows"):
        return next(value for study, nfe, value in answer.iter_rows() if (study, nfe) == place)
    return float(answer[place])

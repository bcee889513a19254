"""The recorded table of the joint space, and the benchmark of samplers that looks it up."""

import json
import math
import sys

import numpy as np
import pytest

from benchmarks import search_quality
from benchmarks.joint_space import TABLE, Table, identity, joint_space, outcome, points, train_field
from sbbridge.study import cli
from sbbridge.study.definition import SEARCH_ALGORITHMS
from sbbridge.study.design import SEARCH_SEED
from sbbridge.study.job import Job, execute
from sbbridge.study.outcome import objectives
from sbbridge.study.plan import Options
from sbbridge.study.space import value_at
from sbbridge.study.trial import digests
from studies.joint_sweep import COUPLINGS, STUDY

RESULT = TABLE.with_name("search_quality.json")


@pytest.fixture(scope="module")
def space():
    return joint_space()


class Odometer:
    """An Optuna trial that goes through every sequence of answers, whatever is asked."""

    def __init__(self):
        self.turns: list[tuple[int, int]] = []
        self.at = 0

    def suggest_categorical(self, path, levels):
        if self.at == len(self.turns):
            self.turns.append((0, len(levels)))
        self.at += 1
        return levels[self.turns[self.at - 1][0]]

    def advance(self) -> bool:
        while self.turns and self.turns[-1][0] + 1 == self.turns[-1][1]:
            self.turns.pop()
        if self.turns:
            self.turns[-1] = (self.turns[-1][0] + 1, self.turns[-1][1])
        self.at = 0
        return bool(self.turns)


def test_the_table_has_every_point_that_the_search_can_ask_for_and_no_other(space):
    trial, asked = Odometer(), set()
    more = True
    while more:
        asked.add(identity(space.suggest(trial)))
        more = trial.advance()
    table = Table(TABLE, space)
    assert set(table.rows) == asked == {identity(point) for point in points(space)}
    assert {row["point"]["method.coupling"] for row in table.rows.values()} == set(COUPLINGS)
    for row in table.rows.values():
        assert row["status"] == "failed" or (row["quality"] > 0 and 1 <= row["nfe"] <= space.judged_at(row["point"]))
    assert TABLE.stat().st_size < 300_000


def test_searches_find_much_of_the_table_and_print_it(monkeypatch, capsys, tmp_path):
    arguments = ["--samplers", "random", "tpe", "--repeats", "2", "--trials", "5", "--output", str(tmp_path / "found")]
    monkeypatch.setattr(sys, "argv", ["search_quality", *arguments])
    search_quality.main()
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("tpe ") for line in lines) == 4  # one and two at a time, by two references
    assert any(line.startswith("best at 5 trials: ") for line in lines)
    found = json.loads((tmp_path / "found").read_text())
    for part in found["parts"]:
        for row in part["rows"]:
            assert all(0 <= share <= 1 for share in row["by_seed"]["5"])


def test_a_table_that_lacks_points_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["search_quality", "--table", str(tmp_path / "none.csv.gz")])
    with pytest.raises(SystemExit, match=r"none.csv.gz lacks 1448 points of the space: see --record"):
        search_quality.main()


def test_the_default_sampler_is_the_best_or_cannot_be_told_from_it():
    part = json.loads(RESULT.read_text(encoding="utf-8"))["parts"][0]
    verdict = part["verdict"]
    assert part["batch"] == 1
    assert {row["sampler"] for row in part["rows"]} >= set(SEARCH_ALGORITHMS)
    default = cli._parser(STUDY).parse_args([]).search_algorithm
    assert verdict["trials"] == search_quality.DECIDED_AT
    assert default in (verdict["best"], *verdict["like_it"])
    assert default == search_quality.DEFAULT == Options("", "", TABLE, "", 0, 0, {}).search_algorithm


def test_the_table_alone_is_the_whole_and_what_is_worse_than_the_reference_is_nothing(space):
    table = Table(TABLE, space)
    judge = search_quality.Judge(table, 0.9)
    all_of_it = np.array([search_quality.values(row) for row in table.rows.values() if row["status"] == "completed"])
    assert judge.share(all_of_it) == pytest.approx(1)
    assert judge.share(np.array([[judge.reference[0] + 1, 3.0], [math.nan, math.nan]])) == 0


def test_a_table_that_was_interrupted_goes_on_without_its_torn_line(space, tmp_path):
    first, second = [point for point in points(space) if point.get("reference.beta_max") == 4.0][:2]
    row = {"status": "completed", "quality": 12.5, "nfe": 3.0, "sampler": "heun", "evaluations": 10.0, "seconds": 1.0}
    table = Table(tmp_path / "table.csv.gz", space)
    table.add(first, row)
    table.add(second, {**row, "status": "failed", "quality": math.nan})
    part = tmp_path / "table.csv.gz.part"
    part.write_text(part.read_text()[:-4])
    again = Table(tmp_path / "table.csv.gz", space)
    assert again.rows == {identity(first): {**again.rows[identity(first)], **row, "point": first}}
    again.mend()
    again.add(second, row)
    assert set(Table(tmp_path / "table.csv.gz", space).rows) == {identity(first), identity(second)}
    again.close()
    assert not part.exists()
    assert Table(tmp_path / "table.csv.gz", space).rows[identity(second)]["quality"] == 12.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["asbm", "ldsb"])
def test_a_row_is_what_a_trial_of_the_study_finds(space, tmp_path, kind):
    point = space.complete({"method.coupling": "independent", "method.kind": kind, "method.num_steps": 3})
    mine = outcome(space, train_field(space, point), point)
    tree = space.tree(point)
    digest, training_digest = digests(tree)
    job = Job(tree, SEARCH_SEED, "search", digest, training_digest, str(tmp_path), {}, "study")
    fields = execute(job)
    assert fields["status"] == "completed", fields
    quality, nfe, sampler = objectives(fields, "frechet_distance", space.judged_at(point), None)
    assert (mine["nfe"], mine["sampler"]) == (nfe, sampler)
    assert mine["quality"] == pytest.approx(math.exp(quality), rel=1e-5)
    spent = [fields[f"{what}_evaluations"] or 0 for what in ("simulation", "optimisation", "denoiser")]
    assert mine["evaluations"] == sum(spent)
    assert value_at(tree, "method.kind") == kind

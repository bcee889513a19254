"""What users pass, made up by Hypothesis: a right result or the error that is meant for it, nothing else.

Fifty examples each; `-m fuzz` tries thousands.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sbbridge import records
from sbbridge.config import ConfigurationError, columns, dump, override, parse, parse_assignments
from sbbridge.data import StandardNormal
from sbbridge.methods import Solution
from sbbridge.problems import BridgeProblem
from sbbridge.sampling import sample
from sbbridge.sde import BrownianMotion
from sbbridge.solvers import Dynamics
from sbbridge.study.outcome import not_finite, objectives
from sbbridge.study.trial import TrialConfig

FEW, MANY = 50, 5000
TREE = dump(TrialConfig())
PATHS = sorted(columns(TrialConfig))
SOLUTION = Solution(
    BridgeProblem(StandardNormal((2, 3)), StandardNormal((2, 3)), BrownianMotion(1.0)), "own",
    Dynamics(BrownianMotion(1.0), velocity=lambda t, x: 0 * x),
)  # fmt: skip


def both(*strategies: Any, **named: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A property, tried on a few examples in every run, and on many where `-m fuzz` asks for it."""

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        def of(number: int) -> Callable[..., None]:
            quiet = [HealthCheck.too_slow, HealthCheck.filter_too_much]
            options = settings(max_examples=number, deadline=None, suppress_health_check=quiet,
                               derandomize=number == FEW, database=None)  # fmt: skip
            return options(given(*strategies, **named)(check))

        few, many = of(FEW), of(MANY)
        marks = [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.fuzz)]

        @pytest.mark.parametrize("tried", marks)
        def test(tried: Callable[..., None]) -> None:
            tried()

        test.__doc__ = check.__doc__
        return test

    return decorate


# -- configurations

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(PATHS) | st.sampled_from(["method", "method.kind", "reference", "network.kind", "", "a.b", "."])
WORDS = st.sampled_from([
    "1e-3", "0x1F", "1_000", "1:30", "2020-01-01", "2020-13-45", "nan", ".inf", "-.inf", "~", "=", "[1, 2]", "[1, [2",
    "{a: 1}", "{1: 2}", "!!set {a}", "!!binary aGk=", "!!python/name:os.system", "&a [*a]", "*a", "yes", "'", '"', "\t",
    "9" * 5000, "[" * 2000, "é", "\ud800", "\x00", "1e999", "1" + "0" * 400, "asbm", "mlp", "digits",
])  # fmt: skip


def told_in_one_line(error: ConfigurationError) -> None:
    assert str(error).strip()
    assert len(str(error).splitlines()) == 1, str(error)


def configured(texts: list[str]) -> Any:
    try:
        changes = parse_assignments(texts)
        return parse(TrialConfig, override(TREE, changes))
    except ConfigurationError as error:
        told_in_one_line(error)
        return None


@both(st.lists(st.tuples(KEYS | st.text(max_size=10), st.sampled_from(["=", "", "=="]),
                         WORDS | st.text(max_size=20) | SCALARS.map(str)).map("".join), max_size=4))  # fmt: skip
def test_assignments_are_a_configuration_or_an_error_of_one_line(texts):
    found = configured(texts)
    assert found is None or parse(TrialConfig, dump(found)) == found


@both(st.tuples(KEYS, JSON) | st.tuples(st.text(max_size=8), JSON))
def test_trees_are_too(change):
    path, value = change
    try:
        tree = override(TREE, {path: value})
        found = parse(TrialConfig, tree)
    except ConfigurationError as error:
        told_in_one_line(error)
        return
    assert parse(TrialConfig, dump(found)) == found


@both(JSON | st.binary(max_size=4) | st.dates() | st.sets(st.integers(), max_size=2) | st.dictionaries(
    st.integers() | st.text(max_size=5), JSON, max_size=3))  # fmt: skip
def test_what_is_no_tree_at_all_is_refused(data):
    if data == {}:
        return
    try:
        found = parse(TrialConfig, data)
    except ConfigurationError as error:
        told_in_one_line(error)
        return
    assert dataclasses.is_dataclass(found)


FIELDS = {"reference.beta_max": st.floats(0.2, 100), "training.batch_size": st.integers(1, 10**6),
          "evaluation.nfe": st.lists(st.integers(1, 1000), min_size=1, max_size=4),
          "training.learning_rate": st.floats(1e-12, 1e3), "evaluation.to_training": st.booleans(),
          "training.budget": st.none() | st.integers(1, 10**12),
          "dataset": st.sampled_from(["digits", "moons"])}  # fmt: skip


@both(st.fixed_dictionaries({}, optional=FIELDS))
def test_values_that_are_allowed_arrive_as_they_are(values):
    texts = [f"{path}={json.dumps(value)}" for path, value in values.items()]
    found = configured(texts)
    assert found is not None, texts
    for path, value in values.items():
        held = functools.reduce(getattr, path.split("."), found)
        assert held == (tuple(value) if isinstance(value, list) else value)
        assert type(held) is not bool or isinstance(value, bool)


# -- arrays into sample

NUMBERS = (
    arrays.arrays(st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_]),
                  st.sampled_from([(1, 2, 3), (4, 2, 3), (0, 2, 3), (2, 3), (4, 3, 2), (), (1, 2, 3, 1)]))
    | st.lists(st.lists(st.lists(SCALARS, max_size=3), max_size=2), max_size=3) | JSON
    | arrays.arrays(np.complex64, (1, 2, 3)) | arrays.arrays(np.dtype("U2"), (1, 2, 3))
    | arrays.arrays(object, (1, 2, 3))
)  # fmt: skip


@both(NUMBERS, st.none() | st.integers(-2, 5) | st.floats() | st.text(max_size=2))
def test_starts_are_samples_or_one_line_that_names_them(x1, n):
    if x1 is None:
        return
    try:
        made = sample(SOLUTION, n, 2, x1=x1)
    except ValueError as error:
        assert str(error).startswith(("x1 ", "n ")), str(error)
        assert len(str(error).splitlines()) == 1
        return
    wanted = np.asarray(x1, dtype=np.float64)
    assert wanted.shape[1:] == (2, 3)
    assert n is None or n == len(wanted)
    assert torch.isfinite(made.x).all()
    np.testing.assert_allclose(made.x, wanted.astype(np.float32))


# -- records that are torn


@functools.cache
def part(folder: str, rows: int) -> tuple[str, bytes, list[dict[str, Any]]]:
    written = [records.metric_row("fd", index / 7, digest="d", seed=index, attempt=1) for index in range(rows)]
    path = records.write_part(pafs.LocalFileSystem(), folder, f"1-{rows}", written, records.METRICS_SCHEMA)
    with open(path, "rb") as file:  # noqa: PTH123
        return path, file.read(), written


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("parts"))


def read(path: str, data: bytes) -> tuple[list[dict[str, Any]], dict[str, str]]:
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(data)
    table, problems = records.read_parts(pafs.LocalFileSystem(), [path], records.METRICS_SCHEMA)
    assert all(reason and "\n" not in reason for reason in problems.values())
    return table.to_pylist(), problems


def check_torn(folder: str, number: int) -> None:
    @settings(max_examples=number, deadline=None, database=None, derandomize=number == FEW)
    @given(st.sampled_from([1, 40]), st.floats(0, 1, exclude_max=True), st.sampled_from(["cut", "zeros", "others"]))
    @example(1, 0.0, "cut")
    def torn(rows: int, share: float, how: str) -> None:
        path, data, written = part(folder, rows)
        at = int(share * len(data))
        rest = {"cut": b"", "zeros": bytes(len(data) - at), "others": bytes(range(256)) * (len(data) // 256 + 1)}[how]
        found, problems = read(path, data[:at] + rest[: len(data) - at])
        assert (found, list(problems)) in ((written, []), ([], [path]))

    torn()


def test_a_part_that_is_torn_at_any_byte_is_named(folder):
    check_torn(folder, FEW)


@pytest.mark.fuzz
def test_a_part_that_is_torn_at_any_byte_is_named_often(folder):
    check_torn(folder, MANY)


def test_each_byte_of_a_part_of_one_row(folder):
    path, data, written = part(folder, 1)
    assert read(path, data) == (written, {})
    for at in range(0, len(data), 97):
        assert read(path, data[:at])[0] == []


def test_a_hole_in_the_rows_is_no_other_number(folder):
    """Blocks that a disk never wrote are zeros, while the end of the file is right."""
    path, data, written = part(folder, 40)
    footer = int.from_bytes(data[-8:-4], "little") + 8
    for at in range(4, len(data) - footer, 16):
        found, problems = read(path, data[:at] + bytes(16) + data[at + 16 :])
        assert (found, list(problems)) in ((written, []), ([], [path])), at


# -- what a run found

ENTRIES = st.lists(st.fixed_dictionaries({
    "metric": st.sampled_from(["fd", "not_finite_share"]), "sampler": st.sampled_from(["heun", "ddim"]),
    "grid": st.just("g"), "nfe": st.integers(1, 20), "value": st.floats(0) | st.just(math.nan),
}), max_size=8)  # fmt: skip


@both(ENTRIES, st.integers(1, 20), st.none() | st.sampled_from(["heun", "ddim", "unipc"]))
def test_the_best_entry_is_finite_and_the_trials_own(entries, nfe, sampler):
    quality, calls, chosen = objectives({"entries": entries}, "fd", nfe, sampler)
    if math.isnan(quality):
        assert chosen == ""
    else:
        assert math.isfinite(quality)
        there = [e["value"] for e in entries if (e["sampler"], e["nfe"]) == (chosen, calls)]
        assert any(value == pytest.approx(math.exp(quality), rel=1e-9) for value in there)
        assert chosen == sampler or sampler not in {e["sampler"] for e in entries if e["metric"] == "fd"}
    failure, note = not_finite(entries)
    judged = [math.isfinite(e["value"]) for e in entries if e["metric"] == "fd"]
    assert (failure is None and note is None) == all(judged)
    assert failure is None or not any(judged) or len({(e["sampler"], e["nfe"]) for e in entries}) < len(entries)

"""Configurations: round trips, errors in one line, overrides, digests, columns."""

import dataclasses

import pytest

from sbbridge.config import ConfigurationError, columns, digest, dump, override, parse, parse_assignments
from sbbridge.coupling import Simulation
from sbbridge.methods import ASBM, MethodConfig, ScoreMatchingVP
from sbbridge.networks import MLP, Network
from sbbridge.sde import VESDE, VPSDE, BrownianMotion, LinearSDE, Reference
from sbbridge.training import Training

CONFIGURATIONS = [
    (Reference, VPSDE()),
    (Reference, VPSDE(0.2, 8.0, 1.5, "constant")),
    (Reference, BrownianMotion(0.3)),
    (Reference, VESDE(0.02, 20.0)),
    (Reference, LinearSDE(0.5, 0.5)),
    (MethodConfig, ASBM()),
    (MethodConfig, ASBM(coupling="minibatch_ot", damping=0.5, simulation=Simulation("exponential", 3, 1.0))),
    (MethodConfig, ScoreMatchingVP(epochs=3)),
    (Network, MLP(7, 3)),
    (Training, Training(schedule="constant", batch_size=3)),
]


@pytest.mark.parametrize(("type_", "config"), CONFIGURATIONS)
def test_writing_and_reading_gives_the_same_configuration(type_, config):
    data = dump(config)
    assert parse(type_, data) == config
    assert set(data) == {field.name for field in dataclasses.fields(config)}


@pytest.mark.parametrize(("type_", "config"), CONFIGURATIONS)
def test_defaults_may_be_left_out(type_, config):
    kind = {"kind": config.kind} if hasattr(config, "kind") else {}
    assert parse(type_, kind) == type(config)()


@pytest.mark.parametrize(
    ("type_", "data", "message"),
    [
        (
            Reference,
            {"kind": "vp", "beta": 1.0},
            "beta: unknown key (allowed: beta_max, beta_min, kind, schedule, sigma)",
        ),
        (Reference, {"kind": "vp", "beta_max": "4"}, "beta_max: "),
        (Reference, {"kind": "vp", "beta_max": -1.0}, "beta_max must be > 0, got -1.0"),
        (
            Reference,
            {"kind": "vp", "schedule": "cubic"},
            "schedule: Input should be 'linear' or 'constant' (got 'cubic')",
        ),
        (Reference, {"kind": "levy"}, "kind: 'levy' is unknown (allowed: 'vp', 'brownian', 've', 'linear', 'ddpm')"),
        (MethodConfig, {"kind": "asbm", "cycle": 3}, "cycle: unknown key (allowed: adjoint_epochs, "),
        (MethodConfig, {"kind": "asbm", "cycles": 2.5}, "cycles: "),
        (MethodConfig, {"kind": "asbm", "cycles": 0}, "cycles must be >= 1, got 0"),
        (MethodConfig, {"kind": "asbm", "cycles": True}, "cycles: "),
        (
            MethodConfig,
            {"kind": "asbm", "coupling": "ot"},
            "coupling: Input should be 'asbm', 'bridge_matching', 'minibatch_ot', 'minibatch_sinkhorn' or ",
        ),
        (
            MethodConfig,
            {"kind": "asbm", "simulation": {"steps": 3}},
            "simulation.steps: unknown key (allowed: batch_size, num_steps, power, scheme)",
        ),
        (MethodConfig, {"kind": "asbm", "simulation": {"num_steps": 0}}, "num_steps must be >= 1, got 0"),
        (
            MethodConfig,
            {"kind": "asbm", "simulation": {"scheme": "rk4"}},
            "simulation.scheme: Input should be 'exponential_heun', ",
        ),
        (MethodConfig, {"kind": "asbm", "simulation": 3}, "simulation: "),
        (Network, {"kind": "mlp", "width": 0}, "width must be >= 1, got 0"),
        (Training, {"batch_size": "big"}, "batch_size: "),
        (Training, {"lr": 0.1}, "lr: unknown key (allowed: accumulate, batch_size, budget, "),
        (Training, {"learning_rate": None}, "learning_rate: "),
    ],
)
def test_what_cannot_be_used_is_one_line_that_names_field_and_allowed(type_, data, message):
    with pytest.raises(ConfigurationError) as caught:
        parse(type_, data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_integers_are_accepted_for_floats():
    assert parse(Reference, {"kind": "vp", "beta_max": 8}) == VPSDE(beta_max=8.0)


def test_overrides_replace_by_path_and_leave_the_rest():
    tree = {"reference": dump(VPSDE()), "method": dump(ASBM())}
    changed = override(tree, {"reference.beta_max": 8.0, "method.simulation.num_steps": 3})
    assert changed["reference"] == dump(VPSDE(beta_max=8.0))
    assert changed["method"] == dump(ASBM(simulation=Simulation(num_steps=3)))
    assert tree["reference"]["beta_max"] == 4.0, "the original is a copy"


@pytest.mark.parametrize(
    "changes",
    [{"reference.kind": "brownian", "reference.sigma": 0.4}, {"reference.sigma": 0.4, "reference.kind": "brownian"}],
)
def test_a_changed_kind_starts_its_branch_afresh_whatever_the_order(changes):
    changed = override({"reference": dump(VPSDE())}, changes)
    assert parse(Reference, changed["reference"]) == BrownianMotion(0.4)


def test_the_same_kind_keeps_its_branch():
    changed = override({"reference": dump(VPSDE(beta_max=8.0))}, {"reference.kind": "vp"})
    assert changed["reference"]["beta_max"] == 8.0


def test_a_branch_and_values_within_it_change_in_one_call_in_any_order():
    tree = {"method": {"kind": "asbm", "cycles": 3}}
    branch = {"kind": "trained", "network": {"kind": "mlp", "width": 8}}
    changes = {
        "method.denoiser.network.kind": "unet", "method.denoiser": branch, "method.denoiser.network.depth": 2,
        "method.kind": "ldsb", "method.num_steps": 5,
    }  # fmt: skip
    expected = {
        "kind": "ldsb", "num_steps": 5, "denoiser": {"kind": "trained", "network": {"kind": "unet", "depth": 2}},
    }  # fmt: skip
    for ordered in (changes, dict(reversed(changes.items()))):
        assert override(tree, ordered)["method"] == expected
    assert branch == {"kind": "trained", "network": {"kind": "mlp", "width": 8}}, "the caller's stays as it was"


def test_overrides_through_a_leaf_name_the_branches():
    tree = {"reference": dump(VPSDE()), "dataset": "digits"}
    for path in ("refrence.sigma", "dataset.kind", "reference.sigma.x"):
        with pytest.raises(ConfigurationError, match=r"no such branch \(allowed: "):
            override(tree, {path: 1.0})


def test_assignments_are_read_as_yaml_values():
    given = ["reference.beta_max=4", "a=0.5", "b=true", "c=word", "d=[1, 2]", "e=x=y"]
    assert parse_assignments(given) == {
        "reference.beta_max": 4,
        "a": 0.5,
        "b": True,
        "c": "word",
        "d": [1, 2],
        "e": "x=y",
    }


def test_assignments_read_powers_of_ten_as_numbers():
    assert parse_assignments(["a=1e-3", "b=1.0e-3", "c=-2E5"]) == {"a": 1e-3, "b": 1e-3, "c": -2e5}


@pytest.mark.parametrize("text", ["beta_max", "=4", "a=[1,"])
def test_assignments_that_cannot_be_read_are_named(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_assignments([text])
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digests_are_stable_short_and_sensitive():
    """A digest names files of earlier runs: it must never change for an unchanged configuration."""
    assert digest({"b": 1, "a": [1, 2.5]}) == digest({"a": [1, 2.5], "b": 1}) == "12dd02522b41"
    all_digests = [digest(config) for _, config in CONFIGURATIONS]
    assert len(set(all_digests)) == len(all_digests)
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in all_digests)
    assert digest(VPSDE()) == digest(dump(VPSDE())) != digest(VPSDE(beta_max=4.0 + 1e-9))


def test_columns_hold_every_leaf_with_its_type():
    found = columns(MethodConfig)
    assert found["cycles"] == found["simulation.num_steps"] == found["pairs"] == "int64"
    assert found["damping"] == found["simulation.power"] == "double"
    assert found["ema_simulation"] == "bool"
    assert found["kind"] == found["coupling"] == found["simulation.scheme"] == "string"
    assert "simulation" not in found
    for config in (ASBM(), ScoreMatchingVP()):
        flat = {f"{k}.{k2}": v2 for k, v in dump(config).items() if isinstance(v, dict) for k2, v2 in v.items()}
        flat |= {k: v for k, v in dump(config).items() if not isinstance(v, dict) and v is not None}
        assert set(flat) <= set(found)
        names = {int: "int64", float: "double", bool: "bool", str: "string"}
        assert all(names[type(value)] == found[key] for key, value in flat.items())


def test_columns_of_a_choice_are_those_of_all_its_members():
    assert columns(Reference) == {
        "beta_min": "double",
        "beta_max": "double",
        "sigma": "double",
        "schedule": "string",
        "kind": "string",
        "sigma_min": "double",
        "sigma_max": "double",
        "decay": "double",
        "num_steps": "int64",
        "first_beta": "double",
        "last_beta": "double",
    }

"""What every implementation of an interface owes: shapes, types, addresses, determinism, no global state."""

import dataclasses

import pytest
import torch

import sbbridge.coupling
import sbbridge.data
import sbbridge.methods
import sbbridge.problems
import sbbridge.sde
from sbbridge.config import ConfigurationError, dump, parse
from sbbridge.coupling import AbstractCoupling
from sbbridge.data import AbstractDistribution
from sbbridge.methods import Method, MethodConfig, cost
from sbbridge.networks import MLP, RatioTable, averaged
from sbbridge.rng import BLOCK, Stream
from sbbridge.sampling import sample
from sbbridge.sde import AbstractLinearSDE, Reference
from sbbridge.solvers import BACKWARD, FORWARD, Dynamics, integrate, time_grid
from tests.contracts.families import (
    COUPLINGS,
    DISTRIBUTIONS,
    DYNAMICS,
    METHODS,
    PROBLEM,
    REFERENCE_INSTANCES,
    WITH_DENSITY,
    members,
    problem_for,
)

pytestmark = pytest.mark.usefixtures("global_state_untouched")
every_law = pytest.mark.parametrize("law", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
every_reference = pytest.mark.parametrize("reference", REFERENCE_INSTANCES.values(), ids=REFERENCE_INSTANCES.keys())
every_coupling = pytest.mark.parametrize("coupling", COUPLINGS.values(), ids=COUPLINGS.keys())
schemes = [("forward", name, step) for name, step in FORWARD.items()] + [
    ("backward", name, step) for name, step in BACKWARD.items()
]
every_scheme = pytest.mark.parametrize(
    ("way", "name", "step"), schemes, ids=[f"{way} {name}" for way, name, _ in schemes]
)
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
shapes = pytest.mark.parametrize("shape", [(2,), (1,), (1, 3, 3)])


def normal(shape, n=5, dtype=torch.float32, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("interface", "package", "instances"),
    [
        (AbstractLinearSDE, sbbridge.sde, REFERENCE_INSTANCES.values()),
        (AbstractDistribution, sbbridge.data, DISTRIBUTIONS.values()),
        (AbstractDistribution, sbbridge.problems, DISTRIBUTIONS.values()),
        (AbstractCoupling, sbbridge.coupling, COUPLINGS.values()),
        (Method, sbbridge.methods, METHODS.values()),
    ],
)
def test_every_implementation_is_under_contract(interface, package, instances):
    missing = members(interface, package) - {type(instance) for instance in instances}
    assert not missing, f"add instances of {missing} to tests/contracts/families.py"


# -- references


@shapes
@types
@every_reference
def test_references_are_shape_generic_and_keep_types(reference, shape, dtype):
    x, noise = normal(shape, dtype=dtype), normal(shape, dtype=dtype, seed=1)
    for t in (torch.tensor(0.5, dtype=torch.float64), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)):
        for value in (reference.drift(t, x), reference.transition(0.0, t, x, noise), reference.bridge(t, x, -x, noise)):
            assert value.shape == x.shape
            assert value.dtype == dtype
            assert torch.isfinite(value).all()
    flat = reference.bridge(t, x.flatten(1), -x.flatten(1), noise.flatten(1))
    torch.testing.assert_close(reference.bridge(t, x, -x, noise).flatten(1), flat)


@every_reference
def test_references_are_frozen_hashable_configurations(reference):
    assert parse(Reference, dump(reference)) == reference
    assert hash(reference) == hash(dataclasses.replace(reference))
    with pytest.raises(dataclasses.FrozenInstanceError):
        reference.kind = "other"


@every_reference
def test_variances_are_never_negative_and_grow(reference):
    t = torch.linspace(0, 1, 1001)
    variance = reference.variance(0.0, t)
    assert float(variance[0]) == pytest.approx(0.0, abs=1e-15)
    assert (variance.diff() >= 0).all()
    assert (reference.variance(t, 1.0) >= -1e-15).all()
    assert all(torch.isfinite(c).all() for c in reference.bridge_coefficients(t))


# -- distributions


@every_law
def test_draws_are_addressed_by_row(law):
    stream = Stream(0, ("x",))
    whole = law.draw(2, range(2 * BLOCK + 10), stream)
    assert whole.shape == (2 * BLOCK + 10, *law.shape)
    for start, stop in ((0, 1), (BLOCK - 1, BLOCK + 2), (300, 2 * BLOCK + 10)):
        torch.testing.assert_close(law.draw(2, range(start, stop), stream), whole[start:stop], atol=1e-6, rtol=1e-6)
    assert torch.equal(law.draw(2, range(2 * BLOCK + 10), stream), whole)


@every_law
def test_draws_differ_by_step_and_by_stream(law):
    first = law.draw(0, range(50), Stream(0, ("x",)))
    for step, stream in ((1, Stream(0, ("x",))), (0, Stream(1, ("x",))), (0, Stream(0, ("y",)))):
        assert not torch.equal(law.draw(step, range(50), stream), first)


@every_law
def test_samples_have_the_default_type_are_finite_and_seeded(law):
    x = law.sample(40, seed=3)
    assert x.dtype == torch.get_default_dtype()
    assert x.device.type == "cpu"
    assert torch.isfinite(x).all()
    assert torch.equal(x, law.sample(40, seed=3))
    torch.testing.assert_close(law.sample(20, seed=3), x[:20], atol=1e-6, rtol=1e-6)
    assert not torch.equal(x, law.sample(40, seed=4))


@types
@pytest.mark.parametrize("law", WITH_DENSITY.values(), ids=WITH_DENSITY.keys())
def test_scores_have_the_type_and_shape_of_their_states(law, dtype):
    x = normal(law.shape, dtype=dtype)
    assert law.score(x).shape == x.shape
    assert law.score(x).dtype == dtype


# -- couplings


@every_coupling
def test_pairs_are_addressed_by_row(coupling):
    stream, n = Stream(0, ("pairs",)), BLOCK + 100
    whole = coupling.draw(1, range(n), stream)
    assert whole.x0.shape == whole.x1.shape == (n, 2)
    for start, stop in ((0, 3), (BLOCK - 2, BLOCK + 2), (77, n)):
        for part, all_ in zip(coupling.draw(1, range(start, stop), stream), whole, strict=True):
            torch.testing.assert_close(part, all_[start:stop], atol=1e-5, rtol=1e-5)
    other = coupling.draw(2, range(n), stream)
    assert not torch.equal(other.x0, whole.x0)
    assert not torch.equal(other.x1, whole.x1)


# -- schemes


def fields():
    """Linear fields for states of any shape."""
    return Dynamics(PROBLEM.reference, lambda t, x: -0.1 * x, lambda t, x: -0.9 * x, generator=lambda t, x: 0.5 * x)


def interval(way, name):
    """A step in the scheme's direction; a generator knows the whole way only."""
    a, b = (torch.tensor(t, dtype=torch.float64) for t in ((0.0, 1.0) if name == "one_step" else (0.4, 0.5)))
    return (a, b) if way == "forward" else (b, a)


@shapes
@types
@every_scheme
def test_schemes_are_shape_generic_and_keep_types(way, name, step, shape, dtype):
    t, t_next = interval(way, name)
    x, noise = normal(shape, dtype=dtype), normal(shape, dtype=dtype, seed=1)
    one = step(fields(), t, t_next, x, lambda: noise)
    assert one.shape == x.shape
    assert one.dtype == dtype
    assert torch.equal(step(fields(), t, t_next, x, lambda: noise), one)
    flat = step(fields(), t, t_next, x.flatten(1), lambda: noise.flatten(1))
    torch.testing.assert_close(one.flatten(1), flat)


@every_scheme
def test_schemes_leave_their_input_alone(way, name, step):
    t, t_next = interval(way, name)
    x = normal((2,))
    before = x.clone()
    step(fields(), t, t_next, x, lambda: torch.ones_like(x))
    assert torch.equal(x, before)


@every_scheme
def test_a_path_does_not_depend_on_which_paths_run_with_it(way, name, step):
    times = time_grid(1 if name == "one_step" else 4)
    times = times if way == "forward" else times.flip(0)
    dynamics = dataclasses.replace(DYNAMICS, generator=lambda t, x: PROBLEM.backward_score(t, x))
    x, stream = normal((2,), n=600), Stream(0, ("path",))
    whole, _ = integrate(step, dynamics, times, x, range(600), stream)
    part, _ = integrate(step, dynamics, times, x[200:400], range(200, 400), stream)
    torch.testing.assert_close(part, whole[200:400], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(whole).all()


@every_scheme
def test_a_step_of_no_length_changes_nothing(way, name, step):
    if name == "one_step":
        pytest.skip("a generator has no shorter step")
    t = torch.tensor(0.5, dtype=torch.float64)
    x = normal((2,), dtype=torch.float64)
    torch.testing.assert_close(step(fields(), t, t, x, lambda: torch.ones_like(x)), x, atol=1e-7, rtol=1e-7)


# -- methods

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


@every_method
def test_methods_are_frozen_hashable_configurations(method):
    assert parse(MethodConfig, dump(method)) == method
    assert hash(method) == hash(dataclasses.replace(method))
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.kind = "other"


@every_method
def test_a_longer_elastic_stage_costs_more_and_nothing_else_is_free(method):
    if not method.elastic:
        with pytest.raises(ConfigurationError, match=r"training\.budget"):
            cost.within(method, 10**9, 256)
        assert 0 <= method.cost(256) < 10**9
        return
    longer = dataclasses.replace(method, **{method.elastic: 1 + getattr(method, method.elastic)})
    assert 0 < method.cost(256) < longer.cost(256)
    assert isinstance(method.cost(256), int)


@every_method
def test_solutions_of_methods_have_a_sampler_that_runs_on_their_networks(method):
    """Untrained networks suffice to see that parts, solution and default sampler belong together."""
    problem = problem_for(method)
    network = RatioTable() if method.kind == "ldsb" else MLP(width=4, depth=1)
    networks = {name: averaged(module) for name, module in method.modules(problem, network, lambda name: 0).items()}
    solution = method.solution(problem, networks)
    assert solution.method == method.kind
    num_steps = 1 if solution.default_sampler == "one_step" else 3
    made = sample(solution, n=5, num_steps=num_steps)
    assert made.x.shape == (5, 2)
    assert torch.isfinite(made.x).all()

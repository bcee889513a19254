"""What every test gets: one thread, an environment of its own, double precision where formulas are compared."""

import os
from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Threads would change the order of sums, and the machines that run this have two cores."""
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """A study sets variables for the processes that it starts: the next test must not inherit them."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision as the default type, put back afterwards."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def global_state_untouched() -> Iterator[None]:
    """Fails when the test changes torch's or numpy's global random state."""
    import numpy as np

    numpy_state = np.random.get_state
    before, numpy_before = torch.get_rng_state(), numpy_state()[1].copy()
    yield
    assert torch.equal(before, torch.get_rng_state()), "torch's global random state was changed"
    assert (numpy_before == numpy_state()[1]).all(), "numpy's global random state was changed"

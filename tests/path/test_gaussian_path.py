"""x_t = a x0 + b eps: there and back, and its signal-to-noise ratio."""

import pytest
import torch

from sbbridge.path import LINEAR, GaussianPath
from sbbridge.solvers import reference_path
from tests.oracles import REFERENCES, moments

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
def test_the_path_of_a_reference_has_its_transitions_moments(reference):
    path = reference_path(reference)
    for t in (0.2, 0.7, 1.0):
        k, v = moments(reference, 0.0, t)
        x0 = path.at(torch.tensor(t), torch.ones(1, 1), torch.zeros(1, 1))
        eps = path.at(torch.tensor(t), torch.zeros(1, 1), torch.ones(1, 1))
        assert float(x0) == pytest.approx(k, rel=1e-9)
        assert float(eps) == pytest.approx(v**0.5, rel=1e-9)
        assert float(path.log_snr(t).exp()) == pytest.approx(k * k / v, rel=1e-9)


@pytest.mark.parametrize("path", [LINEAR, reference_path(REFERENCES["vp20"])], ids=["linear", "vp20"])
def test_noise_that_was_put_in_is_found_again(path: GaussianPath):
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(4, 1, 2, 2, generator=generator), torch.randn(4, 1, 2, 2, generator=generator)
    t = torch.tensor([0.1, 0.4, 0.8, 1.0])
    torch.testing.assert_close(path.eps(t, path.at(t, x0, eps), x0), eps)


def test_straight_lines_go_from_data_to_noise_and_meet_in_the_middle():
    assert float(LINEAR.log_snr(0.5)) == 0
    assert float(LINEAR.log_snr(0.0)) == float("inf")
    assert float(LINEAR.log_snr(1.0)) == float("-inf")

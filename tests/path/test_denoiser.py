"""What a denoiser says of x = a x0 + b eps, whatever its network predicts."""

import pytest
import torch

from sbbridge.path import LINEAR, Denoiser
from sbbridge.path.denoiser import Prediction

pytestmark = pytest.mark.usefixtures("float64")
T = torch.tensor(0.4, dtype=torch.float64)
PAIRS = [(0.6, 0.4), (0.9, 0.3), (0.05, 0.998), (1.0, 0.01)]
every_prediction = pytest.mark.parametrize("prediction", ["noise", "velocity", "image"])


def normal(seed, shape=(5, 1, 2, 2)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def value_of(prediction: Prediction, x0, eps):
    return {"noise": eps, "velocity": eps - x0, "image": x0}[prediction]


@every_prediction
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_a_network_that_is_right_gives_back_what_x_was_made_of(prediction, a, b):
    x0, eps = normal(0), normal(1)
    denoiser = Denoiser(LINEAR, prediction, lambda t, x: value_of(prediction, x0, eps))
    found = denoiser.estimates(T, a * x0 + b * eps, torch.tensor(a), torch.tensor(b))
    torch.testing.assert_close(found[0], x0)
    torch.testing.assert_close(found[1], eps)


@every_prediction
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_the_estimates_of_any_network_make_x_and_what_it_said(prediction, a, b):
    """The inversion of v and back: also where a + b is not 1."""
    denoiser = Denoiser(LINEAR, prediction, lambda t, x: (x + t).sin())
    x = normal(2)
    image, noise = denoiser.estimates(T, x, torch.tensor(a), torch.tensor(b))
    torch.testing.assert_close(a * image + b * noise, x)
    torch.testing.assert_close(value_of(prediction, image, noise), (x + 0.4).sin())


@every_prediction
def test_a_and_b_may_differ_by_row(prediction):
    denoiser = Denoiser(LINEAR, prediction, lambda t, x: (2 * x).tanh())
    x, a, b = normal(3), torch.linspace(0.2, 0.9, 5), torch.linspace(0.7, 0.1, 5)
    whole = denoiser.estimates(T, x, a, b)
    for row in range(5):
        alone = denoiser.estimates(T, x[row : row + 1], a[row], b[row])
        for one, all_of_them in zip(alone, whole, strict=True):
            torch.testing.assert_close(one[0], all_of_them[row])


def test_the_network_is_told_the_nodes_time_and_not_one_of_a_and_b():
    told = []
    denoiser = Denoiser(LINEAR, "velocity", lambda t, x: told.append(float(t)) or x)
    denoiser.estimates(T, normal(4), torch.tensor(0.9), torch.tensor(0.8))
    assert told == [0.4]


def test_only_a_noise_predictor_needs_an_image_in_x():
    for prediction in ("velocity", "image"):
        Denoiser(LINEAR, prediction, lambda t, x: x).require_image(torch.tensor([0.5, 0.0]))
    noise = Denoiser(LINEAR, "noise", lambda t, x: x)
    noise.require_image(torch.tensor([0.5, 0.1]))
    with pytest.raises(ValueError, match="predicts noise knows no image where a = 0"):
        noise.require_image(torch.tensor([0.5, 0.0]))

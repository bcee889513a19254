"""LDSB's least squares: minimisers by brute force, the null of an exact denoiser, how the forward half must drift."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from sbbridge.methods.denoisers import exact_denoiser
from sbbridge.objectives import path_fit
from sbbridge.objectives.path_fit import InnerProducts
from sbbridge.path import LINEAR, Denoiser, RatioPath, ratio_nodes
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path

pytestmark = pytest.mark.usefixtures("float64")
N = 40_000
STEPS = 5


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- least squares


def states(seed=0, n=30):
    """A target and two correlated regressors, on images."""
    p, noise, rest = (normal(seed + i, n, 1, 3, 3) for i in range(3))
    q = 0.5 * p + noise
    return 0.7 * p - 0.4 * q + rest, p, q


def test_the_joint_solution_is_the_minimiser():
    y, p, q = states()
    wanted = torch.linalg.lstsq(torch.stack([p.flatten(), q.flatten()], 1), y.flatten()).solution
    torch.testing.assert_close(InnerProducts.of(y, p, q).both(), wanted)
    searched = minimize(lambda c: float((y - c[0] * p - c[1] * q).square().sum()), [0.0, 0.0], tol=1e-12).x
    np.testing.assert_allclose(InnerProducts.of(y, p, q).both(), searched, atol=1e-6)


@pytest.mark.parametrize("other", [-0.3, 0.0, 1.7])
def test_each_coefficient_is_the_minimiser_at_any_value_of_the_other(other):
    y, p, q = states(10)
    products, fixed = InnerProducts.of(y, p, q), torch.tensor(other)
    image = minimize_scalar(lambda a: float((y - a * p - other * q).square().sum())).x
    noise = minimize_scalar(lambda b: float((y - other * p - b * q).square().sum())).x
    assert float(products.image(fixed)) == pytest.approx(image, abs=1e-6)
    assert float(products.noise(fixed)) == pytest.approx(noise, abs=1e-6)


def test_images_of_single_precision_are_summed_in_double():
    y, p, q = states(20)
    single = InnerProducts.of(*(part.float() for part in (y, p, q)))
    assert single.values.dtype == torch.float64
    torch.testing.assert_close(single.both(), InnerProducts.of(y, p, q).both(), atol=1e-6, rtol=1e-6)


def test_standard_errors_are_the_spread_of_repeated_draws():
    """Images of unequal noise, so that pixels of one image are no independent draws."""
    found, told = [], []
    for repeat in range(400):
        y, p, q = states(1000 + 10 * repeat, 150)
        y = y + normal(1005 + 10 * repeat, 150, 1, 1, 1) * p
        products = InnerProducts.of(y, p, q)
        found.append(products.both())
        told.append(products.standard_errors(*products.both()))
    spread = torch.stack(found).std(0)
    torch.testing.assert_close(torch.stack(told).mean(0), spread, rtol=0.1, atol=0)
    chosen = torch.randint(150, (400, 150), generator=torch.Generator().manual_seed(0))
    bootstrap = torch.stack([InnerProducts(products.values[rows]).both() for rows in chosen]).std(0)
    torch.testing.assert_close(told[-1], bootstrap, rtol=0.15, atol=0)


# -- a denoiser that knows the very noise


def random_path(nodes, seed):
    ratios = torch.rand(2, len(nodes), generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
    return nodes.compose(*ratios)


@pytest.mark.parametrize("boundary", ["paper", "code", "corrected"])
@pytest.mark.parametrize("family", ["noise", "velocity"])
def test_with_the_true_noise_either_half_returns_the_path_that_it_is_given(family, boundary):
    """(LDSB, Sec. 3: epshat = eps and F = R leave nothing to do.) At any path, also at the training-only node."""
    path = LINEAR if family == "velocity" else reference_path(DDPM())
    grid = "trailing_uniform" if family == "velocity" else "leading_uniform"
    nodes = ratio_nodes(path, grid, STEPS, boundary)
    x0, eps = normal(1, 40, 1, 3, 3) + 0.5, normal(2, 40, 1, 3, 3)
    denoiser = Denoiser(path, family, lambda t, x: eps if family == "noise" else eps - x0)
    for seed in range(3):
        held = random_path(nodes, seed)
        for k in range(STEPS - nodes.start):
            pairs = [(k, path_fit.reverse_products(denoiser, nodes, held, k, x0, eps))]
            pairs += [(k + 1, path_fit.forward_products(denoiser, held, k, x0, eps))] if k + 1 < STEPS else []
            for node, products in pairs:
                a, b = held.image[node], held.noise[node]
                wanted = torch.stack([a, b])
                torch.testing.assert_close(products.both(), wanted, atol=1e-9, rtol=1e-9)
                torch.testing.assert_close(products.image(b), a, atol=1e-9, rtol=1e-9)
                torch.testing.assert_close(products.noise(a), b, atol=1e-9, rtol=1e-9)


# -- an exact denoiser


@dataclass(frozen=True)
class Law:
    """A mixture of isotropic Gaussians in d dimensions: weights, centres on the diagonal, variances."""

    weights: tuple[float, ...]
    centres: tuple[float, ...]
    variances: tuple[float, ...]
    d: int = 1

    def draw(self, n, seed):
        k = torch.multinomial(torch.tensor(self.weights), n, True, generator=torch.Generator().manual_seed(seed))
        scale = torch.tensor(self.variances)[k].sqrt()[:, None]
        return torch.tensor(self.centres)[k][:, None] + scale * normal(seed + 1, n, self.d)

    def denoiser(self, family="vp"):
        means = torch.tensor(self.centres)[:, None].expand(-1, self.d)
        covariances = torch.tensor(self.variances)[:, None, None] * torch.eye(self.d)
        return exact_denoiser(torch.tensor(self.weights), means, covariances, family, DDPM())

    @property
    def square(self):
        """E|x|^2 / d."""
        rows = zip(self.weights, self.centres, self.variances, strict=True)
        return sum(w * (m * m + v) for w, m, v in rows)

    def unknown_noise(self, a, b):
        """E(eps − E[eps | x])^2 of one coordinate of x = a x0 + b eps, by quadrature over x0 and x; d = 1."""
        x0 = np.linspace(-9, 9, 3001)
        p0 = sum(w * np.exp(-((x0 - m) ** 2) / (2 * v)) / v**0.5
                 for w, m, v in zip(self.weights, self.centres, self.variances, strict=True))  # fmt: skip
        x = np.linspace(-9 * a - 7 * b, 9 * a + 7 * b, 1501)
        joint = p0 * np.exp(-((x[:, None] - a * x0) ** 2) / (2 * b * b))
        eps = (joint * (x[:, None] - a * x0) / b).sum(1) / joint.sum(1)
        p = joint.sum(1) / joint.sum()
        return 1 - float(p @ eps**2)


GAUSSIAN, MIXTURE = Law((1.0,), (0.3,), (0.5,)), Law((0.4, 0.6), (-1.2, 0.8), (0.05, 0.2))
every_law = pytest.mark.parametrize("law", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])


def chain_nodes(boundary="corrected"):
    return ratio_nodes(reference_path(DDPM()), "leading_uniform", STEPS, boundary, chain=1000)


def flow_nodes():
    return ratio_nodes(LINEAR, "trailing_uniform", STEPS)


def spread_of(products, estimate, parts=40):
    """Standard errors from estimates on disjoint parts of the images."""
    each = torch.stack([estimate(InnerProducts(part)) for part in products.values.chunk(parts)])
    return each.std(0) / parts**0.5


def assert_within(found, wanted, errors):
    off = ((found - wanted) / errors).abs()
    assert (off < 4).all(), f"{found.tolist()} is {off.tolist()} standard errors off {wanted.tolist()}"


def check_reverse_null(law=MIXTURE, family="vp"):
    """Posterior uncertainty gives the reverse half no signal: every node stays (Gauss and Markov)."""
    nodes = chain_nodes() if family == "vp" else flow_nodes()
    x0, eps, path = law.draw(N, 1), normal(7, N, law.d), nodes.original
    for k in range(STEPS - nodes.start):
        products = path_fit.reverse_products(law.denoiser(family), nodes, path, k, x0, eps)
        a, b = path.image[k], path.noise[k]
        assert_within(products.both(), torch.stack([a, b]), products.standard_errors(a, b))
        alone = torch.stack([products.image(b), products.noise(a)])
        errors = spread_of(products, lambda own, a=a, b=b: torch.stack([own.image(b), own.noise(a)]))
        assert_within(alone, torch.stack([a, b]), errors)
        assert errors[1] < 0.01


def published_forward(products, path, node):
    """b at the present a, then a at the new b."""
    b = products.noise(path.image[node])
    return torch.stack([products.image(b), b])


def check_forward_drift(law=MIXTURE, family="vp"):
    """With V the noise that x leaves unknown, R = b / a at the node, r a step nearer to the data, S = E|x|^2 / d:

    b* = b (1 − (1 − r/R) V), a* = a (S − (R − r) R V + (R − r)^2 V^2) / (S − (R^2 − r^2) V).
    """
    nodes = chain_nodes() if family == "vp" else flow_nodes()
    x0, eps, path, s = law.draw(N, 3), normal(9, N, law.d), nodes.original, law.square
    for node in range(1, STEPS - nodes.start):
        a, b = float(path.image[node]), float(path.noise[node])
        v, big, small = law.unknown_noise(a, b), b / a, float(path.noise[node - 1] / path.image[node - 1])
        step = big - small
        wanted_b = b * (1 - (1 - small / big) * v)
        wanted_a = a * (s - step * big * v + step**2 * v**2) / (s - (big**2 - small**2) * v)
        products = path_fit.forward_products(law.denoiser(family), path, node - 1, x0, eps)
        errors = spread_of(products, partial(published_forward, path=path, node=node))
        assert_within(published_forward(products, path, node), torch.tensor([wanted_a, wanted_b]), errors)
        assert errors[1] < 0.02 * wanted_b


@every_law
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_an_exact_denoiser_leaves_the_reverse_half_nothing_to_do(law, family):
    check_reverse_null(law, family)


@every_law
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_an_exact_denoiser_lets_the_forward_half_drift_by_what_it_does_not_know(law, family):
    check_forward_drift(law, family)


def test_the_gaussians_unknown_noise_is_known():
    for a, b in ((0.9, 0.3), (0.2, 0.98)):
        assert GAUSSIAN.unknown_noise(a, b) == pytest.approx(a * a * 0.5 / (a * a * 0.5 + b * b), rel=1e-6)


def test_the_releases_boundary_alone_pulls_the_signal_of_the_first_node_down():
    """A network that is told t = 1 where x keeps another share of the image is no longer exact."""
    nodes, law = chain_nodes("code"), GAUSSIAN
    x0, eps, path = law.draw(N, 1), normal(7, N, law.d), nodes.original
    products = path_fit.reverse_products(law.denoiser(), nodes, path, STEPS - 1, x0, eps)
    assert float(products.both()[0] / path.image[-1]) < 0.5
    below = path_fit.reverse_products(law.denoiser(), nodes, path, STEPS - 2, x0, eps)
    a, b = path.image[-2], path.noise[-2]
    assert_within(below.both(), torch.stack([a, b]), below.standard_errors(a, b))


def test_a_denoiser_that_is_too_sure_moves_the_reverse_half():
    """epshat scaled by 0.9: the path learns to scale back."""
    nodes, law = chain_nodes(), GAUSSIAN
    exact = law.denoiser()
    damped = Denoiser(exact.path, "noise", lambda t, x: 0.9 * exact.field(t, x))
    products = path_fit.reverse_products(damped, nodes, nodes.original, 1, law.draw(N, 1), normal(7, N, 1))
    assert abs(float(products.both()[1] / nodes.original.noise[1]) - 1) > 0.02


# -- planted mistakes


def swapped_regressors(patch):
    true = InnerProducts.of
    patch.setattr(InnerProducts, "of", staticmethod(lambda y, p, q: true(y, q, p)))


def independent_noise(patch):
    """x_k is made of other noise than x_{k+1}."""
    true = InnerProducts.of
    patch.setattr(InnerProducts, "of", staticmethod(lambda y, p, q: true(y.flip(0), p, q)))


def retimed_denoiser(patch):
    """The network is told the time of x_k instead of that of x_{k+1}."""
    true = path_fit.reverse_products

    def late(denoiser, nodes, forward, k, x0, eps):
        times = torch.cat([forward.times[:1], forward.times[:-1]])
        return true(denoiser, nodes, RatioPath(times, forward.image, forward.noise), k, x0, eps)

    patch.setattr(path_fit, "reverse_products", late)


def estimated_noise(patch):
    """The forward half with the network's noise where the true one belongs: an identity, and no drift."""

    def wrong(denoiser, reverse, k, x0, eps):
        a, b = reverse.image[k + 1], reverse.noise[k + 1]
        x = a * x0 + b * eps
        return InnerProducts.of(x, *denoiser.estimates(reverse.times[k + 1], x, a, b))

    patch.setattr(path_fit, "forward_products", wrong)


@pytest.mark.parametrize(
    ("plant", "check"),
    [
        (swapped_regressors, check_reverse_null), (swapped_regressors, check_forward_drift),
        (independent_noise, check_reverse_null), (independent_noise, check_forward_drift),
        (retimed_denoiser, check_reverse_null), (estimated_noise, check_forward_drift),
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_planted_mistakes_are_noticed(plant, check, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        check()

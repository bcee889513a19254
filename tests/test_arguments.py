"""What the public functions refuse: one line that names the argument and what is allowed, before anything runs."""

import math

import numpy as np
import pytest
import torch

from sbbridge import (
    ASBM,
    DDPM,
    LDSB,
    MLP,
    VESDE,
    VPSDE,
    BridgeProblem,
    BrownianMotion,
    DenoisingProblem,
    FlowMatching,
    GaussianBridge,
    MixtureBridge,
    ScoreMatchingVE,
    ScoreMatchingVP,
    StandardNormal,
    TensorData,
    Training,
    denoiser_of,
    fit,
    round_trip,
    sample,
)
from sbbridge.data import AbstractDistribution, EnergyPrior, Gaussian, ImageData, Toy2D
from sbbridge.methods import Solution
from sbbridge.methods.denoisers import exact_denoiser
from sbbridge.metrics import relative_error
from sbbridge.problems import unit_noise
from sbbridge.rng import Stream
from sbbridge.solvers import Dynamics

SMALL = MLP(width=4, depth=1)
TRAINING = Training(batch_size=16)
DATA = TensorData(torch.randn(300, 2, generator=torch.Generator().manual_seed(0)))
PROBLEM = BridgeProblem(DATA, StandardNormal((2,)), BrownianMotion(sigma=1.0))
METHOD = FlowMatching(epochs=1, pairs=16)


def fitted(method, problem):
    return fit(method, problem, network=SMALL, training=TRAINING)


@pytest.fixture(scope="module")
def flow():
    return fitted(METHOD, PROBLEM)


FIVE = torch.zeros(5, 2)
WHOLE = [2.5, 2.0, 0, -1, True, "3", None, math.nan, [3], np.float64(3)]
BAD_STATES = [
    (torch.zeros(5, 3), r"x1 must have the shape \[n, 2\] with n >= 1, got \[5, 3\]"),
    (torch.zeros(2), r"shape \[n, 2\]"), (torch.zeros(0, 2), "n >= 1"), (torch.zeros(5, 1, 2), r"got \[5, 1, 2\]"),
    (3.0, r"got \[\]"), ("noise", "x1 must be an array of real numbers"), ([[1, 2], [3]], "x1 must be an array"),
    ([[1j, 2]], "complex"), ([[0.0, math.nan]], "x1 holds NaN or infinity in 1 of 1 rows, first row 0"),
    (np.array([["a", "b"]]), "x1 must be an array"), ({1: 2}, "x1 must be an array"),
]  # fmt: skip


class TestSample:
    @pytest.mark.parametrize("value", [v for v in WHOLE if v is not None])
    def test_whole_numbers(self, flow, value):
        for name in ("n", "num_steps", "batch_size"):
            with pytest.raises(ValueError, match=rf"^{name} must be (a whole number )?>= 1, got "):
                sample(flow, **{"n": 4, name: value})

    @pytest.mark.parametrize("value", [1.5, "0", True, None])
    def test_seeds(self, flow, value):
        with pytest.raises(ValueError, match=r"^seed must be a whole number, got "):
            sample(flow, 4, seed=value)

    def test_whole_numbers_of_other_libraries(self, flow):
        assert torch.equal(sample(flow, np.int64(4), torch.tensor(3)).x, sample(flow, 4, 3).x)

    def test_no_number_at_all(self, flow):
        with pytest.raises(ValueError, match=r"^n must be >= 1"):
            sample(flow)

    def test_n_is_that_of_x1(self, flow):
        with pytest.raises(ValueError, match=r"^n must be the number of rows of x1, 5, or be left out; got 10"):
            sample(flow, x1=FIVE, n=10)
        assert len(sample(flow, x1=FIVE, n=5, num_steps=1).x) == 5

    @pytest.mark.parametrize(("x1", "says"), BAD_STATES)
    def test_starts(self, flow, x1, says):
        with pytest.raises(ValueError, match=says):
            sample(flow, x1=x1)

    @pytest.mark.parametrize("x1", [[[0, 1], [2, 3]], np.zeros((2, 2)), torch.zeros(2, 2).half(), ((True, False),)])
    def test_array_likes(self, flow, x1):
        assert sample(flow, x1=x1, num_steps=1).x.dtype == torch.float32

    @pytest.mark.parametrize("value", [2, 1, -0.1, math.nan, math.inf, "0", None, True])
    def test_the_end_time(self, flow, value):
        with pytest.raises(ValueError, match=r"^end_time must be in \[0, 1\), got "):
            sample(flow, 4, end_time=value)

    @pytest.mark.parametrize("value", [2, -0.1, math.nan, "0", None])
    def test_eta(self, flow, value):
        with pytest.raises(ValueError, match=r"^eta (must be|is of ddim and ratio_path,) in"):
            sample(flow, 4, sampler="ddim", eta=value)

    def test_names(self, flow):
        for sampler in ("", "huen", 5):
            with pytest.raises(ValueError, match="unknown sampler"):
                sample(flow, 4, sampler=sampler)
        for grid in ("", "uniform", None):
            with pytest.raises(ValueError, match="unknown grid"):
                sample(flow, 4, grid=grid)
        with pytest.raises(ValueError, match=r"^trajectory must be True or False, got str"):
            sample(flow, 4, trajectory="no")

    def test_something_else_than_a_solution(self):
        with pytest.raises(ValueError, match=r"^solution must be a Solution .* returns, got FlowMatching"):
            sample(METHOD, 4)


class TestTheOthers:
    def test_round_trips(self, flow):
        for t in (0, 1.5, math.nan, "1", None):
            with pytest.raises(ValueError, match=r"^t must be in \(0, 1\], got "):
                round_trip(flow, FIVE, t)
        with pytest.raises(ValueError, match=r"^num_steps must be a whole number >= 1, got 2.5"):
            round_trip(flow, FIVE, 1.0, 2.5)
        with pytest.raises(ValueError, match=r"^x0 must have the shape \[n, 2\]"):
            round_trip(flow, torch.zeros(5, 3), 1.0)
        with pytest.raises(ValueError, match="unknown sampler"):
            round_trip(flow, FIVE, 1.0, 2, sampler="")

    @pytest.mark.parametrize("value", WHOLE)
    def test_couples(self, value):
        gaussian = GaussianBridge(0.0, 1.0, 0.0, 1.0, VPSDE())
        mixture = MixtureBridge([1], [[0.0]], [1.0], VPSDE())
        learned = Solution(gaussian, "asbm", Dynamics(VPSDE(), control=lambda t, x: 0 * x))
        for one in (gaussian, mixture, learned):
            with pytest.raises(ValueError, match=r"^n must be (a whole number )?>= 1, got "):
                one.couple(value)
        with pytest.raises(ValueError, match=r"^n must be (a whole number )?>= 1"):
            gaussian.data.sample(value)
        with pytest.raises(ValueError, match=r"^x1 must have the shape \[n, 1\]"):
            mixture.sample_conditional(torch.zeros(4, 2))

    def test_fields_take_states_of_the_problem(self, flow):
        assert flow.velocity(0.5, [[0, 1]]).shape == (1, 2)
        with pytest.raises(ValueError, match=r"^x must have the shape \[n, 2\]"):
            flow.velocity(0.5, torch.zeros(2, 3))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"method": FlowMatching}, r"^method must be a method .*, got the class FlowMatching: call it"),
            ({"method": "asbm"}, "^method must be a method"), ({"problem": DATA}, "^problem must be a BridgeProblem"),
            ({"seed": 0.5}, "^seed must be a whole number"), ({"seed": None}, "^seed must be"),
            ({"network": MLP}, r"^network must be a network such as MLP\(\), got the class MLP: call it"),
            ({"network": "mlp"}, "^network must be"), ({"training": {"batch_size": 3}}, "^training must be a Training"),
            ({"reporter": print}, "^reporter must be a Reporter"), ({"judge": 3}, "^judge must be a function"),
        ],
    )  # fmt: skip
    def test_fit(self, change, says):
        arguments = {"method": METHOD, "problem": PROBLEM, "network": SMALL, "training": TRAINING} | change
        with pytest.raises(ValueError, match=says):
            fit(arguments.pop("method"), arguments.pop("problem"), **arguments)

    @pytest.mark.parametrize(
        ("parts", "says"),
        [
            ((FIVE, StandardNormal((2,)), VPSDE()), r"^data must be a distribution such as .*, got Tensor"),
            ((DATA, StandardNormal, VPSDE()), "^prior must be .* got the class StandardNormal: call it"),
            ((DATA, StandardNormal((2,)), "vp"), r"^reference must be a reference process such as VPSDE\(\), got str"),
            ((DATA, StandardNormal((3,)), VPSDE()), "they must agree"),
        ],
    )
    def test_problems(self, parts, says):
        with pytest.raises(ValueError, match=says):
            BridgeProblem(*parts)


# -- laws of one's own


class Own(AbstractDistribution):
    """Whatever a test makes of uniform numbers."""

    def __init__(self, make, shape=(2,)):
        self._make, self._shape = make, shape

    @property
    def shape(self):
        return self._shape

    def draw(self, step, rows, stream):
        return self._make(torch.stack([stream.child(c).uniform(step, rows) for c in "ab"], 1))

    def score(self, x):
        return -x.double()


def normal(u):
    return (-2 * u[:, :1].clamp(min=1e-12).log()).sqrt() * torch.stack(
        [(2 * math.pi * u[:, 1]).cos(), (2 * math.pi * u[:, 1]).sin()], 1
    )


class TestLawsOfOnesOwn:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
    def test_draws_of_any_type_are_cast_for_every_method(self, dtype):
        prior = Own(lambda u: normal(u).to(dtype))
        assert prior.sample(4).dtype == prior.score(torch.zeros(4, 2)).dtype == torch.float32
        assert Own(lambda u: u, [2]).sample(3).shape == (3, 2)
        for data, other in ((DATA, prior), (Own(lambda u: u.to(dtype)), StandardNormal((2,)))):
            problem = BridgeProblem(data, other, VPSDE())
            for method in (METHOD, ASBM(cycles=1, corrector_epochs=1, adjoint_epochs=1, new_pairs=16, buffer_size=16,
                                        terminal_samples=16, backward_pairs=16, backward_epochs=1)):  # fmt: skip
                assert sample(fitted(method, problem), 4, 2).x.dtype == torch.float32

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda u: u[:, :1], r"Own.draw must return a tensor of real numbers \[3, 2\], got torch.float64 \[3, 1\]"),
            (lambda u: u[:1], r"got torch.float64 \[1, 2\]"), (lambda u: u.numpy(), "got ndarray"),
            (lambda u: u * 1j, r"got torch.complex128"), (lambda u: None, "got NoneType"),
        ],
    )  # fmt: skip
    def test_draws_that_are_no_states(self, make, says):
        with pytest.raises(ValueError, match=says):
            Own(make).sample(3)

    def test_the_default_type_may_be_another(self, float64):
        assert Toy2D("moons").sample(3).dtype == Own(lambda u: u.float()).sample(3).dtype == torch.float64


# -- where noised data end


VE = VESDE()
MEMORYLESS = VPSDE(beta_max=20.0)
WIDE = VPSDE(beta_max=20.0, sigma=1.5)
SCORES = {"vp": ScoreMatchingVP(epochs=1, pairs=16), "ve": ScoreMatchingVE(epochs=1, pairs=16)}


def scored(reference, prior, data=DATA):
    return fitted(SCORES["ve" if isinstance(reference, VESDE) else "vp"], BridgeProblem(data, prior, reference))


WRONG = {
    "ve, unit": (VE, StandardNormal((2,)), r"scale=50\)"),
    "vp, wide": (MEMORYLESS, StandardNormal((2,), 1.2), r"scale=1\)"),
    "wide, unit": (WIDE, StandardNormal((2,)), r"scale=1.5\)"),
    "ddpm": (DDPM(), StandardNormal((2,), 0.5), r"pass prior=StandardNormal\(\(2,\), scale=1\)"),
    "shifted": (MEMORYLESS, Gaussian([1.0, 0.0], torch.eye(2)), "mean is 1"),
    "tilted": (MEMORYLESS, Gaussian([0.0, 0.0], torch.diag(torch.tensor([1.0, 4.0]))), "deviation 1 to 2"),
    "data": (MEMORYLESS, Toy2D("moons"), "kurtosis"),
    "uniform of the same spread": (MEMORYLESS, Own(lambda u: (2 * u - 1) * 3**0.5), r"kurtosis 1\.8"),
    "own, small": (MEMORYLESS, Own(lambda u: 0.5 * normal(u)), "standard deviation 0.5"),
}  # fmt: skip
RIGHT = {
    "ve": (VE, StandardNormal((2,), 50.0)), "vp": (MEMORYLESS, StandardNormal((2,))),
    "wide": (WIDE, StandardNormal((2,), 1.5)),
    "ddpm": (DDPM(), StandardNormal((2,))), "own": (MEMORYLESS, Own(normal)),
    "gaussian": (MEMORYLESS, Gaussian([0.0, 0.0], torch.eye(2))),
    "tensor": (MEMORYLESS, TensorData(torch.randn(5000, 2, generator=torch.Generator().manual_seed(1)))),
    "large": (MEMORYLESS, StandardNormal((3, 64, 64))),
}  # fmt: skip


class TestWhereNoisedDataEnd:
    @pytest.mark.parametrize(("reference", "prior", "says"), WRONG.values(), ids=WRONG.keys())
    def test_another_prior_is_refused_by_fit_and_by_sample(self, reference, prior, says):
        with pytest.raises(ValueError, match=says):
            scored(reference, prior)
        dynamics = Dynamics(reference, backward_score=lambda t, x: -x)
        made = Solution(BridgeProblem(DATA, prior, reference), "own", dynamics)
        with pytest.raises(ValueError, match=says):
            sample(made, 4, 2)
        assert sample(made, x1=FIVE, num_steps=2).x.shape == (5, 2)  # who brings starts knows where they are

    @pytest.mark.parametrize(("reference", "prior"), RIGHT.values(), ids=RIGHT.keys())
    def test_the_noise_itself_is_taken_however_it_is_written(self, reference, prior):
        problem = BridgeProblem(StandardNormal(prior.shape), prior, reference)
        problem.require_noise("a score")

    def test_what_the_data_leave_in_the_noise_is_no_fault(self):
        """m is 0.05: data of spread 14 are seen at the end."""
        m, tau2 = MEMORYLESS.retained_memory, MEMORYLESS.terminal_variance
        spread = torch.diag(torch.tensor([1600.0, 1.0]))
        exact = GaussianBridge([400.0, 0.0], spread, [400 * m, 0.0], m * m * spread + tau2 * torch.eye(2), MEMORYLESS)
        exact.require_noise("a score")
        with pytest.raises(ValueError, match="where noised data end"):
            BridgeProblem(StandardNormal((2,)), exact.prior, MEMORYLESS).require_noise("a score")

    def test_bridges_keep_their_own_priors(self):
        energy = EnergyPrior(lambda x: x.square().sum(1), (2,), StandardNormal((2,)))
        for prior in (StandardNormal((2,), 3.0), Toy2D("moons"), energy):
            for reference in (VPSDE(), MEMORYLESS):
                assert torch.isfinite(sample(fitted(METHOD, BridgeProblem(DATA, prior, reference)), 4, 2).x).all()

    def test_a_denoiser_knows_the_noise_that_it_was_trained_with(self):
        one = torch.ones(1)
        for family, reference, right, wrong in (("vp", MEMORYLESS, 1.0, 1.5), ("vp", WIDE, 1.5, 1.0),
                                                ("flow", MEMORYLESS, 1.0, 1.5)):  # fmt: skip
            denoiser = exact_denoiser(one, torch.zeros(1, 2), torch.eye(2)[None], family, reference)
            DenoisingProblem(DATA, StandardNormal((2,), right), reference, denoiser)
            with pytest.raises(ValueError, match=rf"a denoiser starts from normal noise .* scale={right:g}"):
                DenoisingProblem(DATA, StandardNormal((2,), wrong), reference, denoiser)
        with pytest.raises(ValueError, match="another noise schedule than reference's"):
            vp = exact_denoiser(one, torch.zeros(1, 2), torch.eye(2)[None], "vp", MEMORYLESS)
            DenoisingProblem(DATA, StandardNormal((2,)), VPSDE(beta_max=14.0), vp)
        with pytest.raises(ValueError, match="denoiser must be a Denoiser"):
            DenoisingProblem(DATA, StandardNormal((2,)), MEMORYLESS, lambda t, x: x)

    def test_a_flow_of_any_prior_is_a_denoiser_of_that(self):
        wide = BridgeProblem(DATA, StandardNormal((2,), 3.0), BrownianMotion(1.0))
        denoiser = denoiser_of(fitted(METHOD, wide))
        problem = DenoisingProblem(wide.data, wide.prior, wide.reference, denoiser)
        assert torch.equal(unit_noise(problem, 0, range(9), Stream(0)), wide.prior.draw(0, range(9), Stream(0)))

    def test_the_noise_of_a_path_is_in_its_own_units(self):
        """With sigma = 1.5, b holds the scale: eps must not hold it again."""
        denoiser = exact_denoiser(torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None], "vp", WIDE)
        problem = DenoisingProblem(DATA, StandardNormal((2,), 1.5), WIDE, denoiser)
        assert float(unit_noise(problem, 0, range(20_000), Stream(0)).std()) == pytest.approx(1.0, abs=0.02)
        unit = DenoisingProblem(DATA, StandardNormal((2,)), MEMORYLESS, exact_denoiser(
            torch.ones(1), torch.zeros(1, 2), torch.eye(2)[None], "vp", MEMORYLESS))  # fmt: skip
        assert torch.equal(unit_noise(unit, 0, range(9), Stream(0)), unit.prior.draw(0, range(9), Stream(0)))
        assert LDSB().kind == "ldsb"


# -- covariances


class TestCovariances:
    @staticmethod
    def rounded(d=64, n=20):
        """Singular, computed in float32."""
        rows = 30 * torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, d)
        return torch.cov(rows.mT)

    @pytest.mark.parametrize("kind", ["torch", "numpy", "scaled up", "scaled down"])
    def test_the_rounding_of_float32_is_no_negative_variance(self, kind):
        found = self.rounded() * {"scaled up": 1e6, "scaled down": 1e-6}.get(kind, 1.0)
        given = found.numpy() if kind == "numpy" else found
        assert float(torch.linalg.eigvalsh(found.double())[0]) < -1e-9 * float(found.abs().max())
        law = Gaussian(torch.zeros(64), given)
        assert relative_error(torch.cov(law.sample(40_000).mT), found) < 0.05
        bridge = GaussianBridge(torch.zeros(64), given, torch.zeros(64), torch.eye(64), VPSDE())
        assert torch.isfinite(bridge.coupling_covariance).all()
        assert torch.isfinite(bridge.couple(16).x0).all()

    def test_the_same_numbers_as_float64_are_held_to_its_precision(self):
        with pytest.raises(ValueError, match="positive semi-definite, its smallest eigenvalue is -"):
            Gaussian(torch.zeros(64), self.rounded().double())
        with pytest.raises(ValueError, match="positive semi-definite"):
            Gaussian([0.0, 0.0], torch.diag(torch.tensor([1.0, -1e-3])))

    @pytest.mark.parametrize(
        ("mean", "covariance", "says"),
        [
            ([0.0, 0.0], np.eye(3), r"mean must be \[d\] and covariance \[d, d\], got \[2\] and \[3, 3\]"),
            ([0.0, 0.0], np.ones((2, 3)), r"covariance must be \[d, d\], got \[2, 3\]"),
            ([0.0, 0.0], [1.0, 1.0], r"covariance must be \[d, d\], got \[2\]"),
            ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], "symmetric"), ([0.0], math.nan, "finite"),
            ([math.inf], 1.0, "finite"),
        ],
    )  # fmt: skip
    def test_what_is_none(self, mean, covariance, says):
        with pytest.raises(ValueError, match=says):
            Gaussian(mean, covariance)

    def test_a_singular_covariance_has_no_score(self):
        for covariance in (self.rounded(), torch.diag(torch.tensor([1.0, 0.0]))):
            with pytest.raises(ValueError, match="singular covariance has no score"):
                Gaussian(torch.zeros(len(covariance)), covariance).score(torch.zeros(1, len(covariance)))
        assert Gaussian([0.0, 0.0], np.diag([1.0, 1e-6])).score(torch.ones(1, 2))[0, 1] == pytest.approx(-1e6)


def test_images_are_cast_too():
    assert ImageData(torch.zeros(3, 1, 2, 2, dtype=torch.float64)).sample(2).dtype == torch.float32

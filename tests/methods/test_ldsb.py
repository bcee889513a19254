"""LDSB: every way of fitting runs and costs what it says; halves move what they may; a point mass leaves them still."""

from dataclasses import replace

import pytest
import torch

from sbbridge.config import ConfigurationError
from sbbridge.coupling import Generation, Workers
from sbbridge.data import StandardNormal
from sbbridge.methods import IPF, LDSB, ExactIPF, NoFit, RandomPaths, TeacherFit, cost, ldsb_stages
from sbbridge.methods.denoisers import ExactDenoiser
from sbbridge.methods.ldsb_halves import Half
from sbbridge.methods.ldsb_stages import PathError
from sbbridge.networks import KAN, MLP, EfficientKAN, RatioMLP
from sbbridge.problems import BridgeProblem, DenoisingProblem
from sbbridge.sampling import sample
from sbbridge.sde import DDPM
from sbbridge.training import Training, fit, solution_of
from tests.methods.denoising import DATA, FITS, SMALL_KAN, TABLE, method, one_point, problem, trainer
from tests.training.recording import Recorder

families = pytest.mark.parametrize("family", ["vp", "flow"])


def trained(chosen, **options):
    run = trainer(chosen, **options)
    run.train()
    return run


THREE = Generation("heun", 3, "trailing_uniform")


def path_of(run):
    return solution_of(run).path


def logits(run):
    return {name: run.networks[name].online.logits.detach().clone() for name in run.networks if name != "path"}


@pytest.mark.parametrize("name", FITS)
@families
def test_every_fit_leaves_a_path_that_samples_in_as_many_calls_as_it_has_nodes(family, name):
    run = trained(method(FITS[name], family))
    solution = solution_of(run)
    path = solution.path
    assert len(path) == 4
    made = sample(solution, 8)
    assert made.nfe == 4
    assert torch.isfinite(made.x).all()
    moved = not torch.allclose(path.log_snr[:3], solution.path_nodes.original.log_snr[:3], atol=5e-6, rtol=1e-6)
    assert moved == (name != "none")
    assert (run.evaluations() > 0) == (name not in ("none", "random"))
    assert (path.momentum is not None) == (name == "teacher, all")


@pytest.mark.parametrize("name", ["ipf, code", "exact, joint", "teacher, all", "random"])
@pytest.mark.parametrize("network", [SMALL_KAN, RatioMLP(hidden=(4,))], ids=["efficient_kan", "ratio_mlp"])
def test_networks_are_fitted_as_tables_are(network, name):
    run = trained(method(FITS[name]), network=network)
    assert torch.isfinite(sample(solution_of(run), 8).x).all()
    assert run.evaluations() > 0


def test_pykan_is_fitted_too():
    for name in ("ipf, code", "teacher"):
        run = trained(method(FITS[name]), network=KAN(grid_size=3, widths=(1, 2, 1)))
        assert torch.isfinite(sample(solution_of(run), 8).x).all()


@families
@pytest.mark.parametrize("boundary", ["paper", "code", "corrected"])
def test_without_a_fit_the_path_is_the_original_but_for_what_a_boundary_forces(family, boundary):
    solution = solution_of(trained(method(NoFit(), family, boundary=boundary)))
    original = solution.path_nodes.original
    forced = 1 if family == "vp" and boundary != "corrected" else 0
    torch.testing.assert_close(solution.path.image[forced:], original.image[forced:], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(solution.path.noise, original.noise, atol=3e-5, rtol=1e-6)
    if forced:
        assert solution.path.image[0] == 1


# -- before the fit


@pytest.mark.parametrize("network", [EfficientKAN(grid_size=8), RatioMLP()], ids=lambda n: n.kind)
def test_networks_learn_the_original_path_first(network):
    recorder = Recorder()
    chosen = method(NoFit(), prefit_steps=300, prefit_learning_rate=0.02, prefit_tolerance=0.02, offset=False)
    run = trained(chosen, reporter=recorder, network=network, checkpoint_seconds=60.0)
    solution = solution_of(run)
    error = torch.stack([solution.path.image - solution.path_nodes.original.image,
                         solution.path.noise - solution.path_nodes.original.noise]).abs().max()  # fmt: skip
    told = {name: value for _, _, values, _ in recorder.told for name, value in values.items()}
    assert told["prefit_error"] == pytest.approx(float(error), abs=1e-4)
    assert error < 0.02


def test_a_path_that_was_not_learned_stops_the_training_in_one_line():
    message = r"learned to 0\.\d+ only, method.prefit_tolerance is 1e-06: more method.prefit_steps may help"
    with pytest.raises(PathError, match=message) as caught:
        trained(method(NoFit(), prefit_tolerance=1e-6, offset=False), network=SMALL_KAN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("network", [SMALL_KAN, RatioMLP(hidden=(4,)), RatioMLP(hidden=(4,), squash=False)])
def test_offsets_make_the_path_of_a_network_exact(network):
    """They are fixed: not among what is trained, and the same for online and averaged weights' path."""
    run = trained(method(NoFit(), prefit_tolerance=1e-5), network=network, ema_decay=0.99)
    solution = solution_of(run)
    torch.testing.assert_close(solution.path.image, solution.path_nodes.original.image, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(solution.path.noise, solution.path_nodes.original.noise, atol=1e-6, rtol=1e-5)
    names = {name for name, _ in run.networks["image"].online.named_parameters()}
    assert "offset" not in names
    assert (run.networks["image"].online.offset != 0).all()


@pytest.mark.parametrize("network", [TABLE, SMALL_KAN], ids=lambda n: n.kind)
@pytest.mark.parametrize("name", FITS)
def test_the_first_candidate_is_the_original_path(name, network):
    seen = []

    def judge(solution, split):
        seen.append(solution)
        return 1.0

    fit(method(FITS[name]), problem(), network=network, training=Training(batch_size=16), judge=judge)
    assert len(seen) == 0 if name == "none" else len(seen) >= 2
    for solution in seen[:1]:
        torch.testing.assert_close(solution.path.log_snr, solution.path_nodes.original.log_snr, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(solution.path.times, solution.path_nodes.times)
    for solution in seen[1:]:
        assert not torch.allclose(solution.path.log_snr, solution.path_nodes.original.log_snr, atol=1e-5)


def test_features_that_are_a_rotation_of_the_image_are_fitted_as_pixels_are():
    """Adam does not care about the scale of a loss; features that see one direction alone find another path."""
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    way = TeacherFit(epochs=4, pairs=64, generation=THREE, order=2)
    featured = replace(way, distance="features")
    pixels, turned, summed = (
        path_of(trained(method(fit_), on=on))
        for fit_, on in ((way, problem()), (featured, problem(weight=turn)), (featured, problem()))
    )
    torch.testing.assert_close(turned.log_snr, pixels.log_snr, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(turned.momentum, pixels.momentum, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(summed.momentum, pixels.momentum, atol=1e-3)


def test_features_are_those_of_the_uncounted_denoiser_at_their_time_over_images(monkeypatch):
    made, true = [], ldsb_stages.FeatureDistance.__init__

    def noted(self, *arguments):
        made.append(arguments)
        true(self, *arguments)

    monkeypatch.setattr(ldsb_stages.FeatureDistance, "__init__", noted)
    on, way = problem(), TeacherFit(1, 32, THREE, distance="features", feature_time=0.7)
    run = trained(method(way), on=on)
    ((denoiser, time, images, autocast),) = made
    assert denoiser is on.denoiser
    assert (time, autocast) == (0.7, run.run.autocast)
    torch.testing.assert_close(images.mean(0), (DATA.weights[:, None] * DATA.means).sum(0).to(images), atol=0.3, rtol=0)
    assert float(images.std(0).min()) > 0.5


@pytest.mark.parametrize("shared", [(), (3, 4)])
def test_the_time_at_which_a_network_is_asked_for_features_matters(shared):
    """Two networks of time, not one layer alone; also where one pair of ratio networks serves two numbers of steps."""
    network = MLP(width=8, depth=1).build((2,), seed=0)
    exact = problem().denoiser
    denoiser = replace(exact, field=lambda t, x: exact.field(t, x) + 0 * network(t, x))
    on = DenoisingProblem(DATA, StandardNormal((2,)), DDPM(), denoiser)
    found = []
    for time in (0.1, 0.6):
        way = TeacherFit(epochs=4, pairs=64, generation=THREE, shared=shared, distance="features", feature_time=time)
        found.append(path_of(trained(method(way), on=on, network=SMALL_KAN)).log_snr)
    assert not torch.allclose(*found, atol=1e-4)


# -- what it costs


@pytest.mark.parametrize(
    ("way", "calls"),
    [
        # a node's products take one call an image; sweeps of 4 nodes, of 3 forward
        (IPF(1, "reverse", "code", epochs=2, batches=3), 2 * 3 * 2 * 4 * 16),
        (IPF(1, "forward", "code", epochs=1, batches=3), 3 * 2 * 3 * 16),
        (IPF(2, "both", "code", epochs=1, batches=1), 2 * 2 * (4 + 3) * 16),
        (IPF(1, "reverse", "paper", epochs=1, batches=3), 3 * 2 * 4 * 16),
        (ExactIPF(1, "reverse", images=50), 4 * 50),
        (ExactIPF(2, "both", images=50), 2 * (4 + 3) * 50),
        (TeacherFit(2, 64, THREE), 5 * 64), (TeacherFit(2, 64, THREE, distance="features"), 5 * 64),
        (RandomPaths(3), 0), (NoFit(), 0),
    ],
)  # fmt: skip
def test_calls_of_the_denoiser_are_counted(way, calls):
    run = trained(method(way))
    assert run.position.simulation == calls
    if isinstance(way, TeacherFit):  # a table is told the original path; features call it for either side
        assert run.position.optimisation == 2 * 64 * (6 if way.distance == "features" else 4)


FORESEEN = {
    **{f"ipf, {mode}, {halves}": IPF(2, halves, mode, epochs=1, batches=2)
       for mode in ("paper", "code", "corrected") for halves in ("both", "reverse", "forward")},
    **{f"exact, {solve}, {halves}": ExactIPF(2, halves, images=50, solve=solve, steps=2)
       for solve in ("joint", "coordinate") for halves in ("both", "reverse", "forward")},
    "teacher": TeacherFit(2, 64, THREE),
    "teacher, an odd number of pairs": TeacherFit(2, 56, THREE),
    "teacher, fewer pairs than a batch": TeacherFit(3, 10, THREE),
    "teacher by Euler's steps": TeacherFit(2, 64, Generation("euler", 3, "trailing_uniform")),
    "teacher, all": TeacherFit(2, 64, THREE, learn_times=True, order=2),
    "teacher, features": TeacherFit(2, 64, THREE, distance="features"),
    "teacher, shared": TeacherFit(2, 64, THREE, shared=(3, 4)),
    "teacher, shared, features": TeacherFit(2, 64, THREE, shared=(2, 4), distance="features"),
    "none": NoFit(), "random": RandomPaths(2, steps=2),
}  # fmt: skip


def denoisers_calls(chosen):
    """Of a whole training; the ratio networks' own, which are a millionth of a U-Net's, are left out."""
    taught = isinstance(chosen.fit, TeacherFit)
    shared = taught and chosen.fit.shared
    run = trained(chosen, network=SMALL_KAN if shared else TABLE)
    own = 2 * chosen.prefit_steps * ldsb_stages.RATE_INPUTS if shared else 0  # a table is told the original path
    return run.position.simulation + (run.position.optimisation - own if taught else 0)


@pytest.mark.parametrize("way", FORESEEN.values(), ids=FORESEEN)
def test_what_a_fit_costs_is_known_before_it_runs(way):
    assert denoisers_calls(method(way)) == method(way).cost(16)


@pytest.mark.parametrize("way", FORESEEN.values(), ids=FORESEEN)
def test_at_a_node_of_noise_alone_halves_ask_for_nothing_so_that_theirs_is_the_most(way):
    """A flow's first node: one in four here."""
    spent, most = denoisers_calls(method(way, "flow")), method(way, "flow").cost(16)
    assert spent <= most
    assert spent == most if not isinstance(way, IPF | ExactIPF) else spent >= most * 2 / 3


# -- halves


def test_a_forward_half_leaves_the_first_node_and_the_held_path():
    for way in (IPF(1, "forward", "paper", 1, 2), IPF(1, "forward", "code", 1, 2), ExactIPF(1, "forward", images=200)):
        start, end = logits(trained(method(NoFit()))), logits(trained(method(way)))
        for name in ("image", "noise"):
            same = torch.isclose(start[name].sigmoid(), end[name].sigmoid(), atol=1e-6, rtol=0).tolist()
            assert same[0], (way, name)
            assert not all(same)
            assert torch.equal(end[f"other_{name}"], start[name]), "forward alone: the other path is the original"


def test_two_halves_move_two_paths():
    """After reverse and forward, `image` is the forward path, held ones are the reverse path's."""
    start = logits(trained(method(NoFit())))
    reverse = logits(trained(method(IPF(1, "reverse", "code", 1, 2))))
    both = logits(trained(method(IPF(1, "both", "code", 1, 2))))
    for name in ("image", "noise"):
        assert torch.equal(both[f"other_{name}"], reverse[name])
        assert float(both[name][0]) == float(start[name][0])
        assert not torch.equal(both[name], start[name])


@pytest.mark.parametrize("direction", ["reverse", "forward"])
@pytest.mark.parametrize("joint", [False, True])
def test_a_half_that_knows_the_noise_wants_the_ratios_that_are_there(direction, joint):
    """At the original path: alpha_k = a_k / a_{k-1}, beta_k = b_k / b_{k+1}, whichever way they are solved."""
    on = one_point()
    nodes = method(NoFit()).nodes(on)
    path = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
    half = Half("any", direction, nodes, on.denoiser, lambda: path)
    eps = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x0 = on.data.sample(64).double()
    for node in half.nodes()["image"]:
        products = half.products(node, x0, eps, Workers(), 64)
        for coefficient, ratio in (("image", nodes.image_ratio), ("noise", nodes.noise_ratio)):
            found = half.ratio(coefficient, node, products, path, joint)
            assert float(found) == pytest.approx(float(ratio[node]), abs=1e-7)


@pytest.mark.parametrize("way", [IPF(1, "reverse", "corrected", 1, 120, 0.12), ExactIPF(1, "reverse", 4000, trust=9.0)])
def test_where_the_first_ratio_is_forced_the_noise_is_fitted_beside_it(way):
    """a_0 = 1 stays: then b_0 is the minimiser at a = 1, not that of a free pair."""
    on = problem("vp", lambda value: 1.2 * value + 0.3)
    run = trained(method(way, boundary="paper", num_steps=2), on=on, ema_decay=0.95, batch_size=256)
    nodes, found = run.method.nodes(on), path_of(run)
    held = nodes.compose(nodes.image_ratio, nodes.noise_ratio)
    half = Half("any", "reverse", nodes, on.denoiser, lambda: held)
    products = half.products(0, on.data.sample(20_000), StandardNormal((2,)).sample(20_000, seed=1), Workers(), 20_000)
    assert float(found.image[0]) == 1
    wanted = float(products.noise(torch.ones(())))
    assert abs(wanted / float(products.both()[1]) - 1) > 0.05, "the two differ here"
    assert float(found.noise[0]) == pytest.approx(wanted, rel=0.03)


# -- the published dead zone


def test_the_releases_dead_zone_leaves_a_fitted_path_alone():
    start = logits(trained(method(NoFit()), on=one_point()))
    still = logits(trained(method(IPF(1, "both", "code", 1, 3)), on=one_point()))
    moved = logits(trained(method(IPF(1, "reverse", "paper", 1, 3)), on=one_point()))
    for name in ("image", "noise"):
        assert torch.equal(still[name], start[name])
        assert not torch.equal(moved[name], start[name]), "Adam moves by rounding errors"


def test_outside_of_the_dead_zone_every_node_moves(monkeypatch):
    start = logits(trained(method(NoFit()), on=one_point(0.3)))
    way = method(IPF(1, "reverse", "code", 1, 3))
    moved = logits(trained(way, on=one_point(0.3)))
    for name in ("image", "noise"):
        assert (moved[name][1:] != start[name][1:]).all()
    monkeypatch.setattr(ldsb_stages, "DEAD_ZONE", 10.0)
    still = logits(trained(way, on=one_point(0.3)))
    assert all(torch.equal(still[name], start[name]) for name in ("image", "noise"))


# -- what cannot be


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LDSB(num_steps=1), "num_steps must be >= 2, got 1"),
        (lambda: LDSB(prefit_steps=0), "prefit_steps must be >= 1, got 0"),
        (lambda: LDSB(prefit_tolerance=0.0), "prefit_tolerance must be > 0, got 0"),
        (lambda: LDSB(prefit_learning_rate=float("inf")), "prefit_learning_rate must be finite"),
        (lambda: IPF(epochs=0), "epochs must be >= 1, got 0"),
        (lambda: IPF(learning_rate=0.0), "learning_rate must be > 0, got 0"),
        (lambda: ExactIPF(damping=0.0), r"damping must be in \(0, 1\], got 0"),
        (lambda: ExactIPF(trust=-1.0), "trust must be > 0, got -1"),
        (lambda: TeacherFit(order=3), r"order must be in|order must be 1 or 2, got 3"),
        (lambda: TeacherFit(feature_time=0.0), r"feature_time must be in \(0, 1\), got 0"),
        (lambda: LDSB(fit=TeacherFit(distance="features"), denoiser=ExactDenoiser()), "must be trained or published"),
        (lambda: TeacherFit(shared=(5, 5)), r"shared must be different numbers of steps >= 2, got \[5, 5\]"),
        (lambda: TeacherFit(shared=(1, 5)), r"shared must be different numbers of steps >= 2, got \[1, 5\]"),
        (lambda: TeacherFit(shared=(5, 10), order=2), "shared networks say rates alone: order must be 1"),
        (lambda: TeacherFit(shared=(5,), learn_times=True), "learn_times false, which belong to one number"),
        (lambda: TeacherFit(generation=Generation("exponential", 3)), "generation.scheme must be one of heun, euler"),
        (lambda: RandomPaths(candidates=0), "candidates must be >= 1, got 0"),
        (lambda: RandomPaths(scale=0.0), "scale must be > 0, got 0"),
    ],
)
def test_impossible_options_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_problems_that_do_not_fit_are_refused_in_one_line():
    plain = BridgeProblem(DATA, StandardNormal((2,)), DDPM())
    with pytest.raises(TypeError, match="ldsb needs a denoiser: give it a DenoisingProblem"):
        trainer(method(NoFit()), on=plain).train()
    flow = problem("flow")
    flow.denoiser = replace(flow.denoiser, prediction="noise")
    with pytest.raises(ValueError, match="predicts noise knows no image where a = 0"):
        trained(method(NoFit(), "flow"), on=flow)
    with pytest.raises(ConfigurationError, match=r"training.budget: ldsb trains scalars"):
        cost.within(method(NoFit()), 10**6, 16)
    assert method(NoFit()).parts(plain) == {}

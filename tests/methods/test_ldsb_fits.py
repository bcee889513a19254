"""What LDSB's fits find: the closed-form half, the drift of exact denoisers, and a teacher's end points."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from sbbridge.coupling import Generation
from sbbridge.methods import IPF, ExactIPF, NoFit, RandomPaths, TeacherFit
from sbbridge.methods.ldsb_stages import Fitting, PathError
from sbbridge.networks import KAN
from sbbridge.sampling import sample
from sbbridge.training import Training, fit, solution_of
from tests.methods.denoising import FITS, SMALL_KAN, TABLE, method, problem, trainer
from tests.training.recording import Recorder

STEPS = 4


def solved(way, family="vp", on=None, seed=0, batch_size=128, **options):
    training = Training(batch_size=batch_size, ema_decay=options.pop("ema_decay", 0.0))
    chosen = method(way, family, **options)
    return fit(chosen, on or problem(family), seed=seed, network=TABLE, training=training)


def changes(solution):
    """Of log a and log b, away from forced ends."""
    original, path = solution.path_nodes.original, solution.path
    free = len(path) - solution.path_nodes.start
    return (path.image / original.image).log()[:free], (path.noise / original.noise).log()[:free]


# -- published halves


def turns(monkeypatch, chosen):
    """{half: [(coefficient, node, the batch's noise)]}, in the order in which ratios are fitted."""
    seen, true = {}, Fitting._target

    def target(self, half, mode, coefficient, batch, draw):
        seen.setdefault(half.name, []).append((coefficient, int(batch["node"][0]), batch["eps"], batch["x0"]))
        return true(self, half, mode, coefficient, batch, draw)

    monkeypatch.setattr(Fitting, "_target", target)
    trainer(chosen).train()
    return seen


def order(found):
    return [(coefficient, node) for coefficient, node, _, _ in found]


def test_the_release_sweeps_the_noise_and_then_the_image_each_with_its_own_draw(monkeypatch):
    """From the start of the path to the data; alpha_0 is trained although it is forced; node 0 stays going forward."""
    found = turns(monkeypatch, method(IPF(1, "both", "code", 1, 2), boundary="code"))
    for name, nodes in (("reverse 1", (3, 2, 1, 0)), ("forward 1", (3, 2, 1))):
        batch = [("noise", k) for k in nodes] + [("image", k) for k in nodes]
        assert order(found[name]) == 2 * batch
        first, second = found[name][: len(nodes)], found[name][len(nodes) : 2 * len(nodes)]
        later = found[name][2 * len(nodes)]
        assert all(torch.equal(turn[2], first[0][2]) for turn in first)
        assert all(torch.equal(turn[2], second[0][2]) for turn in second)
        assert not torch.equal(first[0][2], second[0][2])
        assert torch.equal(first[0][3], second[0][3]), "of the same images"
        assert not torch.equal(later[2], first[0][2])
        assert not torch.equal(later[3], first[0][3])
    assert not torch.equal(found["reverse 1"][0][2], found["forward 1"][0][2])


@pytest.mark.parametrize("mode", ["paper", "corrected"])
def test_the_papers_sweep_is_one_and_leaves_what_is_forced(mode, monkeypatch):
    found = turns(monkeypatch, method(IPF(1, "both", mode, 1, 1), boundary="paper"))
    both = [turn for k in (3, 2, 1) for turn in (("image", k), ("noise", k))]
    assert order(found["reverse 1"]) == [*both, ("noise", 0)]
    assert order(found["forward 1"]) == both
    assert all(torch.equal(turn[2], found["reverse 1"][0][2]) for turn in found["reverse 1"])


def test_the_start_of_a_flow_has_no_turn(monkeypatch):
    found = turns(monkeypatch, method(IPF(1, "both", "code", 1, 1), "flow"))
    assert order(found["reverse 1"]) == [(c, k) for c in ("noise", "image") for k in (2, 1, 0)]
    assert order(found["forward 1"]) == [(c, k) for c in ("noise", "image") for k in (2, 1)]


# -- halves in closed form


def test_the_exact_half_is_where_many_published_steps_lead():
    """Of a denoiser that says too little noise; the original path is far from either."""
    on = problem("vp", lambda value: 1.15 * value + 0.1)
    for half in ("reverse", "forward"):
        exact = solved(ExactIPF(1, half, images=20_000, trust=9.0), on=on)
        steps = solved(IPF(1, half, "corrected", 1, 90, 0.06), on=on, batch_size=256, ema_decay=0.96)
        for one, other, far in zip(changes(exact), changes(steps), (0.1, 0.3), strict=True):
            assert one.abs().max() > far
            torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("solve", ["joint", "coordinate"])
@pytest.mark.parametrize("family", ["vp", "flow"])
def test_a_reverse_half_of_an_exact_denoiser_stays_within_its_standard_errors(family, solve):
    recorder = Recorder()
    run = trainer(method(ExactIPF(1, "reverse", images=20_000, solve=solve), family), recorder)
    run.train()
    found = recorder.kept["spectrum"]
    for name, change in zip(("image", "noise"), changes(solution_of(run)), strict=True):
        errors = found[f"reverse 1/{name}_standard_error"][: len(change)]
        assert (errors > 0).all()
        assert (change.abs() < 4 * errors + 1e-6).all()
        assert errors[1:].max() < 0.2
        told = [values for _, _, values, _ in recorder.told if f"largest_{name}_standard_error" in values]
        assert told[-1][f"largest_{name}_standard_error"] == pytest.approx(float(errors.max()))


@pytest.mark.parametrize("family", ["vp", "flow"])
def test_a_forward_half_of_an_exact_denoiser_drifts_to_less_noise_and_more_image(family):
    image, noise = changes(solved(ExactIPF(1, "forward", images=5000, trust=9.0), family))
    assert (noise < -0.003).all()
    assert (image[1:] > 0.02).all()
    assert float(image[0]) == pytest.approx(0.0, abs=1e-5)


def test_damping_goes_part_of_the_way_and_trust_bounds_it():
    far = {"images": 2000, "trust": 9.0}
    whole, half = (changes(solved(ExactIPF(1, "forward", damping=share, **far))) for share in (1.0, 0.5))
    for one, other in zip(whole, half, strict=True):
        torch.testing.assert_close(other, one / 2, atol=1e-4, rtol=1e-4)
    near = changes(solved(ExactIPF(1, "forward", images=2000, trust=0.05)))
    for one, other in zip(whole, near, strict=True):
        assert other[1:].abs().max() <= 0.05 + 1e-4
        torch.testing.assert_close(other[1:], one[1:].clamp(-0.05, 0.05), atol=1e-4, rtol=0)


def test_what_least_squares_wants_below_zero_goes_as_far_as_trusted():
    """This denoiser turns noise around."""
    image, noise = changes(solved(ExactIPF(1, "reverse", images=2000, trust=0.3), on=problem("vp", torch.neg)))
    assert torch.isfinite(image).all()
    assert torch.isfinite(noise).all()
    assert float(torch.stack([image, noise]).abs().max()) <= 0.3 + 1e-4


def test_more_iterations_go_on_where_the_last_ended():
    one, two = (changes(solved(ExactIPF(n, "both", images=1000)))[1] for n in (1, 2))
    assert (two[1:] < one[1:]).any()
    once, twice = (changes(solved(ExactIPF(n, "reverse", images=1000)))[1] for n in (1, 2))
    assert not torch.equal(once, twice), "other images"
    assert twice[1:].abs().max() < 0.05, "the other path stays the original"


# -- random paths


def test_random_paths_are_changes_of_the_ratios_of_the_given_size():
    seen = []

    def judge(solution, split):
        seen.append(solution)
        return 1.0 if len(seen) == 3 else 2.0

    chosen = method(RandomPaths(candidates=40, scale=0.2), num_steps=8)
    best = fit(chosen, problem(), network=TABLE, training=Training(batch_size=16), judge=judge)
    assert len(seen) == 41
    torch.testing.assert_close(best.path.image, seen[2].path.image)
    nodes = seen[0].path_nodes
    moved = torch.stack([s.path.image_ratio[1:] / nodes.image_ratio[1:] for s in seen[1:]]).log()
    small = moved[:, nodes.image_ratio[1:] < 0.6]  # no ratio becomes larger than 1
    assert float(small.std()) == pytest.approx(0.2, rel=0.15)
    assert float(small.mean()) == pytest.approx(0.0, abs=0.05)
    assert len({round(float(s.path.image[-1]), 9) for s in seen}) == 41


def test_another_seed_tries_other_paths():
    paths = [solved(RandomPaths(candidates=1), seed=seed).path.image for seed in (0, 0, 1)]
    assert torch.equal(paths[0], paths[1])
    assert not torch.allclose(paths[0], paths[2], atol=1e-4)


# -- a teacher

GENERATION = Generation("heun", 30, "trailing_quadratic")


def teacher(**options):
    return TeacherFit(**({"epochs": 10, "pairs": 768, "generation": GENERATION, "learning_rate": 0.02} | options))


@cache
def against_teacher(family, grid, order=None, learn_times=False):
    """Root mean square distance of the N-step sampler's ends from the flow's, on noise that no fit has seen."""
    way = NoFit() if order is None else teacher(order=order, learn_times=learn_times)
    solution = solved(way, family, grid=grid)
    ends = sample(solution, 2000, 100, sampler="heun", grid="trailing_quadratic", seed=77).x
    return solution, float((sample(solution, 2000, seed=77).x - ends).square().mean().sqrt())


CASES = [("vp", "leading_uniform"), ("flow", "trailing_uniform")]


@pytest.mark.parametrize(("family", "grid"), CASES)
def test_a_teacher_brings_the_ends_nearer_on_noise_that_it_did_not_show(family, grid):
    original, fitted, second, times = (
        against_teacher(family, grid, *options)[1] for options in ((None,), (1,), (2,), (2, True))
    )
    assert fitted < 0.85 * original
    assert second < 1.01 * fitted
    assert times < 1.01 * fitted


@pytest.mark.parametrize(("family", "grid"), CASES)
def test_learned_times_rise_within_the_unit_interval_and_the_start_stays(family, grid):
    solution, _ = against_teacher(family, grid, 2, True)
    times, original = solution.path.times, solution.path_nodes.times
    assert ((times > 0) & (times <= 1)).all()
    assert (times.diff() > 0).all()
    assert not torch.allclose(times[:-1], original[:-1], atol=1e-3)
    assert (float(times[-1]) == 1.0) == (family == "flow")
    assert len(solution.path.momentum) == STEPS - 1
    fixed, _ = against_teacher(family, grid, 1)
    assert torch.equal(fixed.path.times, original)
    assert fixed.path.momentum is None


def test_large_learning_rates_leave_a_path_all_the_same():
    for family in ("vp", "flow"):
        solution = solved(teacher(epochs=3, pairs=128, learning_rate=3.0, learn_times=True, order=2), family)
        path = solution.path.checked()
        assert path.times[-1] <= 1
        assert (path.times > 0).all()


def test_a_teacher_teaches_the_denoiser_that_it_is_and_no_other():
    """At the end points of the flow of this very denoiser a path of many nodes has nothing to learn."""
    chosen = method(teacher(epochs=1, pairs=256, learning_rate=1e-9), num_steps=200, grid="trailing_uniform")
    recorder = Recorder()
    run = trainer(chosen, recorder, on=problem("vp"), batch_size=256)
    run.train()
    (loss,) = (values["loss"] for stage, _, values, _ in recorder.told if stage == "teacher" and "loss" in values)
    (coarse,) = (
        values["loss"] for stage, _, values, _ in told_by(method(teacher(epochs=1, pairs=256, learning_rate=1e-9)))
        if stage == "teacher" and "loss" in values
    )  # fmt: skip
    assert loss < 0.02 * coarse


def told_by(chosen):
    recorder = Recorder()
    trainer(chosen, recorder, batch_size=256).train()
    return recorder.told


def test_ends_that_the_flow_lost_far_away_count_little():
    """Twice the data's root mean square counts whole; beyond, the square of an end that is lost does not grow."""
    on, run = problem(), trainer(method(teacher()))
    objective = Fitting(run.run, on, run.method.nodes(on)).teacher(teacher()).objective
    size = float(on.data.sample(50_000).square().mean().sqrt())
    ends = size * torch.tensor([[1.0, 1.0], [1.8, 1.8], [10.0, 10.0], [1e4, 0.0]])
    weight = objective({"x0": ends, "x1": torch.zeros(4, 2)}, None).weight
    assert weight[:2].tolist() == [1.0, 1.0]
    assert float(weight[2] * ends[2].square().mean()) < 0.2 * size**2
    assert float(weight[3] * ends[3].square().mean()) < 1e-5


def test_the_denoiser_is_not_trained():
    run = trainer(method(FITS["teacher, all"]))
    names = {name for name, _ in run.networks["path"].online.named_parameters()}
    assert names == {"image.logits", "noise.logits", "time_logits", "momentum"}


@pytest.mark.parametrize("way", [NoFit(), ExactIPF(images=32, steps=2), IPF(iterations=1, epochs=1, batches=1)])
def test_a_denoiser_that_is_not_finite_is_refused_before_anything_is_fitted_to_it(way):
    sick = problem("vp")
    true = sick.denoiser.field
    sick.denoiser = replace(sick.denoiser, field=lambda t, x: torch.where(t > 0.6, torch.nan, true(t, x)))
    with pytest.raises(PathError, match=r"the denoiser.s value at t = 0\.[67]\d* is not finite"):
        solved(way, on=sick)


def test_a_path_is_fitted_by_a_kan_of_twice_as_many_intervals_as_nodes_where_nothing_is_said():
    assert method(NoFit(), num_steps=7).default_network == KAN(grid_size=14)
    found = fit(method(NoFit(), prefit_steps=300), problem("vp"))
    assert len(found.path) == 4


@pytest.mark.parametrize("clip", [1e-4, 1.0, 0.0])
def test_gradients_of_half_iterations_are_clipped_as_in_the_release_and_those_of_the_prefit_are_not(clip, monkeypatch):
    asked, true = [], torch.nn.utils.clip_grad_norm_

    def spy(parameters, norm):
        parameters = list(parameters)
        asked.append(norm)
        result = true(parameters, norm)
        assert sum(float(p.grad.square().sum()) for p in parameters) ** 0.5 <= norm * (1 + 1e-4)
        return result

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spy)
    trainer(method(IPF(iterations=1, epochs=1, batches=2, gradient_clip=clip)), Recorder(), network=SMALL_KAN).train()
    assert set(asked) == ({clip} if clip else set())
    # two batches of both halves: four nodes and two networks, forward but three
    assert len(asked) == (2 * (8 + 6) if clip else 0)

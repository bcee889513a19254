"""What does a path of its own buy a denoiser at few network calls, and which way of fitting it should one use?"""

import sys
from collections.abc import Mapping
from typing import Any

from sbbridge.study.cli import main
from sbbridge.study.definition import Arm, Definition, Factor, Preset
from studies.asbm_sweep import write_report

NFE = (3, 4, 5, 6, 8, 10, 15, 20, 50)
PATH = {
    "reference.kind": "ddpm", "method.kind": "ldsb",
    "network.kind": "efficient_kan", "network.grid_size": 20, "method.num_steps": 10, "training.batch_size": 128,
    "training.ema_decay": 0.0, "training.schedule": "constant",
}  # fmt: skip
EVALUATION = {
    "evaluation.nfe": list(NFE), "evaluation.samplers": ["ratio_path", "ddim", "heun", "dpm_solver_pp", "unipc"],
    "evaluation.grids": ["leading_uniform", "trailing_uniform", "trailing_quadratic"], "evaluation.draws": 3,
}  # fmt: skip


def denoiser(width: int, depth: int, **training: Any) -> dict[str, Any]:
    """A score matched on the chain of DDPM."""
    return {
        "kind": "trained", "method": {"kind": "score_matching_vp", "pairs": 16384},
        "network": {"kind": "mlp", "width": width, "depth": depth}, "training": {"batch_size": 256, **training},
    }  # fmt: skip


SMALL = denoiser(192, 2, ema_decay=0.999, budget=3_000_000, precision="bfloat16")
BRIEF = denoiser(192, 2, ema_decay=0.999, budget=600_000, precision="bfloat16")
LARGE = denoiser(256, 3, ema_decay=0.999, budget=6_000_000, precision="bfloat16")
FLOW = {"method.denoiser.method": {"kind": "flow_matching", "pairs": 16384}, "method.grid": "trailing_uniform"}
# the two papers together: a flow learned on the pairs that ASBM couples
ASBM_FLOW = {
    "reference.kind": "vp", "reference.beta_max": 4.0, "method.grid": "trailing_uniform",
    "method.denoiser.method": {
        "kind": "asbm", "student": "flow", "cycles": 4, "corrector_epochs": 3, "adjoint_epochs": 4, "new_pairs": 2048,
        "buffer_size": 8192, "backward_pairs": 16384, "reuse": 16, "terminal_samples": 8192,
        "simulation": {"scheme": "exponential_heun", "num_steps": 4},
    },
}  # fmt: skip
TRAINED: Mapping[str, Mapping[str, Any]] = {"DDIM": {}, "flow": FLOW, "ASBM flow": ASBM_FLOW}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    **TRAINED, "exact DDIM": {},
    "exact flow": {"method.denoiser.family": "flow", "method.grid": "trailing_uniform"},
    # the file that the user has tells whether it is a score or a flow
    "published denoiser": {},
}  # fmt: skip
TABLE = {"network.kind": "table"}
BEST_GRID = {"method.grid": "trailing_quadratic"}

PUBLISHED = {"method.fit.kind": "ipf", "method.boundary": "code"}

WAYS: Mapping[str, Mapping[str, Any]] = {
    "original": {"method.fit.kind": "none", **TABLE},
    "original, quadratic": {"method.fit.kind": "none", **BEST_GRID, **TABLE},
    "LDSB": PUBLISHED,
    "ipf exact": {"method.fit.kind": "ipf_exact", **TABLE},
    "teacher": {"method.fit.kind": "teacher", **TABLE},
    "teacher, quadratic": {"method.fit.kind": "teacher", **BEST_GRID, **TABLE},
    "teacher, times": {"method.fit.kind": "teacher", "method.fit.learn_times": True, **BEST_GRID, **TABLE},
    "teacher, times, features": {
        "method.fit.kind": "teacher", "method.fit.learn_times": True, "method.fit.distance": "features", **BEST_GRID,
        **TABLE,
    },
    "teacher, order 2": {"method.fit.kind": "teacher", "method.fit.order": 2, **BEST_GRID, **TABLE},
    "teacher, order 2, times": {
        "method.fit.kind": "teacher", "method.fit.order": 2, "method.fit.learn_times": True, **BEST_GRID, **TABLE,
    },
}  # fmt: skip
"""LDSB without a further word is the published procedure; the others ask what the same subspace can do, and more."""

NEAREST: Mapping[str, Mapping[str, Any]] = {
    "teacher, order 2, times, nearest": {**WAYS["teacher, order 2, times"], "method.select": "teacher"},
}
"""Of the fit's candidates the nearest to the teacher in place of the best by the metric: at 3 calls these differ."""
CALLS = {name: WAYS[name] for name in ("original", "original, quadratic", "LDSB", "teacher, order 2, times")} | NEAREST

TAUGHT_KAN = {"method.fit.kind": "teacher", "method.fit.learning_rate": 5e-3}
ONE_FOR_ALL: Mapping[str, Mapping[str, Any]] = {
    "original": WAYS["original"], "teacher": WAYS["teacher"], "teacher, KAN": TAUGHT_KAN,
    "teacher, one KAN for 5 and 10": {**TAUGHT_KAN, "method.fit.shared": [5, 10], "network.grid_size": 20},
}  # fmt: skip
"""One network that says rates of time, fitted to two numbers of steps at once and asked for a third, too."""

KAN_SIZES: Mapping[str, Mapping[str, Any]] = {
    "LDSB": PUBLISHED,
    **{
        f"{name}, G = {size}": {**way, "network.grid_size": size}
        for name, way in (("teacher, KAN", TAUGHT_KAN), ("LDSB", PUBLISHED)) for size in (5, 10, 40)
    },
}  # fmt: skip
"""Beside the published G = 2 N: half as many intervals as nodes at N = 10, as many, four times as many."""

TOGETHER = {name: WAYS[name] for name in ("original", "LDSB", "teacher", "teacher, order 2, times")}
NOISY: Mapping[str, Mapping[str, Any]] = {
    name if eta == 0 else f"{name}, eta {eta}": {**WAYS[name], "evaluation.eta": eta}
    for name in ("original, quadratic", "teacher, order 2, times") for eta in (0.0, 0.3, 1.0)
}  # fmt: skip
"""A share of the noise drawn anew at every step of one and the same path."""
FEATURE_FITS: Mapping[str, Mapping[str, Any]] = {
    **{name: WAYS[name] for name in ("teacher, times", "teacher, times, features")},
    **{
        f"{name}, features": {**WAYS[name], "method.fit.distance": "features"}
        for name in ("teacher", "teacher, order 2, times")
    },
}  # fmt: skip
"""Near to the teacher as the denoiser's own layers see it, in place of pixel by pixel."""
CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "LDSB, reverse only": {**PUBLISHED, "method.fit.halves": "reverse"},
    "LDSB, forward only": {**PUBLISHED, "method.fit.halves": "forward"},
    **{
        f"best of 20 random paths{said}": {
            "method.fit.kind": "random", "method.fit.candidates": 20, "method.fit.scale": scale, **TABLE,
        }
        for said, scale in ((", scale 0.03", 0.03), ("", 0.1), (", scale 0.3", 0.3))
    },
}
# the same controls in seconds: halves in closed form, half as many paths
QUICK_CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "ipf exact, reverse only": {**WAYS["ipf exact"], "method.fit.halves": "reverse"},
    "ipf exact, forward only": {**WAYS["ipf exact"], "method.fit.halves": "forward"},
    "best of 10 random paths": {"method.fit.kind": "random", "method.fit.candidates": 10, **TABLE},
}
LEADING: Mapping[str, Mapping[str, Any]] = {
    f"{name}, leading": {**WAYS[name], "method.grid": "leading_quadratic"}
    for name in ("original, quadratic", "teacher, times", "teacher, times, features", "teacher, order 2, times")
}
"""For DDIM: the first node before t = 1, which learned times cannot leave, and where noise tells least of the image."""
# formulas have no layers whose features could be compared
NULL_WAYS = {
    name: way for name, way in WAYS.items()
    if name == "original, quadratic" or not ("quadratic" in name or "features" in name)
}  # fmt: skip
PARAMETERISATIONS: Mapping[str, Mapping[str, Any]] = {
    "teacher, KAN": TAUGHT_KAN,
    "teacher, KAN of pykan": {**TAUGHT_KAN, "network.kind": "kan"},
    "LDSB, KAN of pykan": {**PUBLISHED, "network.kind": "kan"},
    "teacher, MLP": {**TAUGHT_KAN, "network.kind": "ratio_mlp"},
    "LDSB, table": {**PUBLISHED, **TABLE},
    "LDSB, MLP": {**PUBLISHED, "network.kind": "ratio_mlp"},
    "LDSB, MLP without sigmoid": {**PUBLISHED, "network.kind": "ratio_mlp", "network.squash": False},
}  # fmt: skip


def arms(ways: Mapping[str, Mapping[str, Any]], steps: tuple[int, ...], families: tuple[str, ...] = ("DDIM", "flow"),
         ) -> tuple[Arm, ...]:  # fmt: skip
    """Ways × steps × families, a table for each family and number of steps; KANs of 2 N intervals, as published."""
    made = []
    for family in families:
        for n in steps:
            for name, overrides in ways.items():
                kan = "kan" in str(overrides.get("network.kind", "kan"))
                published = {"network.grid_size": 2 * n} if kan else {}
                changes = {**FAMILIES[family], "method.num_steps": n, **published, **overrides}
                made.append(Arm(f"{family}, {name}, N = {n}", changes, family=family, table=f"{family}, N = {n}",
                                of_preset=True))  # fmt: skip
    return tuple(made)


def denoisers(families: tuple[str, ...] = ("DDIM", "flow")) -> tuple[Arm, ...]:
    """The denoisers themselves, with every other sampler."""
    return tuple(
        Arm(f"{family} denoiser, other samplers", FAMILIES[family], denoiser=True, of_preset=True)
        for family in families
    )


# the paper's Fig. 3: a denoiser of either family with and without a path of its own, beside DSB, on points of the plane
PLANE_DENOISER = {
    "kind": "trained", "method": {"kind": "score_matching_vp", "pairs": 16384},
    "network": {"kind": "mlp", "width": 64, "depth": 3},
    "training": {"batch_size": 256, "learning_rate": 2e-3, "ema_decay": 0.995, "budget": 3_000_000},
}  # fmt: skip
PLANE_DSB = Arm("DSB", {
    "method.kind": "dsb", "method.iterations": 8, "method.epochs": 2, "method.paths": 1024, "method.steps": 24,
    "method.num_steps": 16, "reference.kind": "vp", "reference.beta_max": 4.0, "network": PLANE_DENOISER["network"],
    "training": PLANE_DENOISER["training"],
}, family="DSB")  # fmt: skip
PLANE_WAYS = {name: WAYS[name] for name in ("original", "LDSB", "teacher, order 2, times")}

# what a way of fitting comes with in a quick look: a fit of seconds; without a network where there is nothing to learn
QUICK_FITS: Mapping[str, Mapping[str, Any]] = {
    "none": TABLE,
    "ipf": {"method.fit.iterations": 1, "method.fit.epochs": 2, "method.fit.batches": 10},
    "ipf_exact": {"method.fit.images": 6400, **TABLE},
    "teacher": {"method.fit.pairs": 1024, "method.fit.epochs": 10, "method.fit.learning_rate": 2e-2},
}  # fmt: skip
# with the options that LDSB has by itself; a network takes a smaller learning rate than a table
FULL_FITS: Mapping[str, Mapping[str, Any]] = {
    "none": TABLE, "ipf": {}, "ipf_exact": TABLE, "teacher": {"method.fit.learning_rate": 5e-3},
}  # fmt: skip
LEARNED = ("ipf", "teacher")
KANS = ("efficient_kan", "kan")
GRIDS = ("leading_uniform", "leading_quadratic", "trailing_uniform", "trailing_quadratic")
ORDER = Factor("method.fit.order", "order", (1, 2), only_if=({"method.fit.kind": ("teacher",)},))
TIMES = Factor("method.fit.learn_times", "learned times", (False, True), only_if=({"method.fit.kind": ("teacher",)},))
GRID = Factor("method.grid", "node grid", GRIDS)
# ends of the path: without a fit there is nothing to hold them, and a trailing grid has none that differ
BOUNDARY = Factor(
    "method.boundary", "boundary", ("corrected", "paper", "code"),
    only_if=({"method.fit.kind": ("ipf", "ipf_exact", "teacher"), "method.grid": GRIDS[:2]},),
)
PARAMETERISATION = Factor(
    "network.kind", "parameterisation", ("efficient_kan", "kan", "ratio_mlp", "table"),
    only_if=({"method.fit.kind": LEARNED},),
)
GRID_SIZE = Factor(
    "network.grid_size", "KAN grid size / N", (0.5, 1, 2, 4), multiple_of="method.num_steps",
    only_if=({"method.fit.kind": LEARNED[::-1], "network.kind": KANS},),
)


def ways_of_fitting(options: Mapping[str, Mapping[str, Any]], *kinds: str) -> Factor:
    """The ways, each with its options."""
    chosen = kinds or tuple(options)
    return Factor("method.fit.kind", "way of fitting", chosen, brings={kind: options[kind] for kind in chosen})


def steps(*numbers: int) -> Factor:
    """N: a path's nodes, and the network calls that it takes."""
    return Factor("method.num_steps", "N", numbers)


def space(options: Mapping[str, Mapping[str, Any]], *numbers: int) -> tuple[Factor, ...]:
    """Everything that makes a path, each where it does something."""
    return (
        ways_of_fitting(options), steps(*numbers), GRID, BOUNDARY, PARAMETERISATION, GRID_SIZE, ORDER, TIMES,
    )  # fmt: skip


TINY: Mapping[str, Any] = {
    **PATH, **EVALUATION, "network.grid_size": 10, "method.num_steps": 5, "method.prefit_steps": 100,
    "method.fit": {"kind": "teacher", "epochs": 2, "pairs": 512, "learning_rate": 5e-3},
    "method.denoiser": denoiser(32, 1, budget=200_000), "evaluation.nfe": [3, 5], "evaluation.draws": 1,
    "evaluation.paths": 64, "evaluation.grids": ["trailing_uniform"],
}  # fmt: skip
TINY_WAYS = {
    "original": {"method.fit.kind": "none", **TABLE},
    "LDSB": {"method.fit": {"kind": "ipf", "iterations": 1, "epochs": 1, "batches": 5}, "method.boundary": "code"},
    "best of 3 random paths": {"method.fit": {"kind": "random", "candidates": 3}, **TABLE},
}
TINY_FITS: Mapping[str, Mapping[str, Any]] = {
    "none": TABLE,
    "ipf": {"method.fit.iterations": 1, "method.fit.epochs": 1, "method.fit.batches": 2},
    "ipf_exact": {"method.fit.iterations": 1, "method.fit.images": 1024, **TABLE},
    "teacher": {"method.fit.epochs": 2, "method.fit.pairs": 512, "method.fit.learning_rate": 2e-2},
}  # fmt: skip
# 100 batches of 128 images a half, a candidate every 20
PAPER: Mapping[str, Any] = {
    **PATH, "method.boundary": "code", "method.denoiser": {"kind": "published"},
    "method.fit": {"kind": "ipf", "mode": "code", "iterations": 3}, "evaluation.nfe": [5, 10, 20],
    "evaluation.samplers": ["ratio_path"], "evaluation.grids": ["leading_uniform"], "evaluation.draws": 5,
    "evaluation.features": "inception", "evaluation.to_training": True,
}  # fmt: skip
PAPER_WAYS: Mapping[str, Mapping[str, Any]] = {
    "original": {"method.fit.kind": "none", **TABLE},
    "LDSB": {},
    "LDSB, selected as published": {"method.select": "reported"},
    "LDSB, MLP": {"network.kind": "ratio_mlp", "network.squash": False},
    "teacher, order 2, times": WAYS["teacher, order 2, times"],
}
STUDY = Definition(
    name="ldsb_sweep",
    question=__doc__,
    baseline={"method.fit.kind": "none"},
    presets={
        "smoke": Preset(
            help="both phases and every way of fitting once, on a tiny denoiser, under 90 s",
            base=TINY, trials=4, seeds=1, centre_nfe=5, space=space(TINY_FITS, 3, 5),
            # a conditional parameter may never be drawn
            points=({"method.num_steps": 3, "network.grid_size": 1}, {"method.fit.kind": "ipf_exact"}),
            factors=(steps(3, 5),), arms=(*denoisers(("DDIM",)), *arms(TINY_WAYS, (5,), ("DDIM",))),
            finalists=(3, 5),
        ),
        "default": Preset(
            help="0.2 M weights of the denoiser, 32 search trials, each choice around the winner, KAN grid size x N, "
                 "x 3 seeds",
            base={
                **PATH, **EVALUATION, "evaluation.nfe": [3, 5, 10], "evaluation.localised_times": [],
                "method.denoiser": BRIEF,
                "method.fit": {"kind": "teacher", "pairs": 1024, "epochs": 10, "learning_rate": 2e-2},
            },
            trials=32, seeds=3, space=space(QUICK_FITS, 3, 5, 10),
            points=(
                {"method.fit.kind": "none"}, {"method.fit.kind": "ipf", "method.boundary": "code"},
                {"method.num_steps": 5, "method.grid": "leading_quadratic", "method.fit.order": 2},
                {"method.num_steps": 3, "method.grid": "trailing_quadratic", "network.grid_size": 1},
            ),
            factors=(
                ways_of_fitting(QUICK_FITS), steps(3, 5, 10), GRID, PARAMETERISATION, GRID_SIZE, ORDER, TIMES,
            ),
            grid=("network.grid_size", "method.num_steps"), finalists=(3, 5, 10),
            arms=(*denoisers(("DDIM",)), *arms(QUICK_CONTROLS, (10,), ("DDIM",))),
        ),
        "grid_size": Preset(
            help="KAN grid size x N, of the published procedure and of the fit to a teacher, whole fits, x 3 seeds",
            base={
                **PATH, **EVALUATION, "evaluation.nfe": [3, 5, 10, 20], "method.denoiser": SMALL,
                "method.fit": {"kind": "ipf"}, "method.boundary": "code",
            },
            trials=0, seeds=3, centre="preset", space=(),
            factors=(ways_of_fitting(FULL_FITS, *LEARNED), steps(3, 5, 10, 20), GRID_SIZE),
            grid=("network.grid_size", "method.num_steps", "method.fit.kind"),
            arms=(*denoisers(("DDIM",)), *arms({"original": WAYS["original"]}, (3, 5, 10, 20), ("DDIM",))),
        ),
        "ways": Preset(
            help="0.2 M weights, both families, every way at 5 and 10 calls, networks and controls at 10, x 3 seeds",
            base={**PATH, **EVALUATION, "method.denoiser": SMALL},
            trials=0, seeds=3, centre="preset", space=(), factors=(),
            arms=(
                *denoisers(), *arms(WAYS, (5, 10)), *arms(PARAMETERISATIONS, (10,), ("DDIM",)),
                *arms(CONTROLS, (10,), ("DDIM",)),
            ),
            datasets=("digits", "photos", "checkerboard"),
        ),
        "calls": Preset(
            help="0.2 M weights, both families, original, LDSB, fits to a teacher at 3, 6, 8, 15, 20 calls x 3 seeds",
            base={**PATH, **EVALUATION, "method.denoiser": SMALL},
            trials=0, seeds=3, centre="preset", space=(), factors=(),
            arms=(*denoisers(), *arms(CALLS, (3, 6, 8, 15, 20))),
            datasets=("digits", "photos", "checkerboard"),
        ),
        "null": Preset(
            help="denoisers that make no error: what each way of fitting finds where nothing is to be found, x 3 seeds",
            base={**PATH, **EVALUATION, "evaluation.nfe": [5, 10], "method.denoiser": {"kind": "exact"}},
            trials=0, seeds=3, centre="preset", space=(), factors=(),
            arms=(
                *arms(NULL_WAYS, (5, 10), ("exact DDIM", "exact flow")),
                *arms(QUICK_CONTROLS, (10,), ("exact DDIM", "exact flow")),
            ),
            datasets=("gaussian64", "eight_gaussians"),
        ),
        "further": Preset(
            help="one KAN for several N; KAN sizes; flows on ASBM's pairs; noise on paths; fits in features, x 3 seeds",
            base={**PATH, **EVALUATION, "method.denoiser": SMALL},
            trials=0, seeds=3, centre="preset", space=(), factors=(),
            arms=(
                *denoisers(tuple(TRAINED)), *arms(ONE_FOR_ALL, (5, 8, 10)), *arms(KAN_SIZES, (10,), ("DDIM",)),
                *arms(TOGETHER, (5, 10), ("ASBM flow",)), *arms(NOISY, (5, 10)),
                *arms(FEATURE_FITS, (5, 10)), *arms(LEADING, (5, 10), ("DDIM",)),
            ),
            datasets=("digits", "photos", "checkerboard"),
        ),
        "plane": Preset(
            help="the paper's Fig. 3: checkerboard at 5 calls, both families with and without a path, DSB x 3 seeds",
            base={
                **PATH, **EVALUATION, "method.fit": {"kind": "ipf"}, "method.boundary": "code", "method.num_steps": 5,
                "network.grid_size": 10, "method.denoiser": PLANE_DENOISER,
                "evaluation.nfe": [5], "evaluation.n": 10_000,
                "evaluation.samplers": ["ratio_path", "ddim", "heun", "exponential", "ancestral"],
            },
            trials=0, seeds=3, centre="preset", space=(), factors=(), datasets=("checkerboard",),
            centre_name="DDIM, LDSB, N = 5", centre_family="DDIM", centre_table="DDIM, N = 5",
            arms=(*(arm for arm in arms(PLANE_WAYS, (5,)) if arm.name != "DDIM, LDSB, N = 5"), PLANE_DSB),
        ),
        "thorough": Preset(
            help="0.45 M weights, 120 search trials, all families, ways and controls, 3 to 20 calls x 5 seeds",
            base={**PATH, **EVALUATION, "method.denoiser": LARGE, "evaluation.draws": 5},
            trials=120, seeds=5, space=space(FULL_FITS, 3, 5, 10, 20),
            points=({"method.fit.kind": "ipf", "method.boundary": "code"}, {"method.fit.kind": "none"}),
            factors=(GRID, BOUNDARY, PARAMETERISATION, ORDER, TIMES, GRID_SIZE, steps(3, 5, 10, 20)),
            grid=("network.grid_size", "method.num_steps"), finalists=(3, 5, 10, 20),
            arms=(
                *denoisers(tuple(TRAINED)), *arms(WAYS | NEAREST, (3, 5, 10, 20)), *arms(CONTROLS, (10,)),
                *arms(PARAMETERISATIONS, (10,), ("DDIM",)), *arms(TOGETHER, (5, 10), ("ASBM flow",)),
                *arms(LEADING, (3, 5, 10, 20), ("DDIM",)),
            ),
            datasets=("digits", "photos", "checkerboard"),
        ),
        "paper": Preset(
            help="the paper's settings for a published denoiser (SB_DENOISER) of cifar10, celeba, celeba_hq; for GPUs",
            base=PAPER, trials=0, seeds=3, centre="preset", space=(), factors=(),
            arms=arms(PAPER_WAYS, (5, 10, 20), ("published denoiser",)), datasets=("cifar10", "celeba", "celeba_hq"),
            # flow matching there; for a flow of CIFAR-10 set the grid by hand
            by_dataset={"celeba_hq": {"method.grid": "trailing_uniform", "method.sum_to_one": True}},
        ),
    },
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(STUDY, write_report))

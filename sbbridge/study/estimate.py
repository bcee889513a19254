"""What a study will cost: network evaluations x FLOPs of one, over a rate that is measured, or assumed and said so."""

import copy
import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sbbridge import config
from sbbridge.methods import LDSB, cost
from sbbridge.study import design
from sbbridge.study.feasible import known_shape
from sbbridge.study.plan import Plan
from sbbridge.study.requirements import Found, launcher
from sbbridge.study.tasks import IMAGES
from sbbridge.study.tasks.paths import NUM_STEPS as PATH_STEPS
from sbbridge.study.tasks.teacher import NUM_STEPS as TEACHER_STEPS
from sbbridge.study.tasks.teacher import N as TEACHER_N

BACKWARD_PASSES = 2
"""A backward pass takes two forward ones: with respect to activations, and to weights."""
INCEPTION_FLOPS = 11.4e9
"""Of one image of 299 x 299, two a multiply-accumulate."""
JUDGED = {
    "digits": 899, "photos": 4000, "cifar10": 15_000, "celeba": 39_829, "celeba_hq": 3000, "ffhq_latent": 7000,
    "image_folder": 7000,
}  # fmt: skip
"""Images of validation and test split together, of which `evaluation.draws` times as many are generated."""
ASSUMED_SHAPES = {"image_folder": (3, 64, 64), "ffhq_latent": (4, 32, 32)}
"""Of what is not known before it is opened."""
SEARCHED = 16
"""Configurations of the space that a search trial's cost is the mean of."""
INLINE_S, GROUP_S, SEED_OF_A_GROUP_S = 0.2, 25.0, 8.0
"""What a trial takes beside its work: in a process that is there, in a worker group, for a further seed of one."""
START_S = 20.0
"""Imports, Ray, the report."""

PEAK_TFLOPS = {
    "H200": (989, 494), "H100": (989, 494), "A100": (312, 156), "L40S": (362, 183), "L4": (121, 60), "A10G": (70, 35),
}  # fmt: skip
"""Dense tensor-core peaks of GPUs: bfloat16, and float32 as TF32, in which convolutions run."""
ASSUMED_GPU, ASSUMED_SHARE = "A10G", 0.1
"""What cluster.yaml starts, and the share of its peak: the paper's U-Net took 6 to 10 % of an H200's."""

MEASURED_FLOPS, MEASURED_S = 4e10, 1.0
"""About as much work in one timed step, and the seconds after which no further one begins."""


@dataclass(frozen=True)
class Work:
    """Of one training and its evaluation.

    Attributes:
        training, evaluation: FLOPs.
        seconds: what a fit of LDSB's takes on one core, whose evaluations are not counted.
    """

    training: float = 0.0
    evaluation: float = 0.0
    seconds: float = 0.0

    @property
    def flops(self) -> float:
        """All of them."""
        return self.training + self.evaluation

    def __mul__(self, runs: float) -> "Work":
        return Work(self.training * runs, self.evaluation * runs, self.seconds * runs)

    def __add__(self, other: "Work") -> "Work":
        return Work(self.training + other.training, self.evaluation + other.evaluation, self.seconds + other.seconds)


@dataclass(frozen=True)
class Rate:
    """FLOPs a second of the device that a worker has, training and evaluating; in words, which and how it is known."""

    training: float
    evaluation: float
    device: str
    source: str

    def seconds(self, work: Work, workers: int = 1) -> float:
        """What work takes where so many workers share the training."""
        return work.training / self.training / workers + work.evaluation / self.evaluation + work.seconds


def estimate(plan: Plan, found: Found) -> str:
    """One line: time, devices, the rate and where it comes from; GPU hours where GPUs work."""
    runs = list(trainings(plan))
    heaviest, *_ = max(runs, key=lambda run: run[2] * run[1].flops)
    rate = rate_of(plan, found, heaviest)
    options, total = plan.options, sum((work * n for _, work, n in runs), Work())
    workers, at_once = options.num_workers, found.concurrent_trials
    busy = rate.seconds(total)
    fixed = _fixed_seconds(plan, sum(n for *_, n in runs))
    longest = max(rate.seconds(work, workers) for _, work, _ in runs)
    seconds = START_S + max((busy / workers + fixed) / at_once, longest)
    where = f"{at_once * workers} x {rate.device} ({rate.source})"
    if not options.use_gpu:
        return f"{in_words(seconds)} on {where.replace(' x core', ' core' + 's' * (at_once * workers != 1))}"
    share = options.gpus_per_worker or 1.0
    return f"{in_words(seconds)} on {where}, {max(1, round((busy + fixed * workers) * share / 3600)):,} GPU hours"


def trainings(plan: Plan) -> Iterator[tuple[Any, Work, int]]:
    """(configuration, work, how many such runs): denoisers, the search, every cell and arm around the preset."""

    def entry(tree: Mapping[str, Any], runs: int) -> tuple[Any, Work, int]:
        parsed = config.parse(plan.type_, tree)
        return parsed, work_of(parsed, plan.preset), runs

    for tree, _, phase in plan.denoisers:
        if phase == "denoiser":
            yield entry(tree, 1)
    if plan.options.trials:
        drawn = [entry(tree, 1) for tree in _searched(plan)]
        yield drawn[0][0], sum((work for _, work, _ in drawn), Work()) * (1 / len(drawn)), plan.options.trials
    for base in plan.bases.values():
        for tree in design.ablation_trees(plan.type_, plan.preset, base, _evaluations(plan, base)):
            yield entry(tree, plan.options.seeds)


def work_of(parsed: Any, preset: Any) -> Work:
    """What one configuration takes.

    Simulated evaluations are forward passes, all others training steps: what doubling every number of simulated steps
    adds to a method's cost is simulation. Every sampler of the evaluation is counted, also where a method lacks it.
    """
    if isinstance(parsed.method, LDSB):
        return _fit(preset)
    method, batch = parsed.method, parsed.training.batch_size
    if parsed.training.budget:
        method = cost.within(method, parsed.training.budget, batch)
    evaluations = method.cost(batch)
    simulated = min(evaluations, _with_twice_the_steps(method).cost(batch) - evaluations)
    shape = known_shape(parsed.dataset, parsed.reference) or ASSUMED_SHAPES[parsed.dataset]
    network = forward_flops(parsed.network, shape)
    simulating = forward_flops(method.network_for("control", parsed.network), shape)
    training = simulated * simulating + (evaluations - simulated) * (1 + BACKWARD_PASSES) * network
    return Work(training, _evaluation_flops(parsed, network))


def _fit(preset: Any) -> Work:
    """Of an LDSB fit, whose evaluations `method.cost` does not tell yet: what the preset says that it takes."""
    return Work(seconds=float(preset.estimate_seconds))


def _with_twice_the_steps(method: Any) -> Any:
    tree = copy.deepcopy(config.dump(method))

    def double(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            if key == "num_steps" and value is not None:
                node[key] = 2 * value
            double(value)

    double(tree)
    return config.parse(type(method), tree)


def _evaluation_flops(parsed: Any, network: float) -> float:
    """Samples of every sampler, grid and NFE, the teacher's and the paths; and Inception's features of them."""
    evaluation, images = parsed.evaluation, parsed.dataset in IMAGES or parsed.dataset == "ffhq_latent"
    judged = JUDGED[parsed.dataset] * evaluation.draws if images else 2 * evaluation.n
    combinations = len(evaluation.samplers) * len(evaluation.grids)
    calls = combinations * sum(evaluation.nfe) * judged
    calls += 2 * TEACHER_N * (2 * TEACHER_STEPS - 1) + evaluation.paths * PATH_STEPS
    features = combinations * len(evaluation.nfe) * judged if images and evaluation.features == "inception" else 0
    return calls * network + features * INCEPTION_FLOPS


def _searched(plan: Plan) -> Iterator[dict[str, Any]]:
    """Configurations drawn from the searched space, always the same ones."""
    space, dice = design.Space(plan.preset.space), random.Random(0)

    class Trial:
        number = 0

        def suggest_categorical(self, name: str, values: list[Any]) -> Any:
            return dice.choice(values)

    for _ in range(SEARCHED):
        choices = space(Trial())["choices"]
        changes = {path: value for path, value in choices.items() if path not in ("nfe", "sampler")}
        yield design.resolve(plan.type_, plan.base, changes)


def _evaluations(plan: Plan, base: Mapping[str, Any]) -> int | None:
    """What arms that are matched to the centre will get."""
    parsed = config.parse(plan.type_, base)
    if isinstance(parsed.method, LDSB):
        return None
    return int(parsed.training.budget or parsed.method.cost(parsed.training.batch_size))


def _fixed_seconds(plan: Plan, runs: int) -> float:
    """Of all trials, one after the other; a configuration's seeds share a worker group, search trials do not."""
    if launcher(plan.options) == "inline":
        return runs * INLINE_S + plan.preset.through_train * GROUP_S
    groups = plan.options.trials + max(0, runs - plan.options.trials) / plan.options.seeds
    return groups * GROUP_S + max(0.0, runs - groups) * SEED_OF_A_GROUP_S


@lru_cache(maxsize=64)
def forward_flops(network: Any, shape: tuple[int, ...]) -> int:
    """Of one state's forward pass, two a multiply-accumulate; the network gets no memory."""
    with torch.device("meta"):
        built = network.build(shape, 0).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            built(torch.zeros(1), torch.zeros(1, *shape))
    return int(counter.get_total_flops())


def rate_of(plan: Plan, found: Found, parsed: Any) -> Rate:
    """Of the device that one worker has: timed where it is here, else a share of its peak; in float32 to evaluate.

    Args:
        plan: says whether it is a GPU, and of this machine.
        found: GPUs that are there.
        parsed: the configuration whose network most of the work is.
    """
    options = plan.options
    if options.use_gpu and not (options.address == "local" and found.gpus):
        return _assumed(found.gpus, parsed.training.precision == "bfloat16")
    if isinstance(parsed.method, LDSB):  # nothing but fits, whose seconds are known
        return Rate(1.0, 1.0, "core", f"{plan.preset.estimate_seconds:g} s a fit")
    device = "cuda" if options.use_gpu else "cpu"
    shape = known_shape(parsed.dataset, parsed.reference) or ASSUMED_SHAPES[parsed.dataset]
    flops = measured(parsed.network, shape, parsed.training, device)
    name = found.gpus[0] if options.use_gpu else "core"
    return Rate(flops, flops, name, f"measured {flops / 1e9:,.3g} GFLOP/s")


def _assumed(gpus: list[str], half: bool) -> Rate:
    """A share of the peak of the first GPU that is known; of cluster.yaml's, where none is there or known."""
    known = next((kind for seen in gpus for kind in PEAK_TFLOPS if kind in seen.upper()), None)
    bf16, tf32 = PEAK_TFLOPS[known or ASSUMED_GPU]
    words = f"assumed {ASSUMED_SHARE * 100:g} % of {f'{bf16} TFLOP/s bf16 and ' if half else ''}{tf32} TFLOP/s TF32"
    name = known or (gpus[0] if gpus else ASSUMED_GPU)
    of = "" if known or not gpus else f", as of {ASSUMED_GPU}"
    return Rate(ASSUMED_SHARE * (bf16 if half else tf32) * 1e12, ASSUMED_SHARE * tf32 * 1e12, name, f"{words}{of}")


def measured(network: Any, shape: tuple[int, ...], training: Any, device: str) -> float:
    """FLOPs a second of a network's forward and backward passes on a device, a CPU with one thread; takes a second."""
    flops = (1 + BACKWARD_PASSES) * forward_flops(network, shape)
    most = MEASURED_FLOPS * (100 if device == "cuda" else 1)
    batch = max(1, min(training.batch_size, int(most / flops)))
    built, threads = network.build(shape, 0).to(device), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return flops * batch / _step_seconds(built, torch.zeros(batch, *shape, device=device), training.precision)
    finally:
        torch.set_num_threads(threads)


def _step_seconds(network: nn.Module, x: torch.Tensor, precision: str) -> float:
    """The shortest of at least two steps, begun within the time that a measurement may take."""
    seconds: list[float] = []
    cast = torch.autocast(x.device.type, torch.bfloat16, enabled=precision == "bfloat16")
    while len(seconds) < 2 or sum(seconds) < MEASURED_S:
        begun = time.perf_counter()
        with cast:
            loss = network(torch.full((len(x),), 0.5, device=x.device), x).float().square().mean()
        loss.backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def in_words(seconds: float) -> str:
    """Minutes below two hours, hours below two days, then days; rounded up."""
    size, name = (60, "minute") if seconds < 7200 else (3600, "hour") if seconds < 172_800 else (86_400, "day")
    n = math.ceil(seconds / size)
    return f"{n} {name}{'s' * (n != 1)}"

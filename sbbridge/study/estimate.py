"""What a study will cost: network evaluations x FLOPs of one, over a rate that is measured, or assumed and said so."""

import math
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from sbbridge import config
from sbbridge.methods import LDSB
from sbbridge.methods.denoisers import TrainedDenoiser
from sbbridge.networks import MLP
from sbbridge.study import design
from sbbridge.study.feasible import known_shape
from sbbridge.study.plan import Plan
from sbbridge.study.requirements import Found, launcher
from sbbridge.study.space import resolve
from sbbridge.study.trial import digests
from sbbridge.study.work import ASSUMED_SHAPES, BACKWARD_PASSES, Work, forward_flops, work_of

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
    """(configuration, work, how many such runs): denoisers, the search, every cell and arm around the preset.

    A field that several paths share is one run.
    """
    fields: dict[str, dict[str, Any]] = {}

    def entry(tree: Mapping[str, Any], runs: int) -> tuple[Any, Work, int]:
        if (field := design.denoiser_tree(tree)) is not None:
            whole = resolve(plan.type_, field, {})
            fields.setdefault(digests(whole)[1], whole)
        parsed = config.parse(plan.type_, tree)
        return parsed, work_of(parsed), runs

    known = set()
    for tree, _, phase in plan.denoisers:
        known.add(digests(tree)[1])
        if phase == "denoiser":
            yield entry(tree, 1)
    if plan.options.trials:
        drawn = [entry(tree, 1) for tree in _searched(plan)]
        yield drawn[0][0], sum((work for _, work, _ in drawn), Work()) * (1 / len(drawn)), plan.options.trials
        yield from _fields(plan, fields, known, max(1, plan.options.trials // SEARCHED))
    fields.clear()
    for name in plan.bases:
        for tree in design.ablation_trees(plan.space(name), plan.preset, plan.centre(name)):
            known.add(digests(tree)[1])
            yield entry(tree, plan.options.seeds)
    yield from _fields(plan, fields, known, plan.options.seeds)


def _fields(plan: Plan, fields: Mapping[str, dict[str, Any]], known: set[str],
            runs: int) -> Iterator[tuple[Any, Work, int]]:  # fmt: skip
    """Those that are trained for a path and for nothing else; they are not evaluated."""
    for digest, field in fields.items():
        if digest not in known:
            parsed = config.parse(plan.type_, field)
            yield parsed, replace(work_of(parsed), evaluation=0.0), runs


def _searched(plan: Plan) -> Iterator[dict[str, Any]]:
    """Configurations drawn from the searched space, always the same ones."""
    space, dice = plan.space(), random.Random(0)

    class Trial:
        def suggest_categorical(self, name: str, values: list[Any]) -> Any:
            return dice.choice(values)

    for _ in range(SEARCHED):
        yield space.tree(space.suggest(Trial()))


def _fixed_seconds(plan: Plan, runs: int) -> float:
    """Of all trials, one after the other; a configuration's seeds share a worker group, search trials do not."""
    if launcher(plan.options) == "inline":
        return runs * INLINE_S + plan.preset.through_train * GROUP_S
    groups = plan.options.trials + max(0, runs - plan.options.trials) / plan.options.seeds
    return groups * GROUP_S + max(0.0, runs - groups) * SEED_OF_A_GROUP_S


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
    if isinstance(parsed.method, LDSB):
        parsed = _denoisers_own(parsed)
    device = "cuda" if options.use_gpu else "cpu"
    shape = known_shape(parsed.dataset, parsed.reference) or ASSUMED_SHAPES[parsed.dataset]
    flops = measured(parsed.network, shape, parsed.training, device)
    name = found.gpus[0] if options.use_gpu else "core"
    return Rate(flops, flops, name, f"measured {flops / 1e9:,.3g} GFLOP/s")


def _denoisers_own(parsed: Any) -> Any:
    """What a path's evaluations are made of: its denoiser's network; a small one where files alone know it."""
    network = parsed.method.denoiser.network if isinstance(parsed.method.denoiser, TrainedDenoiser) else MLP()
    return SimpleNamespace(dataset=parsed.dataset, reference=parsed.reference, network=network,
                           training=parsed.training)  # fmt: skip


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

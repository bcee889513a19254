"""What a training and its evaluation take: FLOPs of its network evaluations, simulated, differentiated or sampled."""

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sbbridge import config
from sbbridge.methods import IPF, LDSB, TeacherFit, cost
from sbbridge.methods.denoisers import TrainedDenoiser
from sbbridge.study.feasible import known_shape
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
FIT_STEP_S = 2.5e-3
"""A step of networks for ratios, on one core beside the denoiser's work (median of the fits of `ldsb_sweep`)."""


@dataclass(frozen=True)
class Work:
    """Of one training and its evaluation.

    Attributes:
        training, evaluation: FLOPs.
        seconds: what the steps of small networks for ratios take, whatever the denoiser is.
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


def work_of(parsed: Any) -> Work:
    """What one configuration takes.

    Simulated evaluations are forward passes, all others training steps: what doubling every number of simulated steps
    adds to a method's cost is simulation. Every sampler of the evaluation is counted, also where a method lacks it.
    """
    if isinstance(parsed.method, LDSB):
        return _fit(parsed)
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


def _fit(parsed: Any) -> Work:
    """Of a path: its fit's network evaluations, which only a fit through the sampler differentiates, and its samples.

    A denoiser that is not trained here is taken for nothing: what it is says its file alone.
    """
    method, batch = parsed.method, parsed.training.batch_size
    network = 0
    if isinstance(method.denoiser, TrainedDenoiser):
        shape = known_shape(parsed.dataset, parsed.reference) or ASSUMED_SHAPES[parsed.dataset]
        network = forward_flops(method.denoiser.network, shape)
    evaluations, trained, steps = method.cost(batch), 0, method.prefit_steps
    if isinstance(method.fit, TeacherFit):
        trained = evaluations - method.fit.pairs * cost.backward_calls(method.fit.generation)
        steps += method.fit.epochs * max(1, method.fit.pairs // batch)
    elif isinstance(method.fit, IPF):
        steps += evaluations // batch
    training = (evaluations + BACKWARD_PASSES * trained) * network
    sampled = _judged(parsed) * method.num_steps + TEACHER_N * (2 * TEACHER_STEPS - 1)
    return Work(training, sampled * network, steps * FIT_STEP_S)


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
    evaluation, images = parsed.evaluation, _of_images(parsed)
    judged = _judged(parsed)
    combinations = len(evaluation.samplers) * len(evaluation.grids)
    calls = combinations * sum(evaluation.nfe) * judged
    calls += 2 * TEACHER_N * (2 * TEACHER_STEPS - 1) + evaluation.paths * PATH_STEPS
    features = combinations * len(evaluation.nfe) * judged if images and evaluation.features == "inception" else 0
    return calls * network + features * INCEPTION_FLOPS


def _of_images(parsed: Any) -> bool:
    return parsed.dataset in IMAGES or parsed.dataset == "ffhq_latent"


def _judged(parsed: Any) -> int:
    """Samples that one entry of an evaluation takes."""
    return JUDGED[parsed.dataset] * parsed.evaluation.draws if _of_images(parsed) else 2 * parsed.evaluation.n


@lru_cache(maxsize=64)
def forward_flops(network: Any, shape: tuple[int, ...]) -> int:
    """Of one state's forward pass, two a multiply-accumulate; the network gets no memory."""
    with torch.device("meta"):
        built = network.build(shape, 0).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            built(torch.zeros(1), torch.zeros(1, *shape))
    return int(counter.get_total_flops())

"""Combinations that cannot be trained, found before anything runs: references, shapes, paths without a denoiser."""

from functools import lru_cache
from typing import Any

from sbbridge.config import ConfigurationError
from sbbridge.data import StandardNormal
from sbbridge.methods import LDSB, Method
from sbbridge.methods.denoisers import ExactDenoiser, PublishedDenoiser, TrainedDenoiser
from sbbridge.networks import MLP, UNet
from sbbridge.path import LINEAR, ratio_nodes
from sbbridge.problems import BridgeProblem
from sbbridge.sde import DDPM
from sbbridge.solvers import MEMORYLESS, reference_path
from sbbridge.study.tasks import IMAGES, open_task, prior_scale

SHAPES = {
    "digits": (1, 8, 8), "photos": (3, 16, 16), "cifar10": (3, 32, 32), "celeba": (3, 64, 64),
    "celeba_hq": (3, 256, 256),
}  # fmt: skip
"""Of images that need not be opened for it; those of a folder or an encoder are known once they are."""


def check_feasible(config: Any, name: str, shape: tuple[int, ...] | None = None) -> None:
    """Asks the method for its networks' parts, and the networks for the data's shape. Opens no data.

    Args:
        config: a whole configuration.
        name: what the error calls it.
        shape: of one state, where it is known; by default that of the data set.

    Raises:
        ConfigurationError: method, reference, network and data do not go together.
    """
    trained = config.method.denoiser if isinstance(config.method, LDSB) else config
    if isinstance(config.method, LDSB):
        _check_path(config, name)
    if trained is not config and not isinstance(trained, TrainedDenoiser):
        return
    method, network = trained.method, trained.network
    try:
        shape = shape or known_shape(config.dataset, config.reference)
        for part in _parts(method, config.dataset, config.reference):
            asked = method.network_for(part, network)
            if shape is not None and isinstance(asked, MLP | UNet):
                asked.check_shape(shape)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _check_path(config: Any, name: str) -> None:
    """A path needs a denoiser, and nodes that its grid can tell apart."""
    ldsb, reference = config.method, config.reference
    denoiser = ldsb.denoiser
    if isinstance(denoiser, PublishedDenoiser):
        return  # its files tell
    if isinstance(denoiser, ExactDenoiser):
        velocity = denoiser.family == "flow"
    else:
        method = denoiser.method
        velocity = method.kind in ("flow_matching", "ot_cfm") or getattr(method, "student", "bridge") == "flow"
        if not velocity and not reference.is_memoryless(MEMORYLESS):
            wanted = "method.denoiser.method.student flow, or a reference" if method.kind == "asbm" else "a reference"
            raise ConfigurationError(f"{name}: an SDE bridge with memory leaves no denoiser for a path (allowed: "
                                     f"{wanted} that forgets, such as reference.beta_max 20)")  # fmt: skip
    chain = reference.num_steps if isinstance(reference, DDPM) and not velocity else None
    path = LINEAR if velocity else reference_path(reference)
    try:
        nodes = ratio_nodes(path, ldsb.grid, ldsb.num_steps, ldsb.boundary, ldsb.sum_to_one, chain)
    except ValueError as error:
        raise ConfigurationError(f"{name}: method.grid: {error}") from None
    if not velocity and bool((nodes.original.image == 0).any()):
        raise ConfigurationError(f"{name}: method.grid {ldsb.grid} begins where nothing of the image is left, which a "
                                 f"noise predictor cannot tell")  # fmt: skip


def known_shape(dataset: str, reference: Any) -> tuple[int, ...] | None:
    """Of one state, None where only the data tell it. Opens no data."""
    return SHAPES.get(dataset) or (None if _is_of_images(dataset) else _problem(dataset, reference).shape)


@lru_cache(maxsize=1024)
def _parts(method: Method, dataset: str, reference: Any) -> tuple[str, ...]:
    return tuple(method.parts(_problem(dataset, reference)))


@lru_cache(maxsize=256)
def _problem(dataset: str, reference: Any) -> BridgeProblem:
    """The problem itself, where data are drawn from a law; of images one as small as can be: no check sees them."""
    if _is_of_images(dataset):
        return BridgeProblem(StandardNormal((2,)), StandardNormal((2,), prior_scale(reference)), reference)
    from sbbridge.study.trial import TrialConfig

    return open_task(TrialConfig(dataset=dataset, reference=reference)).problem  # type: ignore[arg-type]


def _is_of_images(dataset: str) -> bool:
    return dataset in IMAGES or dataset == "ffhq_latent"

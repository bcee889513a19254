"""Combinations that cannot be trained, found before anything runs: a method's reference, a network's shape."""

from functools import lru_cache
from typing import Any

from sbbridge.config import ConfigurationError
from sbbridge.data import StandardNormal
from sbbridge.methods import LDSB, Method
from sbbridge.methods.denoisers import TrainedDenoiser
from sbbridge.networks import MLP, UNet
from sbbridge.problems import BridgeProblem
from sbbridge.study.tasks import IMAGES, open_task

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
        return BridgeProblem(StandardNormal((2,)), StandardNormal((2,)), reference)
    from sbbridge.study.trial import TrialConfig

    return open_task(TrialConfig(dataset=dataset, reference=reference)).problem  # type: ignore[arg-type]


def _is_of_images(dataset: str) -> bool:
    return dataset in IMAGES or dataset == "ffhq_latent"

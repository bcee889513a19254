"""A data set by name: the bridge problem that it poses, and how solutions of it are judged."""

import os
from pathlib import Path
from typing import Any

import torch

from sbbridge.data import (
    AbstractDistribution,
    DataError,
    ImageData,
    ImageSplits,
    LabelledImages,
    StandardNormal,
    TensorData,
    Toy2D,
    digits,
    double_well,
    eight_gaussians,
    photos,
)
from sbbridge.data.cifar10 import cifar10
from sbbridge.data.folders import celeba, celeba_hq, image_folder
from sbbridge.data.latents import ffhq_latent
from sbbridge.data.placing import Location, is_uri, joined, there
from sbbridge.problems import BridgeProblem, gaussian64, mixture_pair
from sbbridge.sde import VESDE, VPSDE, AbstractLinearSDE, BrownianMotion
from sbbridge.solvers import MEMORYLESS
from sbbridge.study.tasks.base import Task, primary_metric
from sbbridge.study.tasks.gaussian import GaussianTask
from sbbridge.study.tasks.images import ImageTask, image_features
from sbbridge.study.tasks.latents import open_latents
from sbbridge.study.tasks.mixture import MixtureTask
from sbbridge.study.tasks.plane import PlaneTask

__all__ = ["Task", "open_task", "primary_metric", "prior_scale", "require_data"]

IMAGES = ("digits", "photos", "cifar10", "celeba", "celeba_hq", "image_folder")
"""Data sets of images; all but digits, which would no longer be digits, are trained on with random mirror images."""


def open_task(config: Any, data_root: str | None = None, skip_bad: bool = False, device: str = "cpu") -> Task:
    """The problem and judge that a configuration's data set and reference make.

    Raises:
        DataError: the data are not where the user says, or hold NaN.
        MissingWeights: the features' weights are missing.
    """
    name, reference = config.dataset, config.reference
    if name in IMAGES:
        splits = _open_images(name, data_root, skip_bad)
        data = TensorData(splits.train.images) if name == "digits" else ImageData(splits.train.images, flip=True)
        problem = BridgeProblem(data, StandardNormal(data.shape, prior_scale(reference)), reference)
        features, to_training = config.evaluation.features, config.evaluation.to_training
        return ImageTask(problem, splits, image_features(features, device), features, to_training)
    if name == "ffhq_latent":
        return open_latents(config, _data_root(data_root), prior_scale(reference), device)
    if name == "gaussian64":
        return GaussianTask(gaussian64(reference, prior_scale(reference)))
    if name == "double_well":  # a prior known by its energy, at the other end of two moons
        return PlaneTask(BridgeProblem(Toy2D("moons"), double_well(), reference))
    if name.startswith("mixture"):
        return _mixture(int(name.removeprefix("mixture")), reference)
    plane: AbstractDistribution = eight_gaussians() if name == "eight_gaussians" else Toy2D(name)
    return PlaneTask(BridgeProblem(plane, StandardNormal((2,), prior_scale(reference)), reference))


FOLDERS = {
    "cifar10": "cifar-10-batches-py", "celeba": "celeba", "celeba_hq": "celeba_hq", "image_folder": "",
    "ffhq_latent": "ffhq_latent",
}  # fmt: skip
"""What a data set that the user brings is called below the data root."""


def require_data(name: str, data_root: str | None = None) -> None:
    """Looks for a data set where the user says it is; nothing is read or copied.

    Raises:
        DataError: it is not there; as `open_task` would say it.
    """
    if name not in FOLDERS:
        return
    root = _data_root(data_root)
    if root is None or not there(joined(root, FOLDERS[name])):
        if name == "ffhq_latent":
            ffhq_latent(root)
        else:
            _open_images(name, data_root, skip_bad=False)


def _mixture(dimension: int, reference: AbstractLinearSDE) -> MixtureTask:
    """The pair whose plan is the reference's; where that forgets, Brownian motion's, with the prior that it needs."""
    if not reference.is_memoryless(MEMORYLESS):
        pair = mixture_pair(dimension, reference)
        return MixtureTask(pair, pair)
    pair = mixture_pair(dimension, BrownianMotion(1.0))
    prior = StandardNormal((dimension,), prior_scale(reference))
    return MixtureTask(pair, BridgeProblem(pair.data, prior, reference))


def _open_images(name: str, data_root: str | None, skip_bad: bool) -> ImageSplits:
    if name in ("digits", "photos"):
        splits = digits() if name == "digits" else photos()
    else:
        root = _data_root(data_root)
        if name == "cifar10":
            splits = cifar10(root)
        elif name == "celeba":
            splits = celeba(root, skip_bad=skip_bad)
        elif name == "celeba_hq":
            splits = celeba_hq(root, skip_bad=skip_bad)
        else:
            splits = image_folder(root, skip_bad=skip_bad)
    return ImageSplits(*(_usable(part, skip_bad) for part in splits))


def _usable(part: LabelledImages, skip_bad: bool) -> LabelledImages:
    """The images, those that hold NaN or infinity left out or named; bytes hold neither."""
    if not part.images.is_floating_point():
        return part
    if skip_bad:
        good = torch.isfinite(part.images).flatten(1).all(1)
        return LabelledImages(part.images[good], part.labels[good])
    return LabelledImages(TensorData(part.images).x, part.labels)


def prior_scale(reference: AbstractLinearSDE) -> float:
    """Standard deviation of the prior: where the reference takes data that it forgets, 1 where it does not forget."""
    if isinstance(reference, VESDE):
        return reference.terminal_variance**0.5
    return reference.sigma if isinstance(reference, VPSDE) else 1.0


def _data_root(given: str | None) -> Location | None:
    root = given or os.environ.get("SB_DATA_ROOT") or None
    if root is not None and not is_uri(root) and not Path(root).is_dir():
        raise DataError(f"--data-root {root}: no such folder")
    return root

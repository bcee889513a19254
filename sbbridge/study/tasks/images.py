"""Images judged by Fréchet distances and by what they cover."""

import os
import weakref
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sbbridge.arguments import finite_rows
from sbbridge.data import ImageSplits
from sbbridge.data.images import as_floats
from sbbridge.metrics import (
    ClassifierFeatures,
    FeatureMoments,
    FrechetJudge,
    VarietyJudge,
    digits_features,
    inception_features,
    inception_kernel_distance,
    kernel_distance,
    patches_features,
)
from sbbridge.metrics.features import Features, to_bytes_range
from sbbridge.problems import BridgeProblem
from sbbridge.sampling import Samples
from sbbridge.study.tasks.base import SHOWN, Row, Task

SHOWN_SIZE = 64
"""Pixels of a side that larger images are shrunk to in the report."""
VARIETY_IMAGES = 2500
"""Images that neighbourhoods and kernels are computed on, at most: their cost is quadratic."""
EXAMPLES = 256


class ImageTask(Task):
    """Images judged by Fréchet distances on validation and test splits, and by what they cover on the latter."""

    def __init__(self, problem: BridgeProblem, splits: ImageSplits, features: Features, name: str,
                 to_training: bool = False) -> None:  # fmt: skip
        self.problem, self._splits = problem, splits
        classifier, features = features, _OfTheLast(features)
        self._judges = {
            split: FrechetJudge(getattr(splits, split).images, features, name) for split in ("validation", "test")
        }
        self._extract = features
        # other networks' features have no scale that anybody compares
        self._kernel_distance = inception_kernel_distance if name == "inception" else kernel_distance
        self._real = torch.from_numpy(features(splits.test.images[:VARIETY_IMAGES]))
        self._variety = VarietyJudge(self._real)
        if isinstance(classifier, ClassifierFeatures):
            self._variety = VarietyJudge(self._real, classifier.classify, classifier.classes)
        self._to_training = to_training

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return {split: judge.n * evaluation.draws for split, judge in self._judges.items()}

    def judge(self, samples: Samples, split: str) -> Row:
        judge = self._judges[split]
        value, n = judge.distance(samples.x)
        return {"metric": "frechet_distance", "features": judge.name, "value": value, "n": n}

    def variety(self, x: Tensor) -> Iterator[Row]:
        yield from self._coverage(x)
        if self._to_training:
            yield self._training_distance(x)

    def _coverage(self, x: Tensor) -> Iterator[Row]:
        features = torch.from_numpy(self._extract(x[: len(self._real)]))
        kernel = self._kernel_distance(self._real, features)
        values = {
            **self._variety(features),
            "kernel_distance": kernel.value,
            "kernel_distance_standard_error": kernel.standard_error,
        }
        name = self._judges["test"].name
        for metric, value in values.items():
            yield {"metric": metric, "features": name, "value": value, "n": len(features)}

    @cached_property
    def _training(self) -> FeatureMoments:
        """Of all images but the test split's; only who evaluates needs them."""
        parts = [self._extract(part.images) for part in (self._splits.train, self._splits.validation)]
        return FeatureMoments.of(np.concatenate(parts))

    def _training_distance(self, x: Tensor) -> Row:
        value = FeatureMoments.of(self._extract(x)).distance(self._training)
        return {"metric": "frechet_distance_to_training", "features": self._judges["test"].name, "value": value,
                "n": len(x)}  # fmt: skip

    def finite(self, x: Tensor) -> Tensor:
        return super().finite(x).cpu() & finite_rows(torch.from_numpy(self._extract(x)))

    def seen(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1)

    def floors(self) -> Iterator[Row]:
        yield from ({**row, "split": "test"} for row in self._coverage(self._splits.train.images))
        if self._to_training:
            yield {**self._training_distance(self._splits.test.images), "split": "test"}
        for split, judge in self._judges.items():
            value, n = judge.floor(self._splits.train.images)
            yield {"metric": "frechet_distance", "features": judge.name, "value": value, "n": n, "split": split}

    def examples(self) -> Tensor | None:
        images = self._splits.test.images[:EXAMPLES]
        # latents are judged as images, which cannot be carried to t
        return as_floats(images) if images.shape[1:] == self.problem.data.shape else None

    def picture(self, samples: Tensor) -> Tensor:
        images = to_bytes_range(samples[:SHOWN])
        if images.shape[-1] > SHOWN_SIZE:
            images = nn.functional.interpolate(images.float(), SHOWN_SIZE, mode="bilinear", antialias=True)
            images = images.round().to(torch.uint8)
        return images[:, 0] if images.shape[1] == 1 else images.permute(0, 2, 3, 1)

    def real(self) -> Tensor:
        return self._splits.test.images


def _nothing() -> None:
    return None


class _OfTheLast:
    """Features that are not computed again for the images they were computed for last, or for the first of them."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._images: Callable[[], Tensor | None] = _nothing  # a weak reference: samples may fill a GPU
        self._found = np.empty(0)

    def __call__(self, images: Tensor) -> npt.NDArray[np.float64]:
        last = self._images()
        same = last is not None and images.data_ptr() == last.data_ptr() and images.stride() == last.stride()
        if last is None or not same or images.dtype != last.dtype or len(images) > len(last):
            self._images, self._found = weakref.ref(images), self._features(images)
        return self._found[: len(images)]


def image_features(name: str, device: str) -> Features:
    """Features by the name that the configuration has for them."""
    if name == "digits-CNN":
        return digits_features(device)
    if name == "patches-CNN":
        return patches_features(device)
    return inception_features(inception_location(), device=device)


def inception_location() -> str:
    """The folder, or its URI, in which Inception's weights are expected."""
    return os.environ.get("SB_INCEPTION", ".")

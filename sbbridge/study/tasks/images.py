"""Images judged by Fréchet distances."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sbbridge.data import ImageSplits
from sbbridge.metrics import FrechetJudge, digits_features, inception_features
from sbbridge.problems import BridgeProblem
from sbbridge.sampling import Samples
from sbbridge.study.tasks.base import SHOWN, Row, Task


class ImageTask(Task):
    """Images judged by Fréchet distances on validation and test splits."""

    def __init__(self, problem: BridgeProblem, splits: ImageSplits, config: Any, device: str) -> None:
        self.problem, self._splits = problem, splits
        name = config.evaluation.features
        features = (
            digits_features(device) if name == "digits-CNN" else inception_features(_inception_folder(), device=device)
        )
        self._judges = {
            split: FrechetJudge(getattr(splits, split).images, features, name) for split in ("validation", "test")
        }

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return {split: judge.n * evaluation.draws for split, judge in self._judges.items()}

    def judge(self, samples: Samples, split: str) -> Row:
        judge = self._judges[split]
        value, n = judge.distance(samples.x)
        return {"metric": "frechet_distance", "features": judge.name, "value": value, "n": n}

    def floors(self) -> Iterator[Row]:
        for split, judge in self._judges.items():
            value, n = judge.floor(self._splits.train.images)
            yield {"metric": "frechet_distance", "features": judge.name, "value": value, "n": n, "split": split}

    def picture(self, samples: Tensor) -> Tensor:
        grey = ((samples[:SHOWN] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return grey[:, 0] if grey.shape[1] == 1 else grey.permute(0, 2, 3, 1)

    def real(self) -> Tensor:
        return self._splits.test.images


def _inception_folder() -> Path:
    return Path(os.environ.get("SB_INCEPTION", "."))

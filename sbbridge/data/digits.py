"""Handwritten digits: scikit-learn's 1,797 images of 8 x 8, in [−1, 1], with a fixed stratified split."""

import numpy as np
import torch

from sbbridge.data.images import ImageSplits, LabelledImages


def digits() -> ImageSplits:
    """898 images to train on, 300 to choose by, 599 to report on; stratified by class, always the same."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    images = torch.from_numpy(np.asarray(bunch.images / 8.0 - 1.0, dtype=np.float32))[:, None]
    labels = torch.from_numpy(np.asarray(bunch.target, dtype=np.int64))
    rest, test = train_test_split(np.arange(len(labels)), test_size=599, stratify=labels, random_state=0)
    train, validation = train_test_split(rest, test_size=300, stratify=labels[rest], random_state=0)
    return ImageSplits(*(LabelledImages(images[part], labels[part]) for part in (train, validation, test)))

"""Where samples come from: distributions by formula, and data sets by name."""

from sbbridge.data.base import AbstractDistribution, DataError
from sbbridge.data.digits import ImageSplits, LabelledImages, digits
from sbbridge.data.gaussians import Gaussian, GaussianMixture, StandardNormal
from sbbridge.data.tensor import TensorData
from sbbridge.data.toy2d import Toy2D, eight_gaussians

__all__ = [
    "AbstractDistribution", "DataError", "Gaussian", "GaussianMixture", "ImageSplits", "LabelledImages",
    "StandardNormal", "TensorData", "Toy2D", "digits", "eight_gaussians",
]  # fmt: skip

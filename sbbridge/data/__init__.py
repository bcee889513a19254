"""Where samples come from: distributions by formula, and data sets by name."""

from sbbridge.data.base import AbstractDistribution, DataError
from sbbridge.data.digits import digits
from sbbridge.data.energy import DoubleWell, EnergyPrior, double_well
from sbbridge.data.gaussians import Gaussian, GaussianMixture, StandardNormal
from sbbridge.data.images import ImageData, ImageSplits, LabelledImages, as_floats
from sbbridge.data.photos import photos
from sbbridge.data.tensor import TensorData
from sbbridge.data.toy2d import Toy2D, eight_gaussians

__all__ = [
    "AbstractDistribution", "DataError", "DoubleWell", "EnergyPrior", "Gaussian", "GaussianMixture", "ImageData",
    "ImageSplits", "LabelledImages", "StandardNormal", "TensorData", "Toy2D", "as_floats", "digits", "double_well",
    "eight_gaussians", "photos",
]  # fmt: skip

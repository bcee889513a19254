"""The rule of every judge here: what is measured on numbers that are not finite is NaN, never a finite number."""

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from sbbridge.arguments import finite_rows

P = ParamSpec("P")
R = TypeVar("R")


def not_finite_share(x: Tensor) -> float:
    """The share of rows of `[n, …]` that hold NaN or infinity."""
    return float((~finite_rows(x)).double().mean())


def nan_unless_finite(measure: Callable[P, R]) -> Callable[P, R]:
    """The measure, which is NaN, each of its numbers if it has several, where an array that it is given is not finite.

    Comparisons make 0 of NaN, casts make a black image of it, and eigenvalues raise; none of that is a measurement.
    """
    kind: Any = measure.__annotations__["return"]
    nothing: Any = math.nan if kind is float else kind(*[math.nan] * len(kind._fields))

    @functools.wraps(measure)
    def measured(*args: P.args, **kwargs: P.kwargs) -> R:
        if not all(map(_is_finite, (*args, *kwargs.values()))):
            return nothing
        return measure(*args, **kwargs)

    return measured


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return not isinstance(value, np.ndarray) or bool(np.isfinite(value).all())

"""What callers pass, checked where it comes in: a refusal is one line that names the argument and what is allowed."""

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from sbbridge.types import State

T = TypeVar("T")


def whole(name: str, value: Any, least: int | None = 1) -> int:
    """A whole number of any library.

    Raises:
        ValueError: it is none, or less than `least`.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is not None and (least is None or number >= least):
        return number
    words = ["a whole number"] * (number is None and value is not None) + [f">= {least}"] * (least is not None)
    raise ValueError(f"{name} must be {' '.join(words) or 'a whole number'}, got {_shown(value)}")


def number(name: str, value: Any, allowed: str, low: float, high: float, *, open_low: bool = False,
           open_high: bool = False) -> float:  # fmt: skip
    """A real number in a range, which `allowed` says in words.

    Raises:
        ValueError: it is none, or outside.
    """
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, RuntimeError):
        found = math.nan
    above = found > low if open_low else found >= low
    below = found < high if open_high else found <= high
    if not (above and below):
        raise ValueError(f"{name} must be in {allowed}, got {_shown(value)}")
    return found


def instance(name: str, value: Any, kind: type[T] | tuple[type[T], ...], example: str) -> T:
    """An object of a kind.

    Raises:
        ValueError: it is of another; a class in the place of its instance is told so.
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__}: call it" if isinstance(value, type) else type(value).__name__
        raise ValueError(f"{name} must be {example}, got {given}")
    return value


def states(name: str, x: Any, shape: Sequence[int], device: str = "cpu", *, finite: bool = True) -> State:
    """An array-like as states `[n, *shape]`, n >= 1, in the default type.

    Raises:
        ValueError: it is no array of real numbers, has another shape, or holds NaN or infinity where `finite`.
    """
    wanted = f"[{', '.join(['n', *map(str, shape)])}]"
    try:
        found = torch.as_tensor(x)
        if found.is_complex():
            raise TypeError("complex numbers")
        found = found.to(torch.get_default_dtype())
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} must be an array of real numbers {wanted}: {reason}") from None
    if tuple(found.shape[1:]) != tuple(shape) or found.dim() != len(shape) + 1 or not len(found):
        raise ValueError(f"{name} must have the shape {wanted} with n >= 1, got {list(found.shape)}")
    bad = ~finite_rows(found)
    if finite and bad.any():
        raise ValueError(f"{name} holds NaN or infinity in {int(bad.sum())} of {len(bad)} rows, "
                         f"first row {int(bad.nonzero()[0])}")  # fmt: skip
    return found.to(device)


def finite_rows(x: Tensor) -> Tensor:
    """Which rows of `[n, …]` hold nothing but finite numbers, `[n]`."""
    return torch.isfinite(x).reshape(len(x), -1).all(1)


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, Tensor) or value.dim() == 0 else f"a tensor {list(value.shape)}"
    text = " ".join(text.split())
    return text if len(text) <= 60 else text[:57] + "…"

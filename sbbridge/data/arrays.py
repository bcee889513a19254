"""Numbers that users bring, in whatever container: the right tensor, or one line that says what is wrong."""

import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sbbridge.arguments import states
from sbbridge.data.base import DataError

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64)
_NUMBERS = (int, float, complex, np.generic)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_real(x: Any, what: str = "data") -> Tensor:
    """Real numbers as a dense tensor without gradient, of their own type where torch computes with it.

    Whole numbers and truth values are kept as they are, nothing is scaled. Read are tensors, arrays, lists of them,
    and data frames; arrays of objects where each is a number.

    Args:
        x: the numbers.
        what: they are, for messages.

    Raises:
        DataError: complex numbers, dates, text, missing or masked values, a sparse tensor, rows of unequal length.
    """
    if isinstance(x, Tensor):
        return _tensor(x, what)
    if isinstance(x, (list, tuple)) and not _plain(x):
        parts = [as_real(part, what) for part in x]
        if len({part.shape for part in parts}) > 1:
            raise DataError(f"{what} has rows of different shapes")
        return torch.stack([part.to(_common(parts)) for part in parts])
    return _from_numpy(_array(x, what), what)


def as_argument(name: str, x: Any, shape: Sequence[int], device: str, *, finite: bool = True) -> Tensor:
    """States `[n, *shape]` that a public function is given, in whatever container.

    Raises:
        ValueError: as `sbbridge.arguments.states`, and for what `as_real` refuses.
    """
    try:
        real = as_real(x, name)
    except DataError as error:
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    return states(name, real, shape, device, finite=finite)


def require_finite(x: Tensor, what: str) -> None:
    """Rows that can be used.

    Raises:
        DataError: a value is NaN, or infinite in the default type; the message names the first such row.
    """
    default = torch.get_default_dtype()
    bad = torch.cat([~torch.isfinite(rows.to(default)).flatten(1).all(1) for rows in x.flatten(1).split(4096)])
    if bad.any():
        count, first = int(bad.sum()), int(bad.nonzero()[0])
        raise DataError(f"{what} holds NaN or infinity in {count} of {len(x)} rows, first row {first}")


def _tensor(x: Tensor, what: str) -> Tensor:
    if x.is_nested or x.layout != torch.strided:
        raise DataError(f"{what} is a {'nested' if x.is_nested else x.layout} tensor: to_dense() makes it usable")
    if x.is_quantized or x.is_meta:
        raise DataError(f"{what} is a tensor without plain numbers ({'meta' if x.is_meta else x.dtype})")
    x = x.detach().resolve_conj().resolve_neg()
    if x.dtype in _FLOATS or x.dtype in _INTEGERS or x.dtype == torch.bool:
        return x
    if x.is_floating_point():  # of 8 bits, which torch stores and does not compute with
        return x.to(torch.get_default_dtype())
    raise DataError(f"{what} is {x.dtype}: expected real numbers")


def _plain(x: Any) -> bool:
    """Whether lists hold numbers and nothing that numpy would take apart wrongly."""
    return all(_plain(part) if isinstance(part, (list, tuple)) else isinstance(part, _NUMBERS) for part in x)


def _common(parts: list[Tensor]) -> torch.dtype:
    kinds = parts[0].dtype
    for part in parts[1:]:
        kinds = torch.promote_types(kinds, part.dtype)
    return kinds


def _array(x: Any, what: str) -> npt.NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        if masked := int(np.ma.getmaskarray(x).sum()):
            raise DataError(f"{what} has {masked} masked values: drop or fill them")
        return np.asarray(x.data)
    try:
        array = np.asarray(x.to_numpy() if hasattr(x, "to_numpy") else x)
    except Exception as error:  # noqa: BLE001  containers raise what they like
        shown = " ".join(str(error).split())
        raise DataError(f"{what} cannot be read as numbers: {type(x).__name__} ({shown})") from None
    return _numbers(array, what) if array.dtype == object else array


def _numbers(array: npt.NDArray[Any], what: str) -> npt.NDArray[np.float64]:
    """An array of objects as what they are, if all of them are real numbers."""
    for place, value in np.ndenumerate(array):
        if not isinstance(value, (Real, np.bool_)):
            at = f" at {list(place)}" if place else ""
            raise DataError(f"{what} holds {type(value).__name__} {str(value)[:40]!r}{at}: expected numbers")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{what} cannot be read as numbers ({error})") from None


def _from_numpy(array: npt.NDArray[Any], what: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} is an array of {array.dtype}: expected real numbers")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        with np.errstate(over="ignore"):
            array = array.astype(np.float64)
    array = np.asarray(array, dtype=array.dtype.newbyteorder("="))
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()  # torch has no such strides, not even of one number
    if array.flags.writeable:
        return torch.from_numpy(array)
    with warnings.catch_warnings():  # read-only: nothing here writes to data
        warnings.filterwarnings("ignore", message=".*not writable.*", category=UserWarning)
        return torch.from_numpy(array)

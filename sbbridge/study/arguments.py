"""Types of arguments, of studies and of benchmarks: what cannot be used is one line. Loads no torch before it must."""

import argparse
import math
from collections.abc import Callable

from sbbridge.study.definition import OBJECTIVES


def whole(least: int) -> Callable[[str], int]:
    """A whole number >= least, for argparse."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number >= {least}, got {text!r}")
        return value

    return read


def positive(text: str) -> float:
    """A finite number > 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number > 0, got {text!r}")
    return value


def objectives(text: str) -> tuple[str, ...]:
    """Names of what a search minimises, with commas between them, for argparse."""
    names = tuple(name.strip() for name in text.split(","))
    if not set(names) <= set(OBJECTIVES) or len(set(names)) < len(names) or "quality" not in names:
        raise argparse.ArgumentTypeError(
            f"expected quality and any of {', '.join(name for name in OBJECTIVES if name != 'quality')}, "
            f"each once, got {text!r}"
        )
    return names


def device(text: str) -> str:
    """cpu, or cuda where there is a GPU, for argparse."""
    import torch

    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu or cuda, got {text!r}")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("no GPU is here that torch can use")
    return text

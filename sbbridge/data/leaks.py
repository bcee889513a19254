"""The same image in two splits: what is trained on is then judged as if it were new."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from sbbridge.data.files import note


def tell_shared(root: Path, splits: Mapping[str, tuple[Sequence[str], Sequence[bytes]]]) -> int:
    """Counts pairs of equal images in different splits, whatever their names, and tells them in one line on stderr.

    Args:
        root: the folder of the images, for the message.
        splits: names and hashes of the images of each.

    Returns:
        The number of pairs.
    """
    counts = {split: Counter(hashes) for split, (_, hashes) in splits.items()}
    found, example = {}, ""
    for first, second in combinations(splits, 2):
        shared = counts[first].keys() & counts[second].keys()
        if not shared:
            continue
        found[f"{first} and {second}"] = sum(counts[first][one] * counts[second][one] for one in shared)
        one = next(one for one in splits[first][1] if one in shared)
        example = example or " and ".join(_name(splits[split], one) for split in (first, second))
    pairs = sum(found.values())
    if pairs:
        shares = ", ".join(f"{count} in {where}" for where, count in found.items())
        note(f"{pairs} pairs of equal images are in two splits below {root} ({shares}; for example {example}): "
             "scores against them are too good, keep one file of each")  # fmt: skip
    return pairs


def _name(split: tuple[Sequence[str], Sequence[bytes]], wanted: bytes) -> str:
    names, hashes = split
    return names[list(hashes).index(wanted)]

"""Latents of images, as `python -m sbbridge.data.encode_latents` writes them: shards and a manifest.

A folder holds `latents-00000.safetensors`, … with tensors `mean` and `std` `[n, *shape]` (float16) of the
autoencoder's posterior, and `manifest.json`, which names every shard, its SHA-256 and the images it holds, with hashes
of their pixels. The folder of these images is given as a path below the data root, an absolute path, or a URI.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sbbridge.data.base import AbstractDistribution, DataError
from sbbridge.data.decoding import decoded
from sbbridge.data.files import file_sha256, is_hidden, note
from sbbridge.data.folders import FEWEST, split_by_name
from sbbridge.data.leaks import tell_shared
from sbbridge.data.normalisation import Normalisation
from sbbridge.data.placing import Location, joined, placed, shown
from sbbridge.data.weights import read_safetensors
from sbbridge.rng import Stream
from sbbridge.types import State

MANIFEST = "manifest.json"
VERSION = 1
_AT_ONCE = 4096
_REMEDY = "run python -m sbbridge.data.encode_latents again with the same arguments: it makes what is not intact anew"


class LatentShard(NamedTuple):
    """Posterior means and standard deviations `[n, *shape]`."""

    mean: Tensor
    std: Tensor


@final
class LatentData(AbstractDistribution):
    """scale · (mean + std · noise): latents of images drawn with replacement, the posterior sampled anew at each draw.

    Args:
        shards: of one shape of latents; may be memory-mapped.
        scale: the autoencoder's scaling factor, or its whole normalisation where it has means or a shift as well.
        places: `[n, 2]` (shard, row) of the latents to draw from; default: all.

    Raises:
        DataError: there are no latents, shards differ in shape, or a latent is NaN or infinite.
    """

    def __init__(self, shards: Sequence[LatentShard], scale: float | Normalisation,
                 places: Tensor | None = None) -> None:  # fmt: skip
        if places is None:
            places = torch.tensor([(i, row) for i, shard in enumerate(shards) for row in range(len(shard.mean))])
        if not len(places):
            raise DataError("there are no latents")
        shapes = {tuple(part.shape[1:]) for shard in shards for part in shard}
        if len(shapes) > 1:
            raise DataError(f"shards hold latents of different shapes: {sorted(shapes)}")
        (self._shape,) = shapes
        for number, shard in enumerate(shards):
            if not all(bool(torch.isfinite(rows).all()) for part in shard for rows in part.split(_AT_ONCE)):
                raise DataError(f"shard {number} holds latents that are NaN or infinite: encode anew")
        self.normalisation = scale if isinstance(scale, Normalisation) else Normalisation(scale)
        self.shards, self.scale, self.places = tuple(shards), self.normalisation.scale, places

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        chosen = self.places[stream.integers(step, rows, len(self.places)).cpu()]
        mean, std = self._gather(chosen, 0), self._gather(chosen, 1)
        noise = stream.child("posterior").normal(step, rows, self._shape)
        return self.normalisation.applied(mean.to(noise) + std.to(noise) * noise)

    def _gather(self, places: Tensor, part: int) -> Tensor:
        gathered = torch.empty(len(places), *self._shape)
        for shard in places[:, 0].unique().tolist():
            here = places[:, 0] == shard
            gathered[here] = self.shards[shard][part][places[here, 1]].to(gathered)
        return gathered


@final
@dataclass(frozen=True)
class LatentSplits:
    """Latents to train on, and the images that samples are judged by once they are decoded.

    Attributes:
        train: latents of the training images, 90 % by a hash of the name (see `split_by_name`).
        names: of the images of each split, relative to `images`.
        images: the folder that was encoded, or its URI.
        image_size: pixels of a side.
        normalisation: the autoencoder's.
        autoencoder: SHA-256 of its files.
    """

    train: LatentData
    names: dict[str, list[str]]
    images: Location
    image_size: int
    normalisation: Normalisation
    autoencoder: str

    @property
    def scale(self) -> float:
        """The autoencoder's scaling factor."""
        return self.normalisation.scale

    def reference(self, split: str, at_most: int | None = None) -> Tensor:
        """The split's first images, uint8 `[n, 3, image_size, image_size]`.

        Raises:
            DataError: the folder that was encoded is not there any more, or an image has changed for the worse.
        """
        folder = placed(self.images)
        if not folder.is_dir():
            raise DataError(f"latents are judged by the images they were made of, expected in {shown(self.images)} "
                            f"(\"images\" in {MANIFEST} names the folder)")  # fmt: skip
        return decoded(folder, self.names[split][:at_most], self.image_size)


def ffhq_latent(root: Location | None) -> LatentSplits:
    """Latents in the folder `ffhq_latent` below the root, split 90/5/5.

    Raises:
        DataError: there are none, too few, or a shard is torn or changed (the message names it and the remedy).
    """
    if root is None:
        raise DataError("dataset ffhq_latent needs --data-root (or SB_DATA_ROOT): the folder that holds ffhq_latent/")
    folder = placed(joined(root, "ffhq_latent"), _shard_checksums)
    manifest = read_manifest(folder)
    normalisation = Normalisation.read(manifest, f"{folder / MANIFEST}")
    shards = [_open_shard(folder / entry["file"], entry) for entry in manifest["shards"]]
    places = {name: (i, row) for i, entry in enumerate(manifest["shards"]) for row, name in enumerate(entry["names"])}
    if hidden := [name for name in places if is_hidden(name)]:
        note(f"left out of {folder}: latents of {len(hidden)} hidden images")
    names = split_by_name(sorted(places.keys() - hidden))
    fewest = min(names, key=lambda split: len(names[split]))
    if len(names[fewest]) < FEWEST:
        raise DataError(f"dataset ffhq_latent: {len(places)} latents in {folder} are too few for a split of 90/5/5 %: "
                        f"{len(names[fewest])} fall to {fewest}")  # fmt: skip
    tell_shared_latents(folder, manifest)
    train = LatentData(shards, normalisation, torch.tensor([places[name] for name in names["train"]]))
    images = joined(root, manifest["images"])
    return LatentSplits(train, names, images, manifest["image_size"], normalisation, manifest["autoencoder"])


def tell_shared_latents(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Tells the user of equal images in different splits, as far as the manifest has hashes of their pixels."""
    hashes = {
        name: bytes.fromhex(pixels) for shard in manifest["shards"]
        for name, pixels in zip(shard["names"], shard.get("pixels", ()), strict=False) if not is_hidden(name)
    }  # fmt: skip
    splits = split_by_name(sorted(hashes))
    tell_shared(folder, {split: (names, [hashes[name] for name in names]) for split, names in splits.items()})


def _shard_checksums(folder: Path) -> Mapping[str, str]:
    return {shard["file"]: shard["sha256"] for shard in read_manifest(folder)["shards"]}


def read_manifest(folder: Path) -> dict[str, Any]:
    """A latent folder's manifest.

    Raises:
        DataError: there is none, or it cannot be understood.
    """
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        known = manifest["version"] == VERSION
    except FileNotFoundError:
        raise DataError(f"no latents at {path}: make them with python -m sbbridge.data.encode_latents "
                        f"--images DIR --autoencoder DIR --output {folder}") from None  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): remove it and encode anew") from None
    if not known:
        raise DataError(f"{path} has version {manifest['version']}, this program reads {VERSION}: encode anew")
    return manifest


def intact(path: Path, sha256: str) -> bool:
    """Whether a file is there with this content."""
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns) == sha256
    except OSError:
        return False


@functools.cache
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Read once a process and state of the file: a set of FFHQ's latents has more than a gigabyte."""
    return file_sha256(path)


def _open_shard(path: Path, entry: dict[str, Any]) -> LatentShard:
    if not intact(path, entry["sha256"]):
        raise DataError(f"latent shard {path} is {'torn or changed' if path.exists() else 'missing'}: {_REMEDY}")
    tensors = read_safetensors(path)
    return LatentShard(tensors["mean"], tensors["std"])

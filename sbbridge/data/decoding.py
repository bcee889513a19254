"""Image files, decoded once into a memory-mapped array that all processes of a machine share."""

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import filelock
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sbbridge.data.base import DataError
from sbbridge.data.cache import cache_folder
from sbbridge.data.files import note, printable
from sbbridge.data.pixels import upright_rgb

Pixels: TypeAlias = npt.NDArray[np.uint8]
_VERSION = 2
"""Raised when the same file would decode to other bytes."""
_HASH = 16


def read_image(path: Path, size: int, crop: int | None = None) -> Pixels:
    """An image file as uint8 `[3, size, size]`.

    Turned upright by its EXIF tag, made RGB (see `upright_rgb`), cut to its central `crop` x `crop` pixels if asked,
    else to the largest central square, then resized (bicubic, antialiased). Of several frames the first is read.

    Raises:
        DataError: the file cannot be read or decoded, its numbers have no known range, or it is smaller than the crop.
    """
    from PIL import Image, ImageOps

    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ValueError("it is no file")
        with Image.open(path) as file:
            image = upright_rgb(file)
        if crop is not None:
            if min(image.size) < crop:
                raise ValueError(f"{image.width} x {image.height} pixels, the crop has {crop}")
            left, top = (image.width - crop) // 2, (image.height - crop) // 2
            image = image.crop((left, top, left + crop, top + crop))
        fitted = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    except FileNotFoundError:
        gone = f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "no such file"
        raise DataError(f"{path}: not a readable image ({gone})") from None
    except Exception as error:  # noqa: BLE001  decoders raise what they like at broken files
        raise DataError(f"{path}: not a readable image ({' '.join(str(error).split())})") from None
    return np.ascontiguousarray(np.asarray(fitted).transpose(2, 0, 1))


def read_images(root: Path, names: Sequence[str], size: int,
                crop: int | None = None) -> Iterator[Pixels | DataError]:  # fmt: skip
    """Image files in order, by as many threads as there are cores; a file that cannot be read yields its error."""

    def read(name: str) -> Pixels | DataError:
        try:
            return read_image(root / name, size, crop)
        except DataError as error:
            return error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), 256):  # so that few images wait in memory
            yield from pool.map(read, names[start : start + 256])


def progress(words: str, total: int, done: int = 0, always: bool = False, unit: str = "image") -> Any:
    """tqdm's line on stderr, with the time left: on terminals, or everywhere."""
    terminal = sys.stderr.isatty()
    return import_module("tqdm").tqdm(
        desc=words, total=total, initial=done, unit=unit, unit_scale=unit == "B", file=sys.stderr,
        disable=not (terminal or always), mininterval=0.2 if terminal else 10.0, dynamic_ncols=terminal,
    )  # fmt: skip


class Decoded(NamedTuple):
    """Image files as one uint8 array `[n, 3, size, size]`, their names and hashes of their pixels."""

    images: Tensor
    names: list[str]
    hashes: list[bytes]


def pixel_hash(image: Pixels) -> bytes:
    """Equal for equal pixels, 16 bytes."""
    return hashlib.blake2b(image.tobytes(), digest_size=_HASH).digest()


def decoded(root: Path, names: Sequence[str], size: int, crop: int | None = None, skip_bad: bool = False) -> Tensor:
    """The images of `decode_all` alone."""
    return decode_all(root, names, size, crop, skip_bad).images


def decode_all(root: Path, names: Sequence[str], size: int, crop: int | None = None,
               skip_bad: bool = False) -> Decoded:  # fmt: skip
    """Image files as one array, mapped from a file in the cache folder, and a hash of each one's pixels.

    The array is made by the first process that asks and found by all others; a file that is added, removed or changed
    makes another one, and one that is torn is made again. The cache folder may be emptied at any time.

    Args:
        root: the folder that `names` are relative to.
        names: of the files, in the order of the result.
        size, crop: see `read_image`.
        skip_bad: leave out files that cannot be decoded, and say how many on stderr.

    Raises:
        DataError: a file cannot be decoded, or the cache folder's disk has too little room.
    """
    entry = cache_folder() / f"images-{_fingerprint(root, names, size, crop)}"
    entry.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{entry}.lock"):
        if not _whole(entry, (len(names), 3, size, size)):
            shutil.rmtree(entry, ignore_errors=True)
            _make(entry, root, names, size, crop)
    bad: dict[str, str] = json.loads((entry / "bad.json").read_text())
    if bad and not skip_bad:
        raise DataError(f"{len(bad)} of {len(names)} images cannot be used (--skip-bad leaves them out), the first is "
                        f"{next(iter(bad.values()))}")  # fmt: skip
    if bad:
        note(f"left out {len(bad)} of {len(names)} images below {root}: they cannot be decoded, the first is "
             f"{next(iter(bad))}")  # fmt: skip
    good = [name for name in names if name not in bad]
    images = torch.from_numpy(np.load(entry / "images.npy", mmap_mode="c"))[: len(good)]
    return Decoded(images, good, [bytes(row) for row in np.load(entry / "hashes.npy")[: len(good)]])


def _fingerprint(root: Path, names: Sequence[str], size: int, crop: int | None) -> str:
    """Names, sizes and times of change of the files, and what is made of them."""
    state = hashlib.sha256(json.dumps([_VERSION, size, crop]).encode())
    for name in names:
        try:
            status = (root / name).stat()
            known = [name, status.st_size, status.st_mtime_ns]
            if not os.access(root / name, os.R_OK):
                known.append("unreadable")  # permission may come without a change of the file
        except OSError as error:  # a dangling link; it is named, or left out, when it is read
            known = [name, str(error.strerror)]
        state.update(json.dumps(known).encode())
    return state.hexdigest()[:24]


def _whole(entry: Path, shape: tuple[int, ...]) -> bool:
    try:
        json.loads((entry / "bad.json").read_text())
        hashes = np.load(entry / "hashes.npy", mmap_mode="r").shape
        return np.load(entry / "images.npy", mmap_mode="r").shape == shape and hashes == (shape[0], _HASH)
    except (OSError, ValueError, EOFError):
        return False


def _make(entry: Path, root: Path, names: Sequence[str], size: int, crop: int | None) -> None:
    """Decodes into a folder beside the entry and renames it: a killed process leaves nothing that looks whole."""
    partial = entry.with_name(f"{entry.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    needed, free = len(names) * 3 * size * size, shutil.disk_usage(entry.parent).free
    if needed > free:
        raise DataError(f"decoded images need {needed / 1e9:.1f} GB in {entry.parent}, which has {free / 1e9:.1f} GB "
                        "(SB_CACHE names another folder)")  # fmt: skip
    partial.mkdir()
    images = np.lib.format.open_memmap(partial / "images.npy", "w+", np.uint8, (len(names), 3, size, size))
    hashes = np.zeros((len(names), _HASH), np.uint8)
    bad: dict[str, str] = {}
    with progress(f"decoding {printable(root.name)}", len(names)) as bar:
        for index, image in enumerate(read_images(root, names, size, crop)):
            if isinstance(image, DataError):
                bad[names[index]] = str(image)
            else:
                images[index - len(bad)] = image
                hashes[index - len(bad)] = np.frombuffer(pixel_hash(image), np.uint8)
            bar.update()
    images.flush()
    np.save(partial / "hashes.npy", hashes)
    (partial / "bad.json").write_text(json.dumps(bad))
    partial.rename(entry)

"""Images that the user has as files: CelebA in torchvision's format, and any folder."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from sbbridge.data.base import DataError
from sbbridge.data.decoding import Decoded, decode_all
from sbbridge.data.files import is_hidden, name_bytes, note
from sbbridge.data.images import ImageSplits, LabelledImages
from sbbridge.data.leaks import tell_shared
from sbbridge.data.placing import Location, joined, placed

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_OTHER = frozenset({".tif", ".tiff", ".gif", ".avif", ".heic", ".jp2", ".jfif", ".pgm", ".ppm", ".pnm"})
"""Suffixes of images that are not read: where there are any, the user is told."""
SPLITS = ("train", "validation", "test")
CELEBA_CROP = 140
FEWEST = 10
"""Images of a split below which it judges nothing: neighbourhoods and kernels need several."""


def celeba(root: Location | None, size: int = 64, skip_bad: bool = False) -> ImageSplits:
    """CelebA's official partition: 162,770, 19,867 and 19,962 aligned faces, uint8 `[3, size, size]`.

    The central 140 x 140 pixels of the aligned 178 x 218, resized (bicubic, antialiased); no classes. Never downloads.

    Raises:
        DataError: the lists or the images are not below the root, fail torchvision's checksums, or cannot be decoded.
    """
    if root is None:
        raise DataError("dataset celeba needs --data-root (or SB_DATA_ROOT): the folder that holds celeba/")
    folder = placed(joined(root, "celeba"), _celeba_checksums)
    return _splits(folder / "img_align_celeba", _celeba_names(folder.parent), size, CELEBA_CROP, skip_bad)


def _celeba_checksums(folder: Path) -> Mapping[str, str]:
    """torchvision's, of the lists; there are none of the images."""
    from torchvision.datasets import CelebA

    return {name: md5 for _, md5, name in CelebA.file_list if name.endswith(".txt")}


@functools.cache
def _celeba_names(root: Path) -> tuple[tuple[str, ...], ...]:
    """File names by split; once a process, for reading the lists takes seconds."""
    from torchvision.datasets import CelebA

    try:
        parts = [CelebA(str(root), split=split, download=False).filename for split in ("train", "valid", "test")]
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise DataError(
            f"dataset celeba: no intact copy at {root / 'celeba'} (unpack img_align_celeba.zip there, beside the list "
            f"files list_*.txt and identity_CelebA.txt): {str(error).splitlines()[0]}"
        ) from None
    return tuple(map(tuple, parts))


def celeba_hq(root: Location | None, size: int = 256, skip_bad: bool = False) -> ImageSplits:
    """The images below the folder `celeba_hq` of the root, as `image_folder` reads them.

    Raises:
        DataError: as `image_folder`.
    """
    if root is None:
        raise DataError("dataset celeba_hq needs --data-root (or SB_DATA_ROOT): the folder that holds celeba_hq/")
    return image_folder(joined(root, "celeba_hq"), size, skip_bad, "celeba_hq")


def image_folder(root: Location | None, size: int = 64, skip_bad: bool = False,
                 name: str = "image_folder") -> ImageSplits:  # fmt: skip
    """Every png, jpg, jpeg, webp and bmp file below a folder, uint8 `[3, size, size]`; no classes.

    The largest central square, resized (bicubic, antialiased). `split_by_name` makes the splits; what is hidden is
    left out (see `image_names`), and equal images in two splits are told on stderr.

    Args:
        root: the folder, or its URI; subfolders are searched, links to folders not followed.
        size: pixels of a side.
        skip_bad: leave out files that cannot be decoded.
        name: of the data set, for messages.

    Raises:
        DataError: there is no such folder, it holds too few images, or one of them cannot be decoded.
    """
    if root is None:
        raise DataError(f"dataset {name} needs --data-root (or SB_DATA_ROOT): the folder that holds the images")
    root = placed(root)
    splits = split_by_name(image_names(root, f"dataset {name}", skip_bad))
    fewest = min(splits, key=lambda split: len(splits[split]))
    if len(splits[fewest]) < FEWEST:
        raise DataError(f"dataset {name}: {sum(map(len, splits.values()))} images below {root} are too few for a split "
                        f"of 90/5/5 %: {len(splits[fewest])} fall to {fewest}")  # fmt: skip
    read = _splits(root, list(splits.values()), size, None, skip_bad)
    for split, part in zip(SPLITS, read, strict=True):
        if len(part.images) < FEWEST:
            raise DataError(f"dataset {name}: only {len(part.images)} images of {split} below {root} can be decoded")
    return read


def image_names(root: Path, what: str, skip_bad: bool = False) -> list[str]:
    """Relative names of the image files below a folder, sorted.

    Hidden images and those in hidden or tool-made folders (`.ipynb_checkpoints`, `@eaDir`, `__MACOSX`, …) are no part
    of the data; they, and links to folders, are left out and counted in one line on stderr.

    Args:
        root: the folder.
        what: needs it, for messages.
        skip_bad: leave out subfolders that cannot be read.

    Raises:
        DataError: there is no such folder, no image in it, or a subfolder cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{what}: no folder {root}")
    names: list[str] = []
    apart: Counter[str] = Counter()
    homes: Counter[str] = Counter()

    def unreadable(error: OSError) -> None:
        if is_hidden(Path(error.filename).relative_to(root).as_posix()):
            return  # lost+found is its administrator's
        if not skip_bad:
            _fail_at(what, error)
        apart["folders that cannot be read"] += 1

    for folder, folders, files in os.walk(root, onerror=unreadable):
        inside = Path(folder).relative_to(root)
        apart["links to folders"] += sum((Path(folder) / name).is_symlink() for name in folders)
        for file in files:
            name, suffix = (inside / file).as_posix(), Path(file).suffix.lower()
            if suffix in _OTHER and not is_hidden(name):
                apart[f"{suffix} files"] += 1
            elif suffix in SUFFIXES and is_hidden(name):
                homes[next((part for part in inside.parts if is_hidden(part)), "")] += 1
            elif suffix in SUFFIXES:
                names.append(name)
    if homes:
        places = ", ".join(sorted(home for home in homes if home)[:3])
        apart[f"hidden images{f' (in {places})' if places else ''}"] = homes.total()
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(apart.items()) if count)
    if not names:
        beside = f", but {told}" if told else ""
        raise DataError(f"{what}: no image ({', '.join(sorted(SUFFIXES))}) below {root}{beside}")
    if told:
        note(f"left out below {root}: {told}")
    return sorted(names)


def _fail_at(what: str, error: OSError) -> NoReturn:
    raise DataError(f"{what}: the folder {error.filename} cannot be read ({error.strerror}; --skip-bad leaves it out)")


def split_by_name(names: Sequence[str]) -> dict[str, list[str]]:
    """90, 5 and 5 % by a hash of the name: adding or removing files moves no other."""
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for name in names:
        place = int.from_bytes(hashlib.sha256(name_bytes(name)).digest()[:8], "big") % 100
        splits["train" if place < 90 else "validation" if place < 95 else "test"].append(name)
    return splits


def _splits(root: Path, parts: Sequence[Sequence[str]], size: int, crop: int | None, skip_bad: bool) -> ImageSplits:
    found = [decode_all(root, names, size, crop, skip_bad) for names in parts]
    tell_shared(root, {split: (part.names, part.hashes) for split, part in zip(SPLITS, found, strict=True)})
    return ImageSplits(*map(_unlabelled, found))


def _unlabelled(part: Decoded) -> LabelledImages:
    return LabelledImages(part.images, torch.zeros(len(part.images), dtype=torch.int64))

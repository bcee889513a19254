"""Stand-ins for image data sets that a user has on disk."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, n: int, size: tuple[int, int] = (10, 8), suffix: str = ".png") -> list[str]:
    """n images of random pixels, in two subfolders; their names."""
    generator = np.random.default_rng(0)
    names = []
    for i in range(n):
        path = root / f"part{i % 2}" / f"{i:04d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)
        names.append(path.relative_to(root).as_posix())
    return sorted(names)


def write_cifar10(root: Path, monkeypatch) -> None:
    """Six batches of 20 smooth images in torchvision's format, its checksums replaced by theirs."""
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch():
        coarse = generator.integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
        return {"data": np.kron(coarse, np.ones((8, 8), np.uint8)).reshape(20, 3072), "labels": list(range(10)) * 2}

    monkeypatch.setattr(CIFAR10, "train_list", [write(f"data_batch_{i}", batch()) for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [write("test_batch", batch())])
    filename, md5 = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {"filename": filename, "key": "label_names", "md5": md5})


def write_celeba(root: Path, monkeypatch, n: int = 12, without: str = "") -> list[int]:
    """CelebA in torchvision's format, its checksums replaced by ours; the split of every image.

    Image i is grey of value 10 (i mod 12), in a red frame outside of the central 140 x 140 pixels.
    """
    from torchvision.datasets import CelebA

    folder = root / CelebA.base_folder
    (folder / "img_align_celeba").mkdir(parents=True)
    splits = [0 if i % 4 < 2 else i % 4 - 1 for i in range(n)]
    names = [f"{i + 1:06d}.jpg" for i in range(n)]
    for i, name in enumerate(names):
        pixels = np.zeros((218, 178, 3), dtype=np.uint8)
        pixels[..., 0] = 255
        pixels[39:179, 19:159] = 10 * (i % 12)
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=100, subsampling=0)
    attributes = " ".join(f"attribute{i}" for i in range(40))
    lists = {
        "list_eval_partition.txt": [f"{name} {split}" for name, split in zip(names, splits, strict=True)],
        "identity_CelebA.txt": [f"{name} {i}" for i, name in enumerate(names)],
        "list_bbox_celeba.txt": [str(n), "image_id x_1 y_1 width height", *(f"{name} 1 2 3 4" for name in names)],
        "list_landmarks_align_celeba.txt": [str(n), "a b c", *(f"{name} {'1 ' * 10}".strip() for name in names)],
        "list_attr_celeba.txt": [str(n), attributes, *(f"{name} {'-1 ' * 40}".strip() for name in names)],
    }
    files = [("", "", "img_align_celeba.zip")]
    for name, lines in lists.items():
        content = ("\n".join(lines) + "\n").encode()
        if name != without:
            (folder / name).write_bytes(content)
        files.append(("", hashlib.md5(content).hexdigest(), name))
    monkeypatch.setattr(CelebA, "file_list", files)
    return splits

"""Encodes a folder of images into latents: python -m sbbridge.data.encode_latents --help.

The same command again keeps the intact shards and makes what is missing. Exit status: 0 finished, 1 something failed,
2 wrong input, 130 interrupted.
"""

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import filelock
import numpy as np
import safetensors.torch
import torch

from sbbridge.data.autoencoder import Autoencoder
from sbbridge.data.base import DataError
from sbbridge.data.decoding import pixel_hash, progress, read_images
from sbbridge.data.files import file_sha256, note, printable
from sbbridge.data.folders import image_names
from sbbridge.data.images import as_floats
from sbbridge.data.latents import MANIFEST, VERSION, LatentShard, intact, read_manifest, tell_shared_latents

FINISHED, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Encoding:
    """What is encoded, with what, into where.

    Attributes:
        images: folder of images, searched with its subfolders.
        autoencoder: folder of the autoencoder.
        output: folder of the latents.
        size: pixels of a side that images are brought to.
        batch_size: images encoded at once.
        shard_size: images of a shard.
        device: where the autoencoder runs.
        skip_bad: leave out images that cannot be decoded.
    """

    images: Path
    autoencoder: Path
    output: Path
    size: int = 256
    batch_size: int = 16
    shard_size: int = 1000
    device: str = "cpu"
    skip_bad: bool = False


def encode_latents(encoding: Encoding) -> dict[str, Any]:
    """Makes the shards that are missing or not intact, and returns the manifest.

    Raises:
        DataError: images or autoencoder cannot be used, the output holds other latents, or someone writes there.
    """
    names = image_names(encoding.images, "--images", encoding.skip_bad)
    if encoding.device == "cuda" and not torch.cuda.is_available():
        raise DataError("--device cuda: this machine has no CUDA device")
    autoencoder = Autoencoder(encoding.autoencoder, encoding.device)
    if encoding.size % autoencoder.factor:
        raise DataError(f"--size must be a multiple of {autoencoder.factor} for this autoencoder, got {encoding.size}")
    encoding.output.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(encoding.output / ".lock", timeout=0):
            return _encode(encoding, names, autoencoder)
    except filelock.Timeout:
        raise DataError(f"another process writes to --output {encoding.output}") from None


def _encode(encoding: Encoding, names: Sequence[str], autoencoder: Autoencoder) -> dict[str, Any]:
    manifest, path, present = _manifest(encoding, autoencoder), encoding.output / MANIFEST, set(names)
    shards = [
        shard for shard in manifest["shards"]
        if present.issuperset(shard["names"]) and intact(encoding.output / shard["file"], shard["sha256"])
    ]  # fmt: skip
    manifest |= {"shards": shards, "skipped": []}
    done = {name for shard in shards for name in shard["names"]}
    pending = [name for name in names if name not in done]
    with progress("encoding", len(names), len(done), always=True) as bar:
        for start in range(0, len(pending), encoding.shard_size):
            chunk = pending[start : start + encoding.shard_size]
            kept, hashes, latents = _encoded(encoding, chunk, autoencoder, bar)
            manifest["skipped"] += sorted(set(chunk) - set(kept))
            if kept:
                shards.append(_write_shard(encoding.output, shards, kept, latents) | {"pixels": hashes})
                shards.sort(key=lambda shard: str(shard["file"]))
            _write(path, json.dumps(manifest, indent=1).encode())
    _write(path, json.dumps(manifest, indent=1).encode())
    tell_shared_latents(encoding.images, manifest)
    return manifest


def _manifest(encoding: Encoding, autoencoder: Autoencoder) -> dict[str, Any]:
    """The output's manifest, or a new one.

    Raises:
        DataError: what is there was made of other images, by another autoencoder or at another size.
    """
    images, root = encoding.images.resolve(), encoding.output.resolve().parent
    # a data root that holds both can be moved, or copied to a bucket
    named = images.relative_to(root) if images.is_relative_to(root) else images
    wanted = {
        "version": VERSION, "images": str(named), "image_size": encoding.size,
        "autoencoder": autoencoder.sha256, **autoencoder.normalisation.written(),
    }  # fmt: skip
    if not (encoding.output / MANIFEST).exists():
        return wanted | {"shards": [], "skipped": []}
    found = read_manifest(encoding.output)
    if root / found["images"] == images:
        wanted["images"] = found["images"]
    for key, value in wanted.items():
        if found.get(key) != value:
            raise DataError(f"--output {encoding.output} holds latents with {key} {found.get(key)}, not {value}: "
                            "choose another folder")  # fmt: skip
    return found


def _encoded(encoding: Encoding, names: Sequence[str], autoencoder: Autoencoder,
             bar: Any) -> tuple[list[str], list[str], list[LatentShard]]:  # fmt: skip
    """Names and hashes of the images that can be read, and their latents in batches."""
    kept: list[str] = []
    hashes: list[str] = []
    latents: list[LatentShard] = []
    for start in range(0, len(names), encoding.batch_size):
        chosen = names[start : start + encoding.batch_size]
        images = {}
        for name, image in zip(chosen, read_images(encoding.images, chosen, encoding.size), strict=True):
            if not isinstance(image, DataError):
                images[name] = image
            elif not encoding.skip_bad:
                raise DataError(f"{image} (--skip-bad leaves such files out)")
        if images:
            kept += images
            hashes += [pixel_hash(image).hex() for image in images.values()]
            try:
                latents.append(autoencoder.encode(as_floats(torch.from_numpy(np.stack(list(images.values()))))))
            except DataError as problem:
                raise DataError(f"images {next(iter(images))} and following: {problem}") from None
        bar.update(len(chosen))
    return kept, hashes, latents


def _write_shard(folder: Path, shards: Sequence[dict[str, Any]], names: list[str],
                 latents: list[LatentShard]) -> dict[str, Any]:  # fmt: skip
    """Writes a shard under the first free number; its entry in the manifest."""
    taken = {shard["file"] for shard in shards}
    file = next(name for i in range(len(taken) + 1) if (name := f"latents-{i:05d}.safetensors") not in taken)
    mean, std = (torch.cat(parts) for parts in zip(*latents, strict=True))
    _write(folder / file, safetensors.torch.save({"mean": mean, "std": std}))
    return {"file": file, "sha256": file_sha256(folder / file), "names": names}


def _write(path: Path, content: bytes) -> None:
    """Under a temporary name, then renamed: a killed process leaves the old file or the new one."""
    temporary = path.with_name(f"{path.name}.partial")
    temporary.write_bytes(content)
    temporary.replace(path)


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"error: {printable(message)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m sbbridge.data.encode_latents", allow_abbrev=False,
        description="Encodes a folder of images into latents. The same command again continues.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="png, jpg, webp or bmp files, also in subfolders")
    add("--autoencoder", type=Path, required=True, metavar="DIR",
        help="an AutoencoderKL as diffusers saves it, e.g. sd-vae-ft-ema")  # fmt: skip
    add("--output", type=Path, required=True, metavar="DIR", help="for --dataset ffhq_latent: DATA_ROOT/ffhq_latent")
    add("--size", type=_whole, default=256, help="pixels of a side")
    add("--batch-size", type=_whole, default=16, help="images encoded at once")
    add("--shard-size", type=_whole, default=1000, help="images of a shard")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the autoencoder runs")
    add("--skip-bad", action="store_true", help="leave out files that cannot be decoded")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number >= 1, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    arguments = vars(_parser().parse_args(argv))
    debug = arguments.pop("debug")
    try:
        manifest = encode_latents(Encoding(**arguments))
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command continues\n")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  whatever it is, the user gets one line and a status
        if debug:
            traceback.print_exc()
        name = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
        note(f"error: {name}{' '.join(str(error).split())}")
        return WRONG_INPUT if isinstance(error, DataError) else FAILED
    count = sum(len(shard["names"]) for shard in manifest["shards"])
    left_out = f", {len(manifest['skipped'])} images left out" if manifest["skipped"] else ""
    output = printable(arguments["output"])
    sys.stdout.write(f"{count} latents in {len(manifest['shards'])} shards{left_out}: {output}\n")
    return FINISHED


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main())

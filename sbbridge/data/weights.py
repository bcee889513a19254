"""Model folders as diffusers writes them, and the weights in them: all of them, finite and in place, or refused."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

import safetensors.torch
import torch
from torch import Tensor, nn

from sbbridge.data.base import DataError
from sbbridge.data.files import file_sha256, is_utf8
from sbbridge.rng import isolated

_STEM = "diffusion_pytorch_model"
WEIGHTS = f"{_STEM}.safetensors"
CONFIG = "config.json"
_SHARD = re.compile(rf"{_STEM}(?:\.(?P<variant>[^.]+))?-\d+-of-\d+\.safetensors")
_WHOLE = re.compile(rf"{_STEM}(?:\.(?P<variant>[^.]+))?\.safetensors")
_INDEX = re.compile(rf"{_STEM}(?:\.(?P<early>[^.]+))?\.safetensors\.index(?:\.(?P<variant>[^.]+))?\.json")
_LFS = b"version https://git-lfs"


@final
@dataclass(frozen=True)
class ModelFolder:
    """Where a model's configuration and weights are.

    Attributes:
        path: the folder.
        files: of the weights: one, or all shards.
        index: which shard holds which weight, where there are shards.
    """

    path: Path
    files: tuple[Path, ...]
    index: Mapping[str, str] | None = None

    @property
    def sha256(self) -> str:
        """Of the one file of weights; of the configuration and all shards, where there are shards."""
        return self.sha256_with_config if self.index else _sha256(self.files[0])

    @property
    def sha256_with_config(self) -> str:
        """Of the configuration and all weights."""
        parts = (_sha256(file) for file in (self.path / CONFIG, *self.files))
        return hashlib.sha256("".join(parts).encode()).hexdigest()


def find_model(folder: Path, kind: str) -> ModelFolder:
    """The weights of a folder: one file or shards with their index; else those of its only variant (`fp16`).

    Args:
        folder: as diffusers' `save_pretrained` writes it.
        kind: the model's class, for the way to convert what is not read.

    Raises:
        DataError: there are none, they are not safetensors, several variants are there, or shards and index disagree.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found: dict[str, list[str]] = {}
    for name in names:
        index = _INDEX.fullmatch(name)
        whole = None if _SHARD.fullmatch(name) else _WHOLE.fullmatch(name)
        if index or whole:
            variant = (index["variant"] or index["early"]) if index else whole and whole["variant"]
            found.setdefault(variant or "", []).append(name)
    shards = {name: match["variant"] or "" for name in names if (match := _SHARD.fullmatch(name))}
    if not found:
        raise _without_weights(folder, kind, names, shards)
    if "" not in found and len(found) > 1:
        raise DataError(f"{folder} holds several variants ({', '.join(sorted(found))}) and no {WEIGHTS}: "
                        "keep one of them")  # fmt: skip
    variant = "" if "" in found else next(iter(found))
    if len(found[variant]) > 1:
        raise DataError(f"{folder} holds both {' and '.join(found[variant])}: which of them is meant is not known")
    (name,) = found[variant]
    if not name.endswith(".json"):
        return ModelFolder(folder, (folder / name,))
    return _sharded(folder, name, [shard for shard, of in shards.items() if of == variant])


def _without_weights(folder: Path, kind: str, names: list[str], shards: Mapping[str, str]) -> DataError:
    if shards:
        return DataError(f"no {WEIGHTS}.index.json in {folder}, which belongs to {next(iter(shards))}")
    if not any(name.endswith((".bin", ".bin.index.json")) for name in names):
        return DataError(f"no {WEIGHTS} in {folder}")
    at = repr(str(folder))
    code = f"from diffusers import {kind} as M; M.from_pretrained({at}, use_safetensors=False).save_pretrained({at})"
    return DataError(f"no {WEIGHTS}, .bin is not read (convert it: {shlex.join(['python', '-c', code])})")


def _sharded(folder: Path, name: str, there: list[str]) -> ModelFolder:
    places = read_json(folder / name).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise DataError(f"{name} has no weight_map from weights to files")
    files = sorted(set(places.values()))
    for file in files:
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise DataError(f"{name} names {file}, which is no safetensors file of this folder")
        if not (folder / file).is_file():
            raise DataError(f"{name} names {file}, which is missing")
    if unknown := sorted(set(there) - set(files)):
        raise DataError(f"{unknown[0]} is a shard that {name} does not name")
    return ModelFolder(folder, tuple(folder / file for file in files), places)


def read_weights(found: ModelFolder) -> dict[str, Tensor]:
    """All weights of a folder, as they are stored.

    Raises:
        DataError: a file is torn, or shards hold other weights than the index says.
    """
    state: dict[str, Tensor] = {}
    for file in found.files:
        part = read_safetensors(file)
        if found.index is not None:
            said = {name for name, place in found.index.items() if place == file.name}
            if wrong := sorted(said ^ part.keys()):
                problem = "lacks" if wrong[0] in said else "is not said by the index to hold"
                raise DataError(f"{file.name} {problem} {wrong[0]}")
        state |= part
    return state


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """A file's tensors, memory-mapped where its path is text.

    Raises:
        DataError: it is torn, or no such file.
    """
    try:
        if is_utf8(file):
            return safetensors.torch.load_file(str(file))
        return safetensors.torch.load(file.read_bytes())
    except Exception as error:  # noqa: BLE001  safetensors has its own
        problem = f"is torn or no checkpoint ({' '.join(str(error).split())})"
        if file.is_file() and file.open("rb").read(len(_LFS)) == _LFS:
            problem = "is a pointer of Git LFS: git lfs pull brings the weights"
        raise DataError(f"{file.name} {problem}") from None


def as_weights(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """float32 copies of weights, whatever type they are stored in.

    Raises:
        DataError: one is not of real floating-point numbers, or NaN or infinite in float32; the message names it.
    """
    weights = {}
    for name, tensor in state.items():
        if not tensor.is_floating_point() or tensor.is_quantized or tensor.layout != torch.strided or tensor.is_meta:
            raise DataError(f"{where}: {name} is {tensor.dtype}, {tensor.layout}; expected floating-point numbers")
        weights[name] = tensor.detach().to(torch.float32)
        if not torch.isfinite(weights[name]).all():
            raise DataError(f"{where}: {name} holds NaN or infinity: weights must be finite numbers")
    return weights


def load_model(folder: Path, kind: str) -> tuple[Any, ModelFolder]:
    """A diffusers model of a class, float32, in evaluation mode, without gradients, with exactly its weights.

    Raises:
        DataError: the folder describes another class, cannot be read, or its weights are not all and only the model's.
    """
    config = read_json(folder / CONFIG)
    if config.get("_class_name") != kind:
        raise DataError(f"{CONFIG} describes a {config.get('_class_name')} (allowed: {kind})")
    if config.get("quantization_config"):
        raise DataError(f"{CONFIG} has a quantization_config, which is not supported")
    found = find_model(folder, kind)
    made: Any = getattr(import_module("diffusers"), kind)
    try:
        with isolated(0):  # the weights are drawn before they are replaced
            model = made.from_config(config)
    except Exception as error:  # noqa: BLE001  diffusers has its own
        raise DataError(f"no usable {kind}: {' '.join(str(error).split())}") from None
    try:
        _fill(model, read_weights(found), found.files[0].name if len(found.files) == 1 else "its shards")
    except DataError as problem:
        raise DataError(f"no usable {kind}: {problem}") from None
    return model.float().eval().requires_grad_(False), found


def _fill(model: nn.Module, state: dict[str, Tensor], where: str) -> None:
    renamed: Any = getattr(model, "_fix_state_dict_keys_on_load", None)
    if renamed is not None:  # folders of 2022 have other names for the weights of attention
        renamed(state)
    expected = model.state_dict()
    for name in sorted(expected.keys() & state.keys()):
        if expected[name].shape != state[name].shape:
            shapes = f"{list(state[name].shape)}, expected {list(expected[name].shape)}"
            raise DataError(f"size mismatch for {name}: {shapes}")
    for words, names in (("missing", expected.keys() - state.keys()), ("unexpected", state.keys() - expected.keys())):
        if names:
            raise DataError(f"{where} is not of {CONFIG}: {len(names)} {words}_keys, the first {min(names)}")
    model.load_state_dict(as_weights(state, where))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise DataError(f"{path.name} must be a JSON object, got a {type(content).__name__}")
    return content


def _sha256(file: Path) -> str:
    try:
        return file_sha256(file)
    except OSError as error:
        raise DataError(f"{file.name} cannot be read ({error.strerror})") from None

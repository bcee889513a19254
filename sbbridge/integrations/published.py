"""Denoisers that others have trained: diffusers folders and DDPM checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final, get_args

import torch
from torch import Tensor, nn

from sbbridge.data import DataError
from sbbridge.data.files import file_sha256
from sbbridge.data.placing import Location, placed, shown
from sbbridge.data.weights import WEIGHTS, find_model, load_model, read_json
from sbbridge.integrations.conventions import Convention, Said
from sbbridge.integrations.ddpm_unet import read_ddpm_unet
from sbbridge.path import Denoiser
from sbbridge.path.denoiser import Prediction
from sbbridge.rng import Stream
from sbbridge.sde import DDPM
from sbbridge.types import Field

__all__ = ["DIGEST", "WEIGHTS", "load_denoiser", "weights_sha256"]

_EXPECTED = f"a folder with config.json and {WEIGHTS}, one with model_index.json, unet/ and scheduler/, or a checkpoint"
_PIPELINES = ("DDPMPipeline", "DDIMPipeline")
_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
_PREDICTIONS = {"epsilon": "noise", "sample": "image", "v_prediction": "v_prediction"}  # diffusers' names, ours
_REVERSED = "reversed_velocity"
DIGEST = 16
"""Digits of a denoiser's digest."""


@final
@dataclass(frozen=True)
class _Found:
    """(x, timestep) -> a value, and the images that it is for; `size` is None where the files do not tell."""

    network: nn.Module
    call: Callable[[Tensor, Tensor], Tensor]
    channels: tuple[int, int]
    size: tuple[int, int] | None


def load_denoiser(where: Location, shape: tuple[int, ...], prediction: str | None, sha256: str | None,
                  device: str, schedule: DDPM | None = None) -> Denoiser:  # fmt: skip
    """A published network as a denoiser: float32, in evaluation mode, called at t `[n]` or `[]` and x `[n, *shape]`.

    A diffusers folder holds a UNet2DModel (config.json and diffusion_pytorch_model.safetensors, its shards or its only
    variant), alone or in a DDPMPipeline or DDIMPipeline, whose scheduler tells the noise schedule (linear betas) and
    the prediction. A network that predicts v = a eps − b x0 becomes a noise predictor: eps = a v + b x. Under a
    FlowMatch scheduler it is a velocity along straight lines. A UNet2DModel without a scheduler needs `prediction`;
    noise and image need `schedule`, too; velocity is eps − x0 along straight lines, and reversed_velocity x0 − eps of a
    network whose time runs from noise at 0 to data at 1 (rectified flows are published so): it is turned round once,
    here.

    A file is a DDPM checkpoint (see `read_ddpm_unet`), a noise predictor; what it was trained on it does not tell, so
    it needs `schedule` as well.

    On a schedule of N steps the network is told the index N t − 1, at least 0, where it is not an integer (learned
    times) as a real number; along straight lines it is told N t.

    Args:
        where: the folder or file, or its URI.
        shape: of one state, [channels, height, width].
        prediction: noise, velocity, reversed_velocity or image, where the files do not tell.
        sha256: that the weights must have; None takes what is there. The denoiser's digest begins it.
        device: where the network runs.
        schedule: of networks whose files do not tell it.

    Raises:
        DataError: nothing usable is there, or it contradicts the arguments; one line that names `where`.
    """
    try:
        return _load(placed(where), shape, prediction, sha256, device, schedule)
    except DataError as problem:
        raise DataError(f"SB_DENOISER {shown(where)}: {problem}") from None


def weights_sha256(where: Location) -> str:
    """SHA-256 of the weights that `load_denoiser` would read.

    Raises:
        DataError: there are none; one line that names `where`.
    """
    try:
        here = placed(where)
        return _digest(_scheduler_of(here)[0] if here.is_dir() else here, None)
    except DataError as problem:
        raise DataError(f"{shown(where)}: {problem}") from None


def _load(where: Path, shape: tuple[int, ...], prediction: str | None, sha256: str | None,
          device: str, schedule: DDPM | None) -> Denoiser:  # fmt: skip
    if len(shape) != 3:
        raise DataError(f"published networks are for images [channels, height, width], the data are {list(shape)}")
    if where.is_dir():
        folder, settings = _scheduler_of(where)
        config = read_json(folder / "config.json")
        convention = _convention(settings, config, prediction, schedule)
        digest = _digest(folder, sha256)
        found = _unet2d(folder, config)
    elif where.is_file():
        if prediction not in (None, "noise"):
            raise DataError(f"DDPM checkpoints predict noise, method.denoiser.prediction says {prediction}")
        schedule = _demanded_schedule(schedule, "a DDPM checkpoint")
        convention = Convention("noise", schedule, schedule.num_steps)
        digest = _digest(where, sha256)
        network = read_ddpm_unet(where)
        found = _Found(network, network, (network.sizes.in_channels, network.sizes.out_channels), None)
    else:
        raise DataError(f"it does not exist, expected {_EXPECTED}")
    _require_images(found, shape)
    found.network.eval().requires_grad_(False).float().to(device)
    denoiser = convention.denoiser(found.call, digest[:DIGEST])
    _try(denoiser.field, shape, device)
    return denoiser


def _scheduler_of(where: Path) -> tuple[Path, dict[str, Any] | None]:
    """The network's folder, and the settings of its scheduler."""
    index = where / "model_index.json"
    folder = where
    if index.is_file():
        name = read_json(index).get("_class_name")
        if name not in _PIPELINES:
            raise DataError(f"model_index.json names a {name} (allowed: {', '.join(_PIPELINES)})")
        # the oldest published pipelines keep everything in one folder
        folder = where / "unet" if (where / "unet").is_dir() else where
    if not (folder / "config.json").is_file():
        raise DataError(f"no config.json in {folder}, expected {_EXPECTED}")
    for path in (where / "scheduler" / "scheduler_config.json", where / "scheduler_config.json"):
        if path.is_file():
            return folder, read_json(path)
    if index.is_file():
        raise DataError("model_index.json is there, scheduler/scheduler_config.json is not")
    return folder, None


def _convention(settings: Mapping[str, Any] | None, config: Mapping[str, Any], prediction: str | None,
                schedule: DDPM | None) -> Convention:  # fmt: skip
    if settings is None:
        return _unsaid(config.get("num_train_timesteps"), prediction, schedule)
    name = str(settings.get("_class_name"))
    said: Said
    if name.startswith("FlowMatch"):
        if settings.get("invert_sigmas"):
            raise DataError(f"{name} with invert_sigmas, whose times run from noise to data, is not supported")
        said, schedule, steps = "velocity", None, _number(settings, "num_train_timesteps")
    elif name in _SCHEDULERS:
        schedule = _schedule(settings)
        steps = schedule.num_steps
        told = settings.get("prediction_type")
        if told is None:
            problem = "its scheduler has no prediction_type (diffusers itself takes noise)"
            said = _demanded(prediction, ("noise", "image"), problem)
            return Convention(said, schedule, steps)
        if str(told) not in _PREDICTIONS:
            raise DataError(f"prediction_type {told} is not supported (allowed: {', '.join(_PREDICTIONS)})")
        said = cast(Said, _PREDICTIONS[told])
    else:
        raise DataError(f"scheduler {name} is not supported (allowed: {', '.join(_SCHEDULERS)}, FlowMatch…)")
    if prediction not in (None, said):
        raise DataError(f"its {name} says {said}, method.denoiser.prediction says {prediction}: leave it null")
    return Convention(said, schedule, int(steps))


def _unsaid(steps: int | None, prediction: str | None, schedule: DDPM | None) -> Convention:
    """Of a network without a scheduler, whose config may give its timesteps."""
    said = _demanded(prediction, (*get_args(Prediction), _REVERSED), "it has no scheduler that tells what it predicts")
    if prediction in ("velocity", _REVERSED):
        # timesteps of a flow: diffusers' own default, which its networks' frequencies are made for
        return Convention("velocity", None, steps or 1000, reversed=prediction == _REVERSED)
    schedule = _demanded_schedule(schedule, "a network without a scheduler")
    if steps not in (None, schedule.num_steps):
        raise DataError(f"config.json says num_train_timesteps {steps}, the reference has {schedule.num_steps}")
    return Convention(said, schedule, schedule.num_steps)


def _demanded_schedule(schedule: DDPM | None, what: str) -> DDPM:
    if schedule is None:
        raise DataError(f"{what} does not tell its noise schedule: set reference.kind=ddpm with its num_steps, "
                        "first_beta and last_beta")  # fmt: skip
    return schedule


def _demanded(prediction: str | None, allowed: tuple[str, ...], problem: str) -> Said:
    if prediction not in allowed:
        given = "" if prediction is None else f", got {prediction}"
        raise DataError(f"{problem}: set method.denoiser.prediction (allowed: {', '.join(allowed)}){given}")
    return cast(Said, prediction)


def _schedule(settings: Mapping[str, Any]) -> DDPM:
    kind = settings.get("beta_schedule")
    if kind != "linear" or settings.get("trained_betas") is not None or settings.get("rescale_betas_zero_snr"):
        more = [name for name in ("trained_betas", "rescale_betas_zero_snr") if settings.get(name)]
        raise DataError(f"beta_schedule {' with '.join([str(kind), *more])} is not supported (allowed: linear)")
    steps, first, last = (_number(settings, name) for name in ("num_train_timesteps", "beta_start", "beta_end"))
    try:
        return DDPM(int(steps), first, last)
    except ValueError as error:
        raise DataError(f"no usable noise schedule: {error}") from None


def _number(settings: Mapping[str, Any], name: str) -> float:
    value = settings.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise DataError(f"scheduler_config.json must give {name} as a number, got {value}")
    return value


def _digest(weights: Path, sha256: str | None) -> str:
    """Of a checkpoint, or of the weights in a diffusers folder."""
    try:
        if weights.is_dir():
            found = find_model(weights, "UNet2DModel")
            digest, name = found.sha256, found.files[0].name if not found.index else "its configuration with all shards"
        else:
            digest, name = file_sha256(weights), weights.name
    except OSError as error:
        raise DataError(f"{weights.name} cannot be read ({error.strerror})") from None
    if sha256 is not None and digest != sha256.lower():
        raise DataError(f"{name} has SHA-256 {digest}, method.denoiser.sha256 says {sha256}")
    return digest


def _unet2d(folder: Path, config: Mapping[str, Any]) -> _Found:
    if config.get("_class_name") != "UNet2DModel":
        raise DataError(f"config.json describes a {config.get('_class_name')} (allowed: UNet2DModel)")
    if config.get("time_embedding_type", "positional") != "positional":
        raise DataError(f"time_embedding_type {config['time_embedding_type']} is not supported (allowed: positional)")
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        raise DataError("it needs class labels, which are not supported")
    network, _ = load_model(folder, "UNet2DModel")
    size = network.config.sample_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = (network.config.in_channels, network.config.out_channels)
    return _Found(network, lambda x, timestep: network(x, timestep).sample, channels, size and (height, width))


def _require_images(found: _Found, shape: tuple[int, ...]) -> None:
    read, said = found.channels
    if said == 2 * read:
        raise DataError(f"{said} output channels for {read}: networks that learn the variance are not supported")
    if (read, said) != (shape[0], shape[0]):
        raise DataError(f"a network of {read} -> {said} channels for images {list(shape)}")
    if found.size is not None and found.size != shape[1:]:
        raise DataError(f"a network for images of {found.size[0]} x {found.size[1]}, the data are {list(shape)}")


@torch.no_grad()
def _try(field: Field, shape: tuple[int, ...], device: str) -> None:
    """Two images, at the middle and the end of time."""
    x = torch.randn(2, *shape, generator=Stream(0, ("published denoiser",)).generator(), dtype=torch.float32)
    try:
        value = field(torch.tensor([0.5, 1.0], dtype=torch.float64, device=device), x.to(device))
    except (RuntimeError, ValueError, TypeError) as error:
        raise DataError(f"it fails on images {list(shape)}: {' '.join(str(error).split())}") from None
    if value.shape != x.shape or not torch.isfinite(value).all():
        raise DataError(f"at a trial input of {list(x.shape)} its value is not finite numbers of that shape")

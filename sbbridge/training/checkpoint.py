"""Checkpoints: one safetensors file whose header carries the position as JSON; nothing is ever unpickled."""

import json
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sbbridge.coupling import AbstractSource
from sbbridge.methods import TrainedNetwork

VERSION = 2


def to_bytes(tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> bytes:
    """A checkpoint as one file."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata={"sbbridge": json.dumps({"version": VERSION, **position})})


def from_bytes(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and position of a checkpoint.

    Raises:
        ValueError: the file is torn or another program's.
    """
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        position = json.loads(header["__metadata__"]["sbbridge"])
        if position.pop("version") != VERSION:
            raise ValueError("it was written by another version")
        return safetensors.torch.load(data), position
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"not a usable checkpoint: {error}") from None


def gather_state(networks: Mapping[str, TrainedNetwork], optimisers: Mapping[str, torch.optim.Optimizer],
                 source: AbstractSource | None,
                 best: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:  # fmt: skip
    """Everything that the loop needs to continue, by name."""
    tensors: dict[str, Tensor] = {}
    for name, trained in networks.items():
        for key, value in trained.online.state_dict().items():
            tensors[f"online/{name}/{key}"] = value
        for key, value in trained.average.state_dict().items():
            tensors[f"average/{name}/{key}"] = value
    for name, optimiser in optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"optimiser/{name}/{index}/{key}"] = torch.as_tensor(value)
    for name, state in best.items():
        for key, value in state.items():
            tensors[f"best/{name}/{key}"] = value
    if source is not None:
        for key, value in source.state().items():
            tensors[f"source/{key}"] = value
    return tensors


def load_networks(networks: Mapping[str, TrainedNetwork], tensors: Mapping[str, Tensor]) -> None:
    """Puts weights and averages back."""
    for name, trained in networks.items():
        trained.online.load_state_dict(_below(tensors, f"online/{name}/"))
        trained.average.load_state_dict(_below(tensors, f"average/{name}/"))


def load_best(networks: Mapping[str, TrainedNetwork], tensors: Mapping[str, Tensor],
              device: str) -> dict[str, dict[str, Tensor]]:  # fmt: skip
    """The averages of the best candidate so far, by network; empty where none was chosen."""
    found = {name: _below(tensors, f"best/{name}/") for name in networks}
    return {name: {key: value.to(device) for key, value in state.items()} for name, state in found.items() if state}


def load_optimiser(network: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts the moments of a network's optimiser back; its options are the configuration's."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in _below(tensors, f"optimiser/{network}/").items():
        index, key = path.split("/")
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def load_source(source: AbstractSource, tensors: Mapping[str, Tensor], device: str) -> None:
    """Puts the source's pairs back."""
    source.load_state({key: value.to(device) for key, value in _below(tensors, "source/").items()})


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

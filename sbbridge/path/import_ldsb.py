"""Reads the paths that the authors of LDSB released: python -m sbbridge.path.import_ldsb --help.

A release is two networks for one number of steps: FILE_A gives the image ratios, FILE_B the noise ratios. Exit status:
0 done, 1 something failed, 2 wrong input.
"""

import argparse
import io
import json
import pickle
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, final

import numpy as np
import torch
from torch import Tensor, nn

from sbbridge.networks import EfficientKAN
from sbbridge.networks.kan import ORDER
from sbbridge.networks.ratios import WIDTHS
from sbbridge.path.denoiser import Timesteps
from sbbridge.path.gaussian import GaussianPath
from sbbridge.path.ratio import CHAIN, RatioNodes, RatioPath, ratio_nodes
from sbbridge.path.scheduler import scheduler_config
from sbbridge.types import Time

FINISHED, FAILED, WRONG_INPUT = 0, 1, 2
_GRID = "layers.0.grid"
_File: TypeAlias = str | Path


class ReleaseError(ValueError):
    """A file is no network of the release, or does not fit the others or the number of steps."""


def load_ratio_network(file: _File) -> nn.Module:
    """The network of one file, `[state_dict, Adam state, scheduler state, epoch, step]` or a state_dict alone.

    Called as (k / N, node), `[n]`, it gives the ratio of node k, `[n, 1]`. Its grid size is that of the file's splines.
    Nothing in a file is executed.

    Raises:
        ReleaseError: the file cannot be read, is torn, would execute code, or holds other keys, widths or grids.
    """
    weights = _state_dict(_content(file), file)
    grid_size = _grid_size(weights, file)
    expected = EfficientKAN(grid_size).build((), 0)
    wanted = {name.removeprefix("inner."): value for name, value in expected.state_dict().items()}
    _require_names(weights, wanted, file)
    _require_values(weights, wanted, grid_size, file)
    expected.load_state_dict({f"inner.{name}": value for name, value in weights.items()})
    return expected.eval().requires_grad_(False)


def import_path(file_a: _File, file_b: _File, steps: int, as_printed: bool = False) -> RatioPath:
    """The path of two released files, a_k = prod_{i <= k} alpha_i with alpha_0 := 1, b_k = prod_{i >= k} beta_i.

    Source: LDSB (Qiu et al. 2025, arXiv 2502.19754), Tab. 6 and its code. Times are those of DDPM's chain,
    (i + 1) / 1000 for index i = 1000 k / N; the networks are told k / N.

    Args:
        file_a, file_b: of the image and of the noise ratios.
        steps: N, a divisor of 1000.
        as_printed: b as the released code computed it, and Tab. 6 prints it. It looks for times >= t_k in float32 and
            misses node k itself where fp32(i fp32(1 / 1000)) > fp32(i / 1000): b_k is b_{k+1} there, at the last 1.

    Raises:
        ReleaseError: a file is none of the release, the files differ in grid size, or steps do not divide 1000.
    """
    release = _read(file_a, file_b, steps)
    return release.printed if as_printed else release.path


@final
@dataclass(frozen=True)
class _Release:
    nodes: RatioNodes
    image_ratio: Tensor
    noise_ratio: Tensor
    grid_size: int

    @property
    def path(self) -> RatioPath:
        return self.nodes.compose(self.image_ratio, self.noise_ratio)

    @property
    def printed(self) -> RatioPath:
        path = self.path
        noise, above = path.noise.clone(), torch.cat([path.noise[1:], path.noise.new_ones(1)])
        noise[self.dropped] = above[self.dropped]
        return replace(path, noise=noise)

    @property
    def indices(self) -> list[int]:
        """Of the chain, as the paper counts time."""
        return [CHAIN // len(self.nodes) * k for k in range(len(self.nodes))]

    @property
    def dropped(self) -> list[int]:
        """Nodes k that lose beta_k in the released code."""
        index = np.array(self.indices, dtype=np.float32)
        late = index * np.float32(1 / CHAIN) > index / np.float32(CHAIN)
        return [int(k) for k in np.flatnonzero(late)]

    @property
    def looks_swapped(self) -> bool:
        """The ratios are nearer to the original path's with A and B exchanged."""
        given = torch.stack([self.image_ratio, self.noise_ratio])[:, 1:]
        original = torch.stack([self.nodes.image_ratio, self.nodes.noise_ratio])[:, 1:]
        return bool((given - original.flip(0)).abs().sum() < (given - original).abs().sum())


def _read(file_a: _File, file_b: _File, steps: int) -> _Release:
    if steps < 2 or CHAIN % steps:
        raise ReleaseError(f"steps must be >= 2 and divide {CHAIN}, got {steps}")
    nodes = ratio_nodes(_ddpm(), "leading_uniform", steps, "code", chain=CHAIN)
    networks = [load_ratio_network(file) for file in (file_a, file_b)]
    sizes = [network.state_dict()[f"inner.{_GRID}"].shape[1] - 2 * ORDER - 1 for network in networks]
    if sizes[0] != sizes[1]:
        raise ReleaseError(f"{file_a} has splines of G = {sizes[0]} intervals, {file_b} of {sizes[1]}: "
                           "they are of different numbers of steps")  # fmt: skip
    k = torch.arange(steps)
    ratios = [network(k.double() / steps, k).double().squeeze(1) for network in networks]
    for file, ratio in zip((file_a, file_b), ratios, strict=True):
        if not (ratio > 0).all():
            raise ReleaseError(f"{file} gives a ratio of 0, or none, at one of {steps} nodes")
    return _Release(nodes, ratios[0], ratios[1], sizes[0])


def _ddpm() -> GaussianPath:
    """DDPM's chain (Ho et al. 2020, Sec. 4) at its times (i + 1) / 1000 and no others: `sbbridge.sde` stands above."""
    log_kept = torch.log1p(-torch.linspace(1e-4, 2e-2, CHAIN, dtype=torch.float64)).cumsum(0)

    def at(t: Time) -> Tensor:
        return log_kept[(CHAIN * t).round().long() - 1]

    return GaussianPath(lambda t: (at(t) / 2).exp(), lambda t: (-torch.expm1(at(t))).sqrt())


def _content(file: _File) -> Any:
    try:
        content = io.BytesIO(Path(file).read_bytes())
    except OSError as error:
        raise ReleaseError(f"cannot read {file}: {error.strerror or error}") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of several lines, on what the one line below says
            return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  torch, zip and pickle have a dozen kinds for broken files
        unsafe = isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error).upper()
        reason = "would execute code when read" if unsafe else "is torn, or no file of torch.save"
        raise ReleaseError(f"{file} {reason}") from None


def _state_dict(content: Any, file: _File) -> dict[str, Tensor]:
    if isinstance(content, list | tuple) and content:
        content = content[0]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ReleaseError(f"{file} holds no weights: expected a state_dict, or a list that begins with one")
    return {str(name): value for name, value in content.items()}


def _grid_size(weights: Mapping[str, Tensor], file: _File) -> int:
    """G, from the G + 7 knots of the first layer."""
    grid = weights.get(_GRID)
    if grid is None:
        raise ReleaseError(f"{file} is no network of the release: it has no {_GRID}")
    if grid.dim() != 2 or grid.shape[1] < 2 * ORDER + 2:
        raise ReleaseError(f"{file}: {_GRID} is {list(grid.shape)}, expected [1, G + {2 * ORDER + 1}]")
    return grid.shape[1] - 2 * ORDER - 1


def _require_names(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: _File) -> None:
    for word, names in (("lacks", set(wanted) - set(weights)), ("has unknown", set(weights) - set(wanted))):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ReleaseError(f"{file} {word} {', '.join(sorted(names)[:3])}{more}")


def _require_values(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], grid_size: int, file: _File) -> None:
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise ReleaseError(
                f"{file}: {name} is {list(value.shape)}, expected {list(wanted[name].shape)} (widths "
                f"{'-'.join(map(str, WIDTHS))}, and G = {grid_size} as {_GRID} says)"
            )
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise ReleaseError(f"{file}: {name} must hold finite floating-point numbers")
        if name.endswith("grid") and not torch.allclose(value.to(wanted[name]), wanted[name], rtol=0, atol=1e-5):
            raise ReleaseError(f"{file}: {name} is not the uniform grid of {grid_size} intervals over [0, 1]")


def _table(release: _Release, path: RatioPath) -> str:
    """Per node: time as an index of the chain, ratios as the networks say them, a, b, and the original a, b."""
    original = release.nodes.original
    columns = [release.image_ratio, release.noise_ratio, path.image, path.noise, original.image, original.noise]
    titles = ("alpha", "beta", "a", "b", "original a", "original b")
    lines = [f"{'t':>4}" + "".join(f"{title:>12}" for title in titles)]
    for index, row in zip(release.indices, torch.stack(columns, dim=1).tolist(), strict=True):
        lines.append(f"{index:>4}" + "".join(f"{value:>12.5f}" for value in row))
    return "\n".join(lines)


def _notes(release: _Release, as_printed: bool) -> list[str]:
    """What a reader of the table should know."""
    steps = len(release.nodes)
    notes = ["a(0) is 1, as in the released code: alpha(0) is not used"]
    if release.grid_size != 2 * steps:
        notes.append(f"the splines have G = {release.grid_size} intervals, not 2 N = {2 * steps}: the release would "
                     f"have them for {release.grid_size / 2:g} steps, and ratios hold for one N alone")  # fmt: skip
    if release.looks_swapped:
        notes.append("FILE_A's ratios resemble noise ratios and FILE_B's image ratios: are they swapped?")
    dropped = ", ".join(str(release.indices[k]) for k in release.dropped)
    if as_printed:
        notes.append(f"as printed: beta is dropped from b at t = {dropped}" if dropped else
                     "as printed: the same, the released code drops no beta at these nodes")  # fmt: skip
    elif dropped:
        notes.append(f"the released code drops beta from b at t = {dropped}; --as-printed gives its b")
    return notes


def _write(path: RatioPath, file: Path) -> None:
    """Under a temporary name, then renamed; the JSON of LDSBScheduler, for a noise predictor on DDPM's chain."""
    content = scheduler_config(path, Timesteps("noise", chain=True, count=CHAIN))
    temporary = file.with_name(f"{file.name}.partial")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(file)
    except OSError as error:
        raise ReleaseError(f"cannot write --output {file}: {error.strerror or error}") from None


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m sbbridge.path.import_ldsb", allow_abbrev=False,
        description="Prints the path that two released files of LDSB stand for.",
    )  # fmt: skip
    add = parser.add_argument
    add("file_a", type=Path, metavar="FILE_A", help="network of the image ratios alpha")
    add("file_b", type=Path, metavar="FILE_B", help="network of the noise ratios beta")
    add("--steps", type=int, required=True, metavar="N", help="steps that the files were made for; divides 1000")
    add("--output", type=Path, metavar="PATH.json", help="writes times, a and b as the JSON of LDSBScheduler")
    add("--as-printed", action="store_true", help="b as the released code computed it: some nodes drop their own beta")
    add("--debug", action="store_true", help="show tracebacks")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    release = _read(arguments.file_a, arguments.file_b, arguments.steps)
    path = release.printed if arguments.as_printed else release.path
    if arguments.output is not None:
        if arguments.output.resolve() in (arguments.file_a.resolve(), arguments.file_b.resolve()):
            raise ReleaseError(f"--output {arguments.output} is one of the files that are read")
        _write(path, arguments.output)
    sys.stdout.write(_table(release, path) + "\n")
    sys.stderr.write("".join(f"note: {note}\n" for note in _notes(release, arguments.as_printed)))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _run(arguments)
    except Exception as error:  # noqa: BLE001  whatever it is, the user gets one line and a status
        if arguments.debug:
            traceback.print_exc()
        name = "" if isinstance(error, ReleaseError) else f"{type(error).__name__}: "
        sys.stderr.write(f"error: {name}{' '.join(str(error).split())}\n")
        return WRONG_INPUT if isinstance(error, ReleaseError) else FAILED
    return FINISHED


if __name__ == "__main__":
    sys.exit(main())

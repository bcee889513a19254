"""What the nodes of a cluster that was joined lack: packages of the driver's versions, and a sight of the storage."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

COMPARED = ("sbbridge", "torch", "ray", "diffusers")
"""Whose versions have to be the driver's: other ones compute other numbers, or do not understand it."""
ANSWER_S = 60.0
"""A node starts a process for its answer, and may be busy."""

_SEEN = ".seen-"
_STALE_S = 3600.0


def missing(storage: Path | None = None) -> list[str]:
    """Asks all living nodes at once, each in a task of its own.

    Nodes that an autoscaler adds later are made by the same commands, and are not asked.

    Args:
        storage: a folder that all nodes have to see.

    Returns:
        A line for each thing that a node lacks.
    """
    nodes = [node for node in ray.nodes() if node["Alive"]]
    ours = _versions()
    with _probe(storage if len(nodes) > 1 else None) as probe:
        ask = ray.remote(num_cpus=0)(_question())
        there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
        asked = [ask.options(scheduling_strategy=strategy).remote(list(ours), probe) for strategy in there]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=ANSWER_S)
        lacking, blind = list[str](), list[str]()
        for node, answer in zip(nodes, asked, strict=True):
            name = node["NodeManagerAddress"]
            if answer not in ready:
                lacking.append(f"{name} does not answer within {ANSWER_S:g} s")
                continue
            try:
                theirs, sees = ray.get(answer)
            except ray.exceptions.RayTaskError as error:
                lacking.append(f"{name} cannot answer: {type(error.cause).__name__}: {error.cause}")
                continue
            except ray.exceptions.RayError:  # it has died meanwhile
                continue
            lacking += [f"{name} {line}" for line in _differences(ours, theirs)]
            blind += [] if sees else [name]
    if blind:
        lacking.append(
            f"{', '.join(sorted(blind))} cannot see {storage}: --storage has to be a URI, or a folder of all nodes"
        )
    return lacking


def _versions() -> dict[str, str]:
    """The driver's version of everything that sbbridge needs, and of itself."""
    import sbbridge

    found = {"sbbridge": sbbridge.__version__}
    with suppress(metadata.PackageNotFoundError):  # a checkout that is not installed
        for line in metadata.requires("sbbridge") or ():
            if "extra ==" not in line:
                name = _name_of(line)
                found[name] = metadata.version(name)
    for name in COMPARED[1:]:
        found.setdefault(name, metadata.version(name))
    return found


def _name_of(requirement: str) -> str:
    """The name that a requirement such as `ray[default]>=2.60` begins with."""
    return next(requirement[:i] for i, c in enumerate(f"{requirement} ") if not (c.isalnum() or c in "-_."))


def _question() -> Any:
    """A task that carries its code along, for nodes without sbbridge: (versions by name, whether the file is there)."""

    def versions_and_sight(names: list[str], probe: str | None) -> tuple[dict[str, str | None], bool]:
        import os
        from importlib import import_module, metadata, util

        found: dict[str, str | None] = {}
        for name in names:
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                found[name] = None
        here = util.find_spec("sbbridge") is not None
        found["sbbridge"] = import_module("sbbridge").__version__ if here else None
        return found, probe is None or os.path.exists(probe)  # noqa: PTH110  a path of another machine

    return versions_and_sight


def _differences(ours: dict[str, str], theirs: dict[str, str | None]) -> Iterator[str]:
    """In words; what follows a "+" is how a package was built, which may differ."""
    absent = [name for name, version in theirs.items() if version is None]
    if absent:
        yield f"lacks {', '.join(absent)} (python -m pip install -e sbbridge)"
    for name in COMPARED:
        other = theirs[name]
        if other is not None and other.partition("+")[0] != ours[name].partition("+")[0]:
            yield f"has {name} {other}, the driver {ours[name]}"


@contextmanager
def _probe(storage: Path | None) -> Iterator[str | None]:
    """A file for a while, in the storage or, where that is not made yet, in the folder that it will be in."""
    if storage is None:
        yield None
        return
    folder = next(folder for folder in (storage, *storage.parents) if folder.is_dir())
    for left in folder.glob(f"{_SEEN}*"):  # by a driver that was killed here
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_S:
                left.unlink()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=_SEEN) as file:
        yield file.name

"""The output folder: one driver at a time, one study.json that says everything resolved."""

import json
import os
import platform
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import pyarrow.fs as pafs

from sbbridge.records import SCHEMA_VERSION, without_credentials, write_file
from sbbridge.study import design
from sbbridge.study.job import commit, versions
from sbbridge.study.plan import Options, Plan

_WAY_OUT = "(use --fresh, or another --output)"


class OutputError(Exception):
    """The output folder cannot be used: it holds something else, or cannot be written."""


def lock(output: Path) -> filelock.FileLock:
    """The one-driver lock of an output folder, taken.

    Raises:
        OutputError: another driver holds it, or the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(str(output / ".lock"))
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise OutputError(f"another process is running the study in {output}") from None
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written: {error.strerror or error}") from None
    return held


def is_finished(options: Options) -> bool:
    """Whether the output holds a study that ended complete, with as many trials and seeds."""
    try:
        held = json.loads((options.output / "study.json").read_text())
        asked = options.trials <= held["trials"] and options.seeds <= len(held["seeds"])
        return asked and held["sessions"][-1]["outcome"] == "complete"
    except (OSError, ValueError, LookupError, TypeError):  # whatever is wrong with it is said when it is opened
        return False


def move_aside(output: Path) -> None:
    """Renames what is at the output, so that a fresh study can start there."""
    output.rename(output.with_name(f"{output.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}"))


class StudyFile:
    """study.json: made new, or read and compared with what the command line asks for.

    Args:
        plan: what is asked for.
        columns: of the configuration, for the record schema.

    Raises:
        OutputError: the file is torn, or another study's or configuration's.
    """

    def __init__(self, plan: Plan, columns: Mapping[str, str]) -> None:
        self.path = plan.options.output / "study.json"
        asked = json.loads(json.dumps(_fresh(plan, columns)))
        if not self.path.exists():
            self.content = asked
            self.write()
            return
        self.content = self._read()
        self._compare(asked)
        self.content |= {name: asked[name] for name in ("trials", "seeds")}

    def write(self) -> None:
        """Replaces the file, whole or not at all."""
        write_file(pafs.LocalFileSystem(), str(self.path), json.dumps(self.content, indent=1).encode())

    def _read(self) -> dict[str, Any]:
        try:
            held: dict[str, Any] = json.loads(self.path.read_text())
            missing = {"study", "dataset", "preset", "base", "space", "centre", "optuna", "sessions"} - set(held)
            if missing:
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        except (ValueError, TypeError, OSError) as error:
            raise OutputError(f"{self.path} is torn or not a study's: {error} {_WAY_OUT}") from None
        return held

    def _compare(self, asked: Mapping[str, Any]) -> None:
        held, folder = self.content, self.path.parent
        for name in ("study", "dataset", "preset"):
            if held[name] != asked[name]:
                raise OutputError(f"{folder} holds {name} {held[name]!r}, not {asked[name]!r} {_WAY_OUT}")
        for option, there, here in (
            ("--storage", held.get("storage"), asked["storage"]),
            ("--optuna-storage", held["optuna"]["storage"], asked["optuna"]["storage"]),
        ):
            if there != here:
                begun = f"{folder} was begun with {option} {there or folder}"
                raise OutputError(f"{begun}, not {here or folder} {_WAY_OUT}")
        difference = _first_difference(_bases(held), _bases(asked))
        how = _first_difference(_how(held), _how(asked))
        objectives = held["objectives"] != asked["objectives"]
        space = _spaces_differ(held["space"], asked["space"])
        if difference or how or objectives or space:
            different = difference or how or (
                f"--objectives were {', '.join(held['objectives'])}" if objectives else "the searched space differs"
            )
            raise OutputError(f"{folder} holds another configuration: {different}{_other_code(held, asked)} {_WAY_OUT}")


def _fresh(plan: Plan, columns: Mapping[str, str]) -> dict[str, Any]:
    from sbbridge.study.tasks import primary_metric

    options, name = plan.options, plan.definition.name
    problems = {}
    for dataset, base in plan.bases.items():
        metric, features = primary_metric(dataset)
        problems[dataset] = {
            "primary_metric": {"metric": metric, "features": features},
            "base": base,
            "centre": None,
            "design": design.design_json(plan.definition, plan.preset, plan.space(dataset), None),
        }
    return {
        "schema_version": SCHEMA_VERSION,
        "study": name,
        "question": plan.definition.question,
        "dataset": options.dataset,
        "preset": options.preset,
        "created": now(),
        "trials": options.trials,
        "seeds": list(range(options.seeds)),
        **next(iter(problems.values())),
        **({"problems": problems} if len(problems) > 1 else {}),
        "space": design.space_json(plan.preset),
        "objectives": list(plan.objectives),
        "asked_first": [dict(point) for point in plan.points],
        "headline_nfe": plan.preset.centre_nfe,
        "config_columns": dict(columns),
        "optuna": {**_database(plan), "algorithm": options.search_algorithm, "scheduler": options.scheduler},
        "storage": options.storage if "://" in options.storage else None,
        "versions": versions(),
        "commit": commit(),
        "hardware": _hardware(),
        "sessions": [],
    }  # fmt: skip


def _database(plan: Plan) -> dict[str, str]:
    """The search's database and its name there: many studies may share one that the user names."""
    options, name = plan.options, plan.definition.name
    if options.optuna_storage is None:
        return {"storage": "sqlite:///optuna.db", "study_name": name}
    unique = f"{name}-{options.dataset}-{options.preset}-{uuid.uuid4().hex[:8]}"
    return {"storage": without_credentials(options.optuna_storage), "study_name": unique}


def _how(study: Mapping[str, Any]) -> dict[str, Any]:
    """How the search chooses; studies of before there was a choice used these."""
    return {name: study["optuna"].get(name, before) for name, before in (("algorithm", "tpe"), ("scheduler", "none"))}


def _spaces_differ(held: list[dict[str, Any]], asked: list[dict[str, Any]]) -> bool:
    """By what the study has written down: older ones have neither conditions nor multiples."""
    common = set.intersection(*(set(entry) for entry in (*held, *asked))) if held and asked else set()
    return [{name: entry[name] for name in common} for entry in held] != [
        {name: entry[name] for name in common} for entry in asked
    ] or len(held) != len(asked)


def _other_code(held: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What else may explain a difference: the study was begun with another version of sbbridge."""
    there, here = ({"version": study.get("versions", {}).get("sbbridge"), "commit": study.get("commit")}
                   for study in (held, asked))  # fmt: skip
    told = [f"{name} {there[name]}, this is {here[name]}" for name in there if there[name] != here[name]]
    return f" (it was begun with sbbridge's {'; '.join(told)})" if told else ""


def _bases(study: Mapping[str, Any]) -> dict[str, Any]:
    problems = study.get("problems")
    return {name: problem["base"] for name, problem in problems.items()} if problems else dict(study["base"])


def _first_difference(held: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> str | None:
    for key in sorted({*held, *wanted}):
        here, there = held.get(key), wanted.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found = _first_difference(here, there, f"{path}{key}.")
            if found:
                return found
        elif here != there:
            return f"{path}{key} is {here!r} there and {there!r} here"
    return None


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu_count": os.cpu_count(), "gpus": gpus, "memory_gib": round(memory, 1), "platform": platform.platform()}


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

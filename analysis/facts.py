"""How a study was run: its title, and what is needed to repeat it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from analysis import formats
from analysis.results import Results


def title(parts: Sequence[Results]) -> str:
    """The study and its data sets: "method comparison: digits, photos"."""
    first = parts[0]
    name = first.study.get("study") or first.collected.folder.name
    names = [formats.level(results.dataset) for results in parts]
    sets = ", ".join(names) if len(names) < 6 else f"{len(names)} data sets"
    return f"{formats.level(name)}: {sets}"


def subtitle(parts: Sequence[Results]) -> str:
    """Preset, metrics, seeds and date in a line."""
    study = parts[0].study
    seeds = ", ".join(str(seed) for seed in sorted({seed for results in parts for seed in results.seeds}))
    metrics = ", ".join(dict.fromkeys(results.metric.label for results in parts))
    found = [
        f"preset {study['preset']}" if study.get("preset") else "",
        f"metric {metrics}",
        f"ablation seeds {seeds}" if seeds else "no completed ablation",
        f"created {str(study['created'])[:16].replace('T', ' ')}" if study.get("created") else "",
    ]
    return " · ".join(part for part in found if part)


def facts(parts: Sequence[Results]) -> list[tuple[str, str]]:
    """What is needed to repeat the study: versions, commit, hardware, seeds, sessions."""
    study = parts[0].study
    sessions = study.get("sessions") or []
    asked = ", ".join(str(seed) for seed in study.get("seeds") or []) or "not recorded"
    seconds = sum(session.get("seconds") or 0 for session in sessions)
    workers = ", ".join(sorted({str(session["num_workers"]) for session in sessions if session.get("num_workers")}))
    hosts = {str(run["host"]) for results in parts for runs in results.runs.values() for run in runs if run["host"]}
    versions = ", ".join(f"{name} {version}" for name, version in (study.get("versions") or {}).items())
    baselines = list(dict.fromkeys(results.design.baseline_label for results in parts))
    return [
        ("Commit", str(study.get("commit") or "not recorded")),
        ("Versions", versions or "not recorded"),
        ("Hardware", _hardware(parts[0]) or "not recorded"),
        ("Hosts", ", ".join(sorted(hosts)) or "not recorded"),
        ("Seeds asked for", asked),
        *((f"Centre{_of(results)}", _centre(results)) for results in parts),
        ("Baseline and null", "; ".join(baselines)),
        *((("Trainings", shared),) if (shared := trainings(study)) else ()),
        (
            "Sessions",
            f"{len(sessions)}, {formats.duration(seconds)} in all" + (f", {workers} workers" if workers else ""),
        ),
    ]


def trainings(study: Mapping[str, Any]) -> str:
    """How many trainings of a field were asked for and how many were done; nothing where that was not recorded."""
    phases = [
        f"{phase}: {formats.plural(asked, 'training')} of a field asked for, {done} done, {asked - done} shared"
        for phase, counted in (study.get("trainings") or {}).items()
        for asked, done in [(int(counted["asked"]), int(counted["trained"]))]
    ]
    return "; ".join(phases)


def footer(parts: Sequence[Results]) -> str:
    """Versions, commit, hardware and seeds in a line."""
    known = dict(facts(parts))
    names = ("Versions", "Commit", "Hardware", "Seeds asked for")
    return " · ".join(f"{name.lower()}: {known[name]}" for name in names)


def configuration(parts: Sequence[Results]) -> list[tuple[str, str]]:
    """The parts of study.json that were resolved, as text."""
    study = parts[0].study
    found = []
    for results in parts:
        own = results.study
        found += [
            (f"Centre{_of(results)}", (own.get("centre") or {}).get("config")),
            (f"Base{_of(results)}", own.get("base")),
            (f"Design{_of(results)}", own.get("design")),
        ]
    found += [("Search space", study.get("space")), ("Sessions", study.get("sessions"))]
    return [(name, json.dumps(value, indent=2, ensure_ascii=False)) for name, value in found if value]


def _hardware(results: Results) -> str:
    hardware = results.study.get("hardware") or {}
    gpus = ", ".join(str(gpu) for gpu in hardware.get("gpus") or []) or "no GPU"
    found = [
        f"{hardware['cpu_count']} CPU cores" if hardware.get("cpu_count") else "",
        gpus if hardware else "",
        f"{hardware['memory_gib']:g} GiB memory" if hardware.get("memory_gib") else "",
        str(hardware.get("platform") or ""),
    ]
    return ", ".join(filter(None, found))


def _centre(results: Results) -> str:
    centre = results.study.get("centre") or {}
    by = centre.get("chosen_by")
    return f"chosen by {by}, digest {centre.get('digest')}" if by else "not chosen yet"


def _of(results: Results) -> str:
    return f" ({formats.level(results.dataset)})" if results.several else ""

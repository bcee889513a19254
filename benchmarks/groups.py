"""Worker groups of the `train` launcher without a study around them: what is trained is given, times are told.

    python -m benchmarks.groups '{"workers": 2, "dashboard": true, "folder": "…",
        "groups": [[{"changes": {}, "seed": 0}]]}'

Starts a Ray of its own, runs one group after the other through `sbbridge.study.ray_train.run_workers`, each with its
jobs (changes of the default configuration, and a seed), and prints one JSON line: for every group the seconds until its
first job began, until the last one ended, and until it was gone, with the fields of every job.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes


def run_groups(folder: Path, groups: Sequence[Sequence[dict[str, Any]]], workers: int,
               dashboard: bool = True) -> list[dict[str, Any]]:  # fmt: skip
    """Runs the groups in a process of their own; their times and results."""
    task = {"workers": workers, "dashboard": dashboard, "folder": str(folder), "groups": groups}
    command = [sys.executable, "-m", "benchmarks.groups", json.dumps(task)]
    child = processes.start(command, stdout=subprocess.PIPE)
    out, _ = child.communicate()
    if child.returncode:
        raise SystemExit(f"a process of {workers} workers failed with {child.returncode}")
    told: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    return told


def main(task: dict[str, Any]) -> None:
    from sbbridge.study import environment

    environment.prepare(local=True)
    from sbbridge.study import ray_cluster
    from sbbridge.study.ray_train import run_workers

    workers, told, marker = task["workers"], [], Path(task["folder"], ".ray-session")
    marker.parent.mkdir(parents=True)
    resources = ray_cluster.Resources(workers=workers, least_workers=workers, needs_train=task["dashboard"])
    ray_cluster.start(resources, marker)
    config = {"resources": resources.worker(), "least_workers": workers, "curve": False,
              "scratch": f"{task['folder']}/.ray"}  # fmt: skip
    for group in task["groups"]:
        jobs = [_job(task["folder"], workers, **job) for job in group]
        asked = time.time()
        fields = run_workers(jobs, config)
        gone = time.time() - asked
        if any(job["status"] != "completed" for job in fields):
            raise SystemExit(str([job.get("error") for job in fields]))
        last = fields[-1]["attempt"] / 1000 + fields[-1]["seconds"]
        told.append({"began": fields[0]["attempt"] / 1000 - asked, "ended": last - asked, "gone": gone, "jobs": [
            {"digest": job.digest, **{name: result[name] for name in ("seconds", "training_seconds")}}
            for job, result in zip(jobs, fields, strict=True)
        ]})  # fmt: skip
    ray_cluster.stop(marker)
    print(json.dumps(told))


def _job(folder: str, workers: int, changes: dict[str, Any], seed: int) -> Any:
    from sbbridge import config
    from sbbridge.study.job import Job
    from sbbridge.study.space import resolve
    from sbbridge.study.trial import TrialConfig, digests

    tree = resolve(TrialConfig, config.dump(TrialConfig()), changes)
    digest, training_digest = digests(tree)
    return Job(tree, seed, "ablation", digest, training_digest, folder, config.columns(TrialConfig), "benchmark",
               launcher="train", num_workers=workers)  # fmt: skip


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

"""Time and memory of collecting and tabulating a large study, whose records it makes itself.

    python benchmarks/records_scale.py [--runs 10000] [--rows 1000] [--parts 6] [--report] [--folder DIR]
        [--output FILE.json]

Half of the runs are a search of one seed, half an ablation of settings with five seeds. Each run leaves a part of
`trials` and `--parts` parts of `metrics` (real studies: 1 and 5.3 to 5.7), most of whose rows are the curves of its
training, in a study with as many configuration columns as real ones have. Every command runs in a process of its own:
seconds from start to end, seconds of all processors (the first is half of them at best, on two), and the largest
resident memory.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbbridge.records import METRICS_SCHEMA, trial_row, trials_schema

NFE, SAMPLERS, GRIDS = (1, 2, 3, 5, 10, 20), ("exponential", "heun", "ddim"), ("trailing_uniform", "trailing_quadratic")
NOISE, COUPLING = (0.5, 1.0, 2.0, 4.0, 8.0, 20.0), ("independent", "bridge_matching", "asbm")
SEEDS, SEARCH_SEED = 5, 1_000_003
UNUSED = 140  # configuration columns that no run of this study fills
STAGES = ("cycle 1: corrector", "cycle 1: adjoint", "cycle 2: corrector", "cycle 2: adjoint", "backward")


def configuration(number: int) -> dict[str, Any]:
    """The n-th setting: noise × coupling, then learning rates."""
    noise, rest = NOISE[number % len(NOISE)], number // len(NOISE)
    coupling, rest = COUPLING[rest % len(COUPLING)], rest // len(COUPLING)
    return {
        "dataset": "digits",
        "reference": {"kind": "vp", "beta_min": 0.1, "beta_max": noise},
        "method": {"kind": "asbm", "coupling": coupling, "cycles": 2},
        "network": {"kind": "mlp", "width": 128, "depth": 2},
        "training": {"batch_size": 256, "learning_rate": 0.001 * (1 + rest)},
        "evaluation": {"nfe": list(NFE), "samplers": list(SAMPLERS), "grids": list(GRIDS), "n": 599},
    }


def digest_of(tree: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def study_of(settings: int) -> dict[str, Any]:
    centre = configuration(9)
    columns = {
        "dataset": "string", "reference.kind": "string", "reference.beta_min": "double", "reference.beta_max": "double",
        "method.kind": "string", "method.coupling": "string", "method.cycles": "int64", "network.kind": "string",
        "network.width": "int64", "network.depth": "int64", "training.batch_size": "int64",
        "training.learning_rate": "double", "evaluation.n": "int64",
        **{f"method.unused.value_{index}": "double" for index in range(UNUSED)},
    }  # fmt: skip
    rates = sorted({configuration(number)["training"]["learning_rate"] for number in range(settings)})
    factors = [("reference.beta_max", "noise β_max", NOISE), ("method.coupling", "coupling", COUPLING),
               ("training.learning_rate", "learning rate", rates)]  # fmt: skip
    return {
        "schema_version": 1, "study": "records_scale", "dataset": "digits", "preset": "scale", "trials": settings,
        "seeds": list(range(SEEDS)), "base": centre, "centre": {"config": centre, "digest": digest_of(centre)},
        "space": [{"path": path, "label": label, "values": list(values)} for path, label, values in factors],
        "design": {
            "factors": [{"path": path, "label": label, "values": list(values)} for path, label, values in factors],
            "grid": ["reference.beta_max", "method.coupling"], "arms": [],
            "baseline": {"method.coupling": "independent"},
        },
        "primary_metric": {"metric": "frechet_distance", "features": "digits-CNN"}, "config_columns": columns,
        "objectives": ["log_validation_quality", "nfe"],
    }  # fmt: skip


class Writer:
    """Writes the parts of runs as a study's store does."""

    def __init__(self, folder: Path, rows: int, parts: int, settings: int) -> None:
        self.folder, self.rows, self.parts = folder, rows, parts
        self.study = study_of(settings)
        self.generator = np.random.default_rng(0)
        self.places = [
            (split, sampler, grid, nfe)
            for split in ("validation", "test") for sampler in SAMPLERS for grid in GRIDS for nfe in NFE
        ]  # fmt: skip
        self.schema = trials_schema(self.study["config_columns"])
        for name in ("trials", "metrics"):
            (folder / "records" / name).mkdir(parents=True)
        (folder / "study.json").write_text(json.dumps(self.study), encoding="utf-8")

    def run(self, tree: dict[str, Any], seed: int, phase: str) -> None:
        digest = digest_of(tree)
        fields = {
            "study": "records_scale", "phase": phase, "digest": digest, "seed": seed, "training_digest": digest,
            "method": "asbm", "dataset": "digits", "seconds": 20.0, "simulation_evaluations": 300_000,
            "optimisation_evaluations": 500_000, "attempt": 1000, "host": "node-1", "device": "cpu",
        }  # fmt: skip
        row = trial_row(tree, self.study["config_columns"], status="completed", **fields)
        self._write("trials", f"{digest}-{seed}-{phase}-completed", pa.Table.from_pylist([row], schema=self.schema))
        table = self._metrics(tree, digest, seed, phase)
        size = -(-table.num_rows // self.parts)
        for part in range(self.parts):
            self._write("metrics", f"{digest}-{seed}-{phase}-{part}", table.slice(part * size, size))

    def _write(self, kind: str, name: str, table: pa.Table) -> None:
        path = self.folder / "records" / kind / f"{time.time_ns()}-{name}.parquet"
        pq.write_table(table, path, compression="zstd")

    def _metrics(self, tree: dict[str, Any], digest: str, seed: int, phase: str) -> pa.Table:
        """Evaluation: a metric with every sampler, two more with one; then curves up to the number of rows."""
        split, sampler, grid, nfe = (list(column) for column in zip(*self.places, strict=True))
        evaluated = len(self.places)
        curve = self.rows - evaluated - 2
        level = 30 * (1 + 0.3 * abs(np.log2(tree["reference"]["beta_max"] / 4)))
        quality = level * (1 + 5 / np.array(nfe)) * np.exp(self.generator.normal(0, 0.08, size=evaluated))
        columns: dict[str, Any] = {name: [None] * self.rows for name in METRICS_SCHEMA.names}
        columns |= {
            "digest": [digest] * self.rows, "seed": [seed] * self.rows, "phase": [phase] * self.rows,
            "stage": ["evaluation"] * (evaluated + 2) + [STAGES[k * len(STAGES) // curve] for k in range(curve)],
            "step": [None] * (evaluated + 2) + list(range(curve)),
            "sampler": [*sampler, *[None] * (curve + 2)], "grid": [*grid, *[None] * (curve + 2)],
            "num_steps": [*nfe, *[None] * (curve + 2)], "nfe": [*nfe, *[None] * (curve + 2)],
            "metric": ["frechet_distance"] * evaluated + ["frechet_distance", "straightness"] + ["loss"] * curve,
            "features": ["digits-CNN"] * (evaluated + 1) + [None] * (curve + 1),
            "split": [*split, "test", "test", *[None] * curve], "weights": ["ema"] * evaluated + [None] * (curve + 2),
            "role": ["model"] * evaluated + ["floor"] + ["model"] * (curve + 1),
            "value": [*quality, 8.0, 0.3, *self.generator.exponential(size=curve)],
            "n": [599] * (evaluated + 2) + [None] * curve, "attempt": [1000] * self.rows,
        }  # fmt: skip
        return pa.table(columns, schema=METRICS_SCHEMA)


def measured(arguments: Sequence[str]) -> dict[str, Any]:
    """Seconds and the largest resident memory of a command in a process of its own."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis", *arguments], cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    return {
        "seconds": round(seconds, 2), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "GB": round(usage.ru_maxrss / 1e6, 2), "status": process.returncode,
    }  # fmt: skip


def benchmark(folder: Path, runs: int, rows: int, parts: int, report: bool) -> dict[str, dict[str, Any]]:
    settings = max(18, runs // 2 // SEEDS)
    writer, started = Writer(folder, rows, parts, settings), time.monotonic()
    for number in range(settings):
        for seed in range(SEEDS):
            writer.run(configuration(number), seed, "ablation")
    for number in range(runs - settings * SEEDS):
        writer.run(configuration(number), SEARCH_SEED, "search")
    print(f"{runs} runs of {rows} rows in {parts} parts, made in {time.monotonic() - started:.0f} s", flush=True)
    commands: dict[str, list[str]] = {
        "collect": ["collect", str(folder)],
        "collect again": ["collect", str(folder)],
        "collect one more run": ["collect", str(folder)],
        "table": ["table", str(folder)],
        "table noise x coupling": ["table", str(folder), "--rows", "beta_max", "--columns", "coupling"],
        "effects": ["effects", str(folder)],
        **({"report": ["report", str(folder)]} if report else {}),
    }
    found = {}
    for name, arguments in commands.items():
        if name == "collect one more run":
            writer.run(configuration(settings), 0, "ablation")
        found[name] = measured(arguments)
        row = found[name]
        print(
            f"{name:24s} {row['seconds']:8.1f} s {row['cpu_seconds']:8.1f} s of processor {row['GB']:6.2f} GB",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000, help="rows of metrics a run leaves")
    parser.add_argument("--parts", type=int, default=6, help="part files that they are in")
    parser.add_argument("--report", action="store_true", help="measure the report, too")
    parser.add_argument("--folder", type=Path, help="where to make the records (default: a temporary folder)")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        found = benchmark(folder, arguments.runs, arguments.rows, arguments.parts, arguments.report)
    if arguments.output:
        sizes = {"runs": arguments.runs, "rows": arguments.rows, "parts": arguments.parts}
        arguments.output.write_text(json.dumps({**sizes, "commands": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

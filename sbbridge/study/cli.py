"""The command line of every study script. Loads neither torch nor Ray before its arguments are known to be good."""

import argparse
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from sbbridge.study.arguments import objectives, positive, whole
from sbbridge.study.definition import DATASETS, OBJECTIVES, SCHEDULERS, SEARCH_ALGORITHMS, Definition

FINISHED, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
ADDRESS_TIMEOUT_S = 3.0
SHOWN_FAILURES = 3
WRONG_BY_USER = {
    "WrongInput", "ConfigurationError", "OutputError", "DataError", "MissingWeights", "ResourceError", "BatchTooLarge",
    "DatabaseError",
}  # fmt: skip
"""Errors that are the user's to mend, by name: naming them here loads nothing."""


class WrongInput(Exception):
    """Something on the command line cannot be used; one line."""


def main(definition: Definition, report: Callable[[Path], Path], argv: Sequence[str] | None = None) -> int:
    """Runs a study script.

    Returns:
        0 finished, 1 something failed or is missing, 2 wrong input, 130 interrupted.
    """
    arguments = _parser(definition).parse_args(argv)
    try:
        return _run(definition, report, arguments)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001  whatever it is, the user gets one line and a status
        if arguments.debug:
            traceback.print_exc()
        status = _status_of(error)
        name = "" if status == WRONG_INPUT else f"{type(error).__name__}: "
        from sbbridge.records import without_credentials

        print(f"error: {name}{without_credentials(' '.join(str(error).split()))}", file=sys.stderr)
        return status


def _status_of(error: Exception) -> int:
    return WRONG_INPUT if type(error).__name__ in WRONG_BY_USER else FAILED


def _run(definition: Definition, report: Callable[[Path], Path], arguments: argparse.Namespace) -> int:
    preset = definition.presets[arguments.preset]
    dataset = arguments.dataset or ("all" if preset.together else preset.datasets[0])
    alone = "-alone" if arguments.alone else ""
    output = Path(arguments.output or f"results/{definition.name}-{dataset}-{arguments.preset}{alone}").resolve()
    storage = arguments.storage or str(output)
    address = arguments.address or os.environ.get("RAY_ADDRESS") or "local"
    _check(arguments, address, storage, preset, dataset)
    if arguments.debug:
        os.environ["SB_DEBUG"] = "1"

    from sbbridge import config
    from sbbridge.study import driver, folder, requirements
    from sbbridge.study.plan import Options, make_plan

    options = Options(
        dataset=dataset, preset=arguments.preset, output=output, storage=storage,
        trials=arguments.trials if arguments.trials is not None else 0 if arguments.alone else preset.trials,
        seeds=preset.seeds if arguments.seeds is None else arguments.seeds,
        assignments=config.parse_assignments(arguments.assignments), data_root=_absolute(arguments.data_root),
        address=address, launcher=arguments.launcher, num_workers=arguments.num_workers,
        min_workers=arguments.min_workers, use_gpu=arguments.use_gpu,
        cpus_per_worker=arguments.cpus_per_worker, gpus_per_worker=arguments.gpus_per_worker,
        max_concurrent=arguments.max_concurrent, trial_timeout=arguments.trial_timeout, patience=arguments.patience,
        search_algorithm=arguments.search_algorithm, scheduler=arguments.scheduler,
        optuna_storage=arguments.optuna_storage, skip_bad=arguments.skip_bad, objectives=tuple(arguments.objectives),
        alone=arguments.alone, start_from=arguments.start_from,
    )  # fmt: skip
    plan = make_plan(definition, options)
    _say_what_is_left_out(plan)
    if arguments.dry_run:
        found = requirements.look(plan)
        print(describe(plan, found))
        return WRONG_INPUT if found.missing else FINISHED
    _check_writable(options, arguments.fresh)
    looks = not folder.is_finished(options)  # a finished study joins no cluster
    if missing := requirements.missing(plan, looks) or requirements.open_data(plan):
        raise WrongInput("; ".join(missing))
    if arguments.fresh and output.exists():
        with folder.lock(output):  # nobody is at work in it
            pass
        folder.move_aside(output)
    with folder.lock(output):
        signal.signal(signal.SIGTERM, _interrupt)
        study = driver.Driver(plan)
        complete = study.run()
        failures = [] if complete else study.failures()
        path = output / "report.html"
        if study.started_ray or not path.exists():
            path = report(output)
    if study.started_ray:
        _say_what_it_took(study.study)
    print(f"report: {path}")
    return FINISHED if complete else _say_what_failed(failures)


def _say_what_it_took(study: Mapping[str, Any]) -> None:
    from sbbridge.study import sharing

    if shared := sharing.in_words(study["trainings"]):
        print(f"trainings: {shared}", file=sys.stderr)
    held = {name: f"{size / 2**20:.1f}" for name, size in study["sessions"][-1]["bytes"].items()}
    print(f"disk: {', '.join(f'{name} {size} MiB' for name, size in held.items())}", file=sys.stderr)


def _say_what_failed(failures: Sequence[str]) -> int:
    """The first failures; the exit status of a study that is not complete."""
    for failure in failures[:SHOWN_FAILURES]:
        print(f"failed: {failure}", file=sys.stderr)
    print("some runs failed or are missing: see the report; the same command tries them again", file=sys.stderr)
    mine = [failure.partition(":")[0] in WRONG_BY_USER for failure in failures]
    return WRONG_INPUT if mine and all(mine) else FAILED


def _say_what_is_left_out(plan: Any) -> None:
    """Rivals that cannot be are left out, and proposals that have no place here, not silently."""
    for line in (*(f"left out: {rival}" for rival in plan.left_out), *plan.dropped):
        print(line, file=sys.stderr)


def describe(plan: Any, found: Any) -> str:
    """What a dry run prints: configuration, space, number of trainings, estimate of cost, and what is missing."""
    import yaml

    from sbbridge.study.estimate import estimate

    search, ablation = plan.trainings
    denoisers = sum(phase == "denoiser" for *_, phase in plan.denoisers)
    space = "\n".join(f"  {f.label} ({f.path}): {', '.join(map(str, f.values))}" for f in plan.preset.space)
    factors = "\n".join(f"  {f.label} ({f.path}): {', '.join(map(str, f.values))}" for f in plan.preset.factors)
    missing = "".join(f"\n  {line}" for line in found.missing) or " nothing"
    return (
        f"{plan.definition.name}: {plan.definition.question}\npreset {plan.options.preset}: {plan.preset.help}\n\n"
        f"configuration\n{yaml.safe_dump(plan.base, sort_keys=False)}\nsearched\n{space}\n\nablated\n{factors}\n\n"
        f"trainings: {search} in the search, {ablation} in the ablation ({plan.options.seeds} seeds)"
        f"{f', {denoisers} of denoisers before them' if denoisers else ''}\n"
        f"estimate: {estimate(plan, found)}\noutput: {plan.options.output}\nmissing:{missing}"
    )


def _check(arguments: argparse.Namespace, address: str, storage: str, preset: Any, dataset: str) -> None:
    """Everything that can be known without torch and Ray."""
    if arguments.dataset and arguments.preset == "paper" and dataset not in preset.datasets:
        raise WrongInput(f"--preset paper is for {', '.join(preset.datasets)}, not --dataset {dataset}")
    if arguments.launcher == "inline" and arguments.num_workers > 1:
        raise WrongInput("--launcher inline runs one worker; use --launcher train with --num-workers > 1")
    if arguments.min_workers and arguments.min_workers > arguments.num_workers:
        raise WrongInput(f"--min-workers {arguments.min_workers} is more than --num-workers {arguments.num_workers}")
    if arguments.alone and (arguments.trials or arguments.start_from):
        raise WrongInput("--alone has no search: leave out --trials and --from")
    if arguments.gpus_per_worker and not arguments.use_gpu:
        raise WrongInput(f"--gpus-per-worker {arguments.gpus_per_worker:g} needs --use-gpu")
    if arguments.data_root and "://" not in arguments.data_root and not Path(arguments.data_root).is_dir():
        raise WrongInput(f"--data-root {arguments.data_root}: no such folder")
    from sbbridge.records import open_storage

    try:
        open_storage(storage)
    except ValueError as error:
        raise WrongInput(f"--storage: {error}") from None
    if arguments.optuna_storage and "://" not in arguments.optuna_storage:
        shown = arguments.optuna_storage.rpartition("@")[2]  # before that, a password may stand
        raise WrongInput(f"--optuna-storage {shown!r}: expected a URL, e.g. sqlite:////shared/a.db")
    if address not in ("local", "auto"):
        _probe(address)
    elif address == "auto" and not _cluster_file().exists() and not os.environ.get("RAY_ADDRESS"):
        raise WrongInput("--address auto: no Ray cluster runs on this machine (start one with ray start --head)")


def _cluster_file() -> Path:
    """Where Ray notes which cluster this machine belongs to."""
    return Path(os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp")), "ray", "ray_current_cluster")


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise WrongInput(f"--address {address!r}: expected local, auto or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=ADDRESS_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise WrongInput(f"--address {address}: nothing answers there ({error})") from None


def _check_writable(options: Any, fresh: bool) -> None:
    """Opens every place that results go to, before anything is written in any."""
    from sbbridge.records import check_storage
    from sbbridge.study.folder import OutputError

    output = options.output
    existing = next(folder for folder in (output, *output.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise OutputError(f"--output {output} cannot be written")
    if not fresh and output.is_dir() and any(not entry.name.startswith(".") for entry in output.iterdir()) \
            and not (output / "study.json").exists():  # fmt: skip
        raise OutputError(f"--output {output} holds other files and no study.json (use --fresh, or another --output)")
    if options.storage != str(output):
        try:
            check_storage(options.storage)
        except ValueError as error:
            raise OutputError(f"--storage {error}") from None
    if options.optuna_storage is not None:
        from sbbridge.study.database import open_database

        open_database(options.optuna_storage).engine.dispose()


def _absolute(path: str | None) -> str | None:
    return str(Path(path).resolve()) if path and "://" not in path else path or None


def _interrupt(signal_number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


class _OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_INPUT, f"error: {message}\n")


def _parser(definition: Definition) -> argparse.ArgumentParser:
    parser = _OneLineParser(
        description=f"{definition.question} Running the same command again resumes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    presets = "; ".join(f"{name}: {preset.help}" for name, preset in definition.presets.items())
    add = parser.add_argument
    add("--dataset", choices=DATASETS, help="what to learn; default: the preset's")
    add("--data-root", help="folder or URI that holds the data sets (or SB_DATA_ROOT)")
    add("--preset", choices=tuple(definition.presets), default="default", help=presets)
    add("--alone", action="store_true", help="the configuration itself: no search, no factors, no rivals")
    add("--from", dest="start_from", metavar="RESULTS",
        help="the folder of an earlier study: the search asks its best proposals first")  # fmt: skip
    add("--objectives", type=objectives, default=("quality", "nfe"), metavar="NAMES",
        help=f"what the search minimises: some of {','.join(OBJECTIVES)} (cost: of a training)")  # fmt: skip
    add("--trials", type=whole(1), help="completed search trials; a larger number extends the study")
    add("--seeds", type=whole(1), help="seeds of every cell of the ablation")
    add("--output", help="the study's folder; default: results/<study>-<dataset>-<preset>")
    add("--fresh", action="store_true", help="move what is there aside and start over")
    add("--dry-run", action="store_true",
        help="print configuration, space, cost and what is missing (status 2); start nothing")  # fmt: skip
    add("--address", help="local, auto or HOST:PORT of a Ray cluster; default: RAY_ADDRESS, else local")
    add("--launcher", choices=("auto", "inline", "train"), default="auto",
        help="inline: many small trials on CPUs; train: a Ray Train worker group a trial")  # fmt: skip
    add("--num-workers", type=whole(1), default=1, help="processes that train one model together")
    add("--min-workers", type=whole(1), help="go on with as few when nodes are lost, grow again; default: no fewer")
    add("--use-gpu", action="store_true", help="one GPU a worker")
    add("--cpus-per-worker", type=positive, default=1.0, help="CPUs of a worker")
    add("--gpus-per-worker", type=positive, default=0.0, help="GPUs of a worker; may be a fraction")
    add("--max-concurrent", type=whole(1), help="trials at once; default: as many as fit")
    add("--trial-timeout", type=positive, metavar="SECONDS", help="a trial that takes longer fails")
    add("--patience", type=whole(1), metavar="TRIALS",
        help="end the search when so many leave the Pareto front as it was")  # fmt: skip
    add("--search-algorithm", choices=SEARCH_ALGORITHMS, default="tpe",
        help="Optuna's sampler; nsga2 draws its first 50 trials at random")  # fmt: skip
    add("--scheduler", choices=SCHEDULERS, default="none",
        help="asha: the search stops the worse half early, by validation quality at equal cost")  # fmt: skip
    add("--storage", help="folder or URI for records, checkpoints and artefacts; default: the output")
    add("--optuna-storage", metavar="URL", help="Optuna's database; default: SQLite in the output")
    add("--skip-bad", action="store_true", help="leave out unreadable images, and rows that hold NaN or infinity")
    add("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE",
        help="e.g. reference.beta_max=4; a factor set here is not varied; may be repeated")  # fmt: skip
    add("--debug", action="store_true", help="show tracebacks and Ray's logs")
    return parser

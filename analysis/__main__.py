"""The command line: `python -m analysis report|collect|table|effects|compare|watch|figures|tensorboard`."""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import InputError

if TYPE_CHECKING:
    from analysis.collect import Gathered
    from analysis.tables import Table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 on success, 1 where a file of the study could not be read, 2 on wrong input."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (InputError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"analysis: {error}", file=sys.stderr)
        return 2


def report(options: argparse.Namespace) -> int:
    """Writes tables and report, prints the report's path."""
    from analysis.collect import collect
    from analysis.report import write_report_of

    collected = collect(options.folder)
    path = write_report_of(collected)
    print(path)
    return _name_problems(collected.problems)


def collect_studies(options: argparse.Namespace) -> int:
    """Brings `trials/` and `metrics/` up to date, once or again and again, and prints what they hold."""
    from analysis.collect import gather

    if not options.follow:
        return _say(gather(options.folders, options.out), set())
    worst, named = _say(found := gather(options.folders, options.out), set()), set()
    try:
        while True:
            named |= {path for study in found for path in study.problems}
            time.sleep(options.interval)
            found = gather(options.folders, options.out)
            changed = [study for study in found if study.new or not named.issuperset(study.problems)]
            worst = max(worst, _say(changed, named))
    except KeyboardInterrupt:
        return worst


def table(options: argparse.Namespace) -> int:
    """Prints or writes the table that is asked for."""
    from analysis.collect import collect
    from analysis.table_command import Request, asked_tables

    typed = {field.name: getattr(options, field.name) for field in fields(Request)}
    if options.nfe:
        typed["where"] = [*options.where, f"nfe={','.join(str(nfe) for nfe in options.nfe)}"]
    collected = collect(options.folder)
    return _write(asked_tables(collected, Request(**typed)), options, collected.problems)


def effects(options: argparse.Namespace) -> int:
    """Prints or writes main effects, importances and the optimism of the search's best."""
    from analysis.collect import collect
    from analysis.effects_command import effects_tables

    collected = collect(options.folder)
    return _write(effects_tables(collected, options.nfe), options, collected.problems)


def compare(options: argparse.Namespace) -> int:
    """Prints or writes what two studies differ in, and which metrics changed."""
    from analysis.collect import collect
    from analysis.compare import compare_tables

    left, right = collect(options.folder), collect(options.other)
    tables = compare_tables(left, right, options.metric, options.all)
    return _write(tables, options, {**left.problems, **right.problems})


def watch(options: argparse.Namespace) -> int:
    """Serves the report of a running study to this machine's browser until Ctrl-C."""
    from analysis.watch import watching

    try:
        with watching(options.folder, options.port) as (address, watched):
            lines = watched.look()
            print(f"{address} (Ctrl-C ends it)", flush=True)
            while True:
                for line in lines:
                    print(f"analysis: {line}", file=sys.stderr, flush=True)
                time.sleep(options.interval)
                lines = watched.look()
    except KeyboardInterrupt:
        return 0


def figures(options: argparse.Namespace) -> int:
    """Writes every figure of the report as a file and prints their names."""
    from analysis.collect import collect
    from analysis.figures_command import write_figures

    collected = collect(options.folder)
    paths, gaps = write_figures(collected, options.format, options.out, options.width)
    print(*paths, sep="\n")
    for path, what in gaps.items():
        print(f"analysis: {path}: {what}", file=sys.stderr)
    return max(1 if gaps else 0, _name_problems(collected.problems))


def tensorboard(options: argparse.Namespace) -> int:
    """Writes every run as an event file and prints their folder."""
    from analysis.collect import collect
    from analysis.formats import plural
    from analysis.tensorboard import write_events

    collected = collect(options.folder)
    folder, new = write_events(collected, options.out)
    print(f"{folder}: {plural(new, 'new run')}")
    return _name_problems(collected.problems)


def _say(gathered: "Sequence[Gathered]", named: set[str]) -> int:
    from analysis.formats import plural

    worst = 0
    for study in gathered:
        runs = plural(study.trials.rows, "run") if study.trials.rows else "no run has been recorded yet"
        found = f"{runs}, {plural(study.metrics.rows, 'metric')}, {plural(study.new, 'new part')}"
        print(f"{study.name}: {found}: {study.place}", flush=True)
        worst = max(worst, _name_problems({path: why for path, why in study.problems.items() if path not in named}))
    return worst


def _write(tables: "Sequence[Table]", options: argparse.Namespace, problems: dict[str, str]) -> int:
    from analysis.export import WRITERS
    from analysis.files import write_atomically

    text = "\n".join(WRITERS[options.format](table) for table in tables)
    if options.out is None:
        print(text, end="")
    else:
        write_atomically(options.out, text)
        print(options.out)
    return _name_problems(problems)


def _name_problems(problems: dict[str, str]) -> int:
    for path, reason in problems.items():
        print(f"analysis: cannot read {path}: {reason}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Turn the records of studies into tables and one offline report.",
        epilog="Exit status: 0 done; 1 done, but a file of the study could not be read (it is named); 2 wrong input.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "report", report, "collect the records, write tables/ and report.html, print the report's path")
    _collect_options(commands)
    _table_options(commands)
    text = "main effects and interaction of the ablation, importances and optimism of the search, all with intervals"
    sub = _add(commands, "effects", effects, text)
    sub.add_argument("--nfe", type=int, metavar="N", help="network calls a sample (default: as in the report)")
    _output_options(sub)
    text = "what two studies differ in: their configuration, and the metrics that changed by more than chance"
    sub = _add(commands, "compare", compare, text)
    sub.add_argument("other", metavar="DIR_B", help="the other study; differences are this one minus DIR")
    sub.add_argument("--metric", metavar="NAME", help="this metric alone")
    sub.add_argument("--all", action="store_true", help="list what did not change, too")
    _output_options(sub)
    text = "serve the report of a running study to this machine's browser, made again when records have come"
    sub = _add(commands, "watch", watch, text)
    sub.add_argument("--port", type=_port, default=8456, metavar="N", help="of 127.0.0.1 (default 8456; 0: any free)")
    sub.add_argument("--interval", type=_seconds, default=5.0, metavar="SECONDS", help="between looks (default 5)")
    text = "every figure of the report as a file for print, with its caption, by matplotlib"
    sub = _add(commands, "figures", figures, text)
    sub.add_argument("--format", choices=("pdf", "png", "svg"), default="pdf")
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to (default: figures/ in the study's folder)")
    sub.add_argument("--width", type=_inches, default=6.5, metavar="INCHES", help="default 6.5, a page; a column: 3.3")
    text = "every run as an event file for TensorBoard (tensorboard --logdir DIR/tensorboard); again: new runs alone"
    sub = _add(commands, "tensorboard", tensorboard, text)
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to (default: tensorboard/ in the study's folder)")
    return parser


def _inches(text: str) -> float:
    value = float(text)
    if not 2 <= value <= 20:
        raise argparse.ArgumentTypeError(f"{text}: not a width in inches between 2 and 20")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: not a number of seconds above 0")
    return value


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 2**16:
        raise argparse.ArgumentTypeError(f"{text}: not a port (0 to 65535)")
    return value


def _add(commands: Any, name: str, command: Callable[[argparse.Namespace], int], text: str,
         folder: bool = True) -> argparse.ArgumentParser:  # fmt: skip
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    if folder:
        sub.add_argument("folder", metavar="DIR", help="the folder of a study (it holds study.json)")
    sub.add_argument("--debug", action="store_true", help="show tracebacks")
    sub.set_defaults(command=command)
    return sub


def _collect_options(commands: Any) -> None:
    text = "bring trials/ and metrics/ up to date with the records of studies, reading only new parts"
    sub = _add(commands, "collect", collect_studies, text, folder=False)
    sub.add_argument("folders", nargs="+", metavar="DIR", help="studies: folders or URIs (s3://…) with a study.json")
    sub.add_argument("--out", type=Path, metavar="DIR", help="where to; of several studies by study (default: in each)")
    sub.add_argument("--follow", action="store_true", help="go on while studies run, until Ctrl-C")
    sub.add_argument("--interval", type=_seconds, default=10.0, metavar="SECONDS", help="between looks (default 10)")


def _table_options(commands: Any) -> None:
    text = "any fields against any others: mean and 95 %% interval over seeds, differences from a baseline, cost"
    sub = _add(commands, "table", table, text)
    field = "setting, method, nfe, sampler, grid, seed, a path of the configuration, the end of one, or a factor's name"
    sub.add_argument("--rows", nargs="+", default=["setting"], metavar="FIELD", help=f"{field} (default setting)")
    sub.add_argument("--columns", nargs="*", default=["nfe"], metavar="FIELD", help="as for rows (default nfe)")
    sub.add_argument("--metric", metavar="NAME", help="default: the study's own")
    sub.add_argument("--features", metavar="NAME", help="of a metric that was measured with several")
    sub.add_argument("--baseline", metavar="LEVEL", help="a row's or column's level, or FIELD=LEVEL (by commas)")
    sub.add_argument("--where", nargs="+", default=[], metavar="FIELD=LEVEL", help="only these (levels by commas)")
    sub.add_argument("--nfe", nargs="+", type=int, metavar="N", help="only these numbers of network calls")
    sub.add_argument("--split", choices=("test", "validation"), default="test")
    sub.add_argument("--phase", choices=("ablation", "search"), default="ablation")
    sub.add_argument("--bootstrap", action="store_true", help="percentile intervals where n is 20 or more")
    sub.add_argument("--preset", metavar="NAME", help="a table of a paper instead, published numbers beside: "
                     "ldsb-2 to ldsb-7, asbm-nfe, asbm-distillation, asbm-forward-steps, asbm-beta-max")  # fmt: skip
    _output_options(sub)


def _output_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--format", choices=("markdown", "csv", "latex", "html"), default="markdown")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write there (default: print)")


if __name__ == "__main__":
    sys.exit(main())

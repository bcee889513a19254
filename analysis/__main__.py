"""The command line: `python -m analysis report DIR` and `python -m analysis collect DIR`."""

import argparse
import sys
import traceback
from collections.abc import Sequence

from analysis.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 on success, 1 where a file of the study could not be read, 2 on wrong input."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options.folder))
    except (InputError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"analysis: {error}", file=sys.stderr)
        return 2


def report(folder: str) -> int:
    """Writes tables and report, prints the report's path."""
    from analysis.collect import collect
    from analysis.report import write_report_of

    collected = collect(folder)
    path = write_report_of(collected)
    print(path)
    return _name_problems(collected.problems)


def collect_only(folder: str) -> int:
    """Rewrites `trials/` and `metrics/`, prints how many rows they have."""
    from analysis.collect import collect

    collected = collect(folder)
    print(f"{len(collected.trials)} runs, {len(collected.metrics)} metrics: {collected.folder}")
    return _name_problems(collected.problems)


def _name_problems(problems: dict[str, str]) -> int:
    for path, reason in problems.items():
        print(f"analysis: cannot read {path}: {reason}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Turn a study's folder into tables and one offline report.",
        epilog="Exit status: 0 done; 1 done, but a file of the study could not be read (it is named); 2 wrong input.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, text in (
        ("report", report, "collect the records, write tables/ and report.html, print the report's path"),
        ("collect", collect_only, "rewrite trials/ and metrics/ from the records, and nothing else"),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("folder", metavar="DIR", help="the folder of a study (it holds study.json)")
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        sub.set_defaults(command=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The commands for a cluster as the README prints them, and as the headers of the cluster files do."""

import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
FIRST = "```bash\npython -m pip install boto3"


def of_readme() -> list[str]:
    """Those of the section "Clusters", in their order; the one that only AWS needs is left out."""
    block = (ROOT / "README.md").read_text().partition(FIRST)[2].partition("```")[0]
    return _commands(block.partition("&&")[2].splitlines())


def of_header(name: str) -> list[str]:
    """Those of a cluster file's header."""
    header = [line for line in (ROOT / name).read_text().splitlines() if line.startswith("#   ")]
    return _commands([line.removeprefix("#   ") for line in header])


def study(command: str) -> list[str]:
    """The words after studies/asbm_sweep.py in a command that submits it."""
    words = shlex.split(shlex.split(command)[-1].replace("\\\n", " "))
    return words[words.index("studies/asbm_sweep.py") + 1 :]


def _commands(lines: list[str]) -> list[str]:
    """Whole commands, which may span lines within quotes; without comments and indentation."""
    found: list[str] = []
    for line in lines:
        text = line.partition(" # ")[0].strip()
        if found and found[-1].count("'") % 2:
            found[-1] += f"\n{text}"
        elif text:
            found.append(text)
    return found

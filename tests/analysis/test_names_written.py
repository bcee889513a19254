"""What analysis looks for by name is what the science writes, spelt alike."""

import re
from pathlib import Path

import analysis
import sbbridge
from analysis.figures.training import _ERRORS
from analysis.ldsb.ways import PATH_FILE
from analysis.presets_asbm import _TERMINAL
from analysis.quality import _HIGHER, TRAINING
from analysis.run_details import _PATH
from analysis.tables_measures import LOCALISED, PATHS, VARIETY

_CONFIGURED = re.compile(r'"(?:method|network|training|evaluation|reference)\.([a-z_.]+?)\.?"')


def source(package: object) -> str:
    folder = Path(str(package.__file__)).parent  # type: ignore[attr-defined]
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py")))


def test_metrics_arrays_and_stages_are_written() -> None:
    text = source(sbbridge)
    names = [*VARIETY, *PATHS, LOCALISED, *_HIGHER, *_PATH, TRAINING, "path_scalars", "teacher_distance"]
    assert [name for name in names if not re.search(rf"\b{name}", text)] == []
    terminal = [name.removeprefix("terminal_") for name in (*dict(_ERRORS), _TERMINAL, "terminal_top_eigenvalue")]
    assert [name for name in terminal if not re.search(rf"\b{name}\b", text)] == []
    assert f'"{PATH_FILE.removesuffix(".npz")}"' in text


def test_configuration_paths_are_options() -> None:
    options = set(re.findall(r"^    ([a-z_]+): ", source(sbbridge), flags=re.MULTILINE))
    asked = {part for path in _CONFIGURED.findall(source(analysis)) for part in path.split(".")}
    assert len(asked) > 15
    assert asked - options - {"prefit"} == set()  # a prefix of method.prefit_steps and its kin

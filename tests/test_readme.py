"""The README says what is true: its example runs, its commands and folders exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs_and_learns():
    scope: dict[str, object] = {}
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):  # the second goes on where the first ends
        exec(compile(example, "README.md", "exec"), scope)
    pair, samples, problem = scope["pair"], scope["samples"], scope["problem"]
    learned = torch.cov(torch.cat([*pair], dim=1).mT)[0, 1]
    # the sampling noise of a covariance of 20,000 pairs is 0.011 here
    assert float(learned) == pytest.approx(float(problem.coupling_covariance), abs=0.06)
    assert samples.x.shape == (10_000, 1)
    assert samples.nfe == 20
    assert sample_of(scope["path"]).nfe == 5


def sample_of(solution):
    from sbbridge import sample

    return sample(solution, n=64)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(sbbridge/[\w/]+\.py|studies/\w+\.py)`", README))))
def test_files_that_are_named_exist(path):
    assert (ROOT / path).is_file()


def test_options_that_are_named_exist():
    script = [sys.executable, str(ROOT / "studies" / "asbm_sweep.py"), "--help"]
    usage = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    # options of a study script; `ray`, pip and pytest have their own
    named = {"--preset", "--dry-run", "--set", "--trials", "--seeds", "--fresh", "--debug", "--data-root"}
    assert named <= set(re.findall(r"--[a-z][a-z-]+", README))
    assert all(option in usage for option in named)


def test_presets_that_are_named_are_all_there_are():
    from studies.asbm_sweep import STUDY

    assert set(re.findall(r"`--preset (\w+)`", README)) == set(STUDY.presets)


def test_the_changelog_names_the_version():
    import sbbridge

    assert f"## {sbbridge.__version__}" in (ROOT / "CHANGELOG.md").read_text()

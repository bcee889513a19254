from pathlib import Path

import pytest
from fabricated_study import fabricate

from analysis.collect import Collected, collect
from analysis.results import Results, build_results


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study; tests only read it."""
    folder = tmp_path_factory.mktemp("study")
    fabricate(folder)
    return folder


@pytest.fixture(scope="session")
def collected(study: Path) -> Collected:
    return collect(study)


@pytest.fixture(scope="session")
def results(collected: Collected) -> Results:
    return build_results(collected)

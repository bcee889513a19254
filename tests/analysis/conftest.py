from pathlib import Path

import pytest
from fabricated_comparison import fabricate_comparison
from fabricated_ldsb import fabricate_ldsb
from fabricated_study import fabricate

from analysis.collect import Collected, collect
from analysis.data_sets import build_all
from analysis.report import write_report
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


@pytest.fixture(scope="session")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study of several data sets with its report; tests only read it."""
    folder = tmp_path_factory.mktemp("comparison")
    fabricate_comparison(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def parts(comparison: Path) -> list[Results]:
    return build_all(collect(comparison))


@pytest.fixture(scope="session")
def ldsb_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study of LDSB with its report; tests only read it."""
    folder = tmp_path_factory.mktemp("ldsb")
    fabricate_ldsb(folder)
    write_report(folder)
    return folder


@pytest.fixture(scope="session")
def ldsb_results(ldsb_study: Path) -> Results:
    return build_results(collect(ldsb_study))

import pytest

from tests.metrics.cached import cache_with_digits_cnn


@pytest.fixture
def digits_cnn(monkeypatch):
    """$SB_CACHE holds the trained CNN."""
    monkeypatch.setenv("SB_CACHE", str(cache_with_digits_cnn()))

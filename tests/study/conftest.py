import os
from collections.abc import Iterator

import pytest

from tests.metrics.cached import cache_with_digits_cnn


@pytest.fixture(autouse=True, scope="session")
def digits_cnn() -> Iterator[None]:
    """$SB_CACHE holds the trained CNN, for this process and those that it starts."""
    before = os.environ.get("SB_CACHE")
    os.environ["SB_CACHE"] = str(cache_with_digits_cnn())
    yield
    if before is None:
        del os.environ["SB_CACHE"]
    else:
        os.environ["SB_CACHE"] = before

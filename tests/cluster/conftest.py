from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import lab


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Lab]:
    """A laptop and two nodes, both on."""
    reason = lab.why_not()
    if reason:
        pytest.skip(reason)
    made = lab.Lab(Path(tmp_path_factory.mktemp("lab")), nodes=2)
    try:
        made.boot(1)
        made.boot(2)
        yield made
    finally:
        made.close()

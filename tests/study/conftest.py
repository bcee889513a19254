import os
from collections.abc import Iterator

import pytest

from tests.metrics.cached import cache_with_digits_cnn
from tests.study.s3_server import S3Server, s3_server


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


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    """A server of the S3 protocol with an empty bucket: for a module, as others of this process may reset moto."""
    pytest.importorskip("moto", reason="the tests of S3 need moto[server] and boto3")
    with s3_server() as server:
        yield server

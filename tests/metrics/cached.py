"""The digits CNN, trained once for all tests that need it, outside of the user's own cache."""

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

from sbbridge.metrics import digits_features


@functools.cache
def cache_with_digits_cnn() -> Path:
    """A cache folder that holds the trained CNN; five seconds, once a session."""
    folder = Path(tempfile.mkdtemp(prefix="sbbridge-cache-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    before = os.environ.get("SB_CACHE")
    os.environ["SB_CACHE"] = str(folder)
    try:
        digits_features()
    finally:
        if before is None:
            del os.environ["SB_CACHE"]
        else:
            os.environ["SB_CACHE"] = before
    return folder

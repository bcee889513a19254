"""Where this machine keeps what is made once: decoded images, trained features."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$SB_CACHE, or sbbridge below the user's cache folder."""
    root = os.environ.get("SB_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sbbridge"

"""Files that no reader sees half of."""

import uuid
from pathlib import Path

from analysis.errors import InputError, one_line


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it, in a folder that is made where it is absent.

    Raises:
        InputError: the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written: {one_line(error)}") from error

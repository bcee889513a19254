"""Names of files as they are, as they are shown, and which of them are no part of a data set."""

import hashlib
import os
import sys
from pathlib import Path, PurePosixPath

_TOOLS = frozenset({
    "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb", "__macosx", "__pycache__",
    "lost+found", "$recycle.bin", "recycler", "thumbs.db", "system volume information",
})  # fmt: skip
"""Folders that systems and network drives make beside a user's files, in small letters."""


def printable(text: object) -> str:
    r"""One line that any terminal and any encoding takes: line breaks and bytes that are no text become \n, \xe9."""
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python writes a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def note(text: str) -> None:
    """Tells the user something in one line on stderr."""
    sys.stderr.write(f"{printable(text)}\n")


def name_bytes(name: str) -> bytes:
    """A name's bytes, those that are not UTF-8 included."""
    return name.encode("utf-8", "surrogateescape")


def is_utf8(path: Path) -> bool:
    """Whether a path's bytes are text, as some libraries demand."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def is_hidden(name: str) -> bool:
    """Whether a relative name, or a folder in it, begins with a dot or is a tool's (`@eaDir`, `__MACOSX`, …)."""
    return any(part.startswith(".") or part.casefold() in _TOOLS for part in PurePosixPath(name).parts)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Data at a URI, copied once to each machine that needs them; all processes of a machine share the copy."""

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeAlias
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit, urlunsplit

import filelock
import pyarrow.fs as pafs

from sbbridge.data.base import DataError
from sbbridge.data.cache import cache_folder
from sbbridge.data.decoding import progress
from sbbridge.data.files import name_bytes, note, printable
from sbbridge.records import open_storage

Location: TypeAlias = str | Path
"""A file or folder of this machine, or the URI of one: anything that pyarrow opens."""
Listing: TypeAlias = dict[str, list[int]]
"""{name below the copy's entry: [size, time of change in ns]}"""
Sums: TypeAlias = Callable[[Path], Mapping[str, str]]
"""A folder -> {name relative to it: MD5 or SHA-256, hexadecimal}."""

SUMS = "SHA256SUMS"
_LISTING = ".listing.json"
_ESCAPES = {"n": "\n", "r": "\r", "\\": "\\"}
_THREADS = 16
_CHUNK = 2**20
_LONGEST = 200
_ATTEMPTS = 4
"""At a listing, with growing pauses; a copy that has begun is more patient."""
_checked: set[Path] = set()
"""Entries that this process has compared with their listings."""


def is_uri(location: Location) -> bool:
    """Whether this is a URI and not a path."""
    return isinstance(location, str) and "://" in location


def joined(root: Location, name: str) -> Location:
    """A location below another one; an absolute path or a URI stays what it is."""
    if is_uri(name):
        return name
    if not is_uri(root) or Path(name).is_absolute():
        return Path(root) / name
    parts = urlsplit(str(root))
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name, errors='surrogateescape')}"))


def shown(location: Location) -> str:
    """A location for messages: a URI without its user, password and options, but for the end point."""
    if not is_uri(location):
        return printable(location)
    parts = urlsplit(str(location))
    endpoint = parse_qs(parts.query).get("endpoint_override", [])[:1]
    query = urlencode({"endpoint_override": endpoint[0]}, safe=":/") if endpoint else ""
    return printable(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query)))


def placed(location: Location, sums: Sums = lambda folder: {}) -> Path:
    """Where this machine has what lies at a location: a path as it is, a URI as its copy in the cache folder.

    The first process that asks makes the copy, the others wait for it: files go into a temporary folder, which is
    renamed when sizes and checksums are right. Every process compares the copy with the URI's listing once; where they
    differ it is made anew, and where the URI cannot be reached a whole copy is used as it is.

    Args:
        location: a file or folder, or the URI of one.
        sums: checksums that the data bring along. Those of a file SHA256SUMS (as sha256sum writes it) in a copied
            folder, or beside a copied file, are verified, too.

    Raises:
        DataError: nothing is there, it cannot be reached, is not what its checksums say, or does not fit on the disk.
    """
    if not is_uri(location):
        return Path(location)
    uri = str(location)
    entry, name = _entry_of(uri)
    if entry not in _checked or not (entry / name).exists():
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{entry}.lock"):
                _ensure(uri, entry, name, sums)
        except OSError as error:
            _fail(uri, f"cannot be copied to {entry.parent} (SB_CACHE names another folder)", error)
        _checked.add(entry)
    return entry / name


def there(location: Location) -> bool:
    """Whether a file or folder is at a location; nothing is copied. A whole copy will do where a URI does not answer.

    Raises:
        DataError: the URI cannot be reached.
    """
    if not is_uri(location):
        return Path(location).exists()
    uri = str(location)
    entry, _ = _entry_of(uri)
    try:
        filesystem, path = open_storage(uri, attempts=2)
        return filesystem.get_file_info(path.rstrip("/")).type != pafs.FileType.NotFound
    except (OSError, ValueError) as error:
        return _held(entry) is not None or _fail(uri, "cannot be read", error)


def _entry_of(uri: str) -> tuple[Path, str]:
    """The folder of the cache that a URI is copied into, and the copy's name there."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    name = PurePosixPath(f"{host}{unquote(parts.path)}").name
    if name in ("", ".."):
        raise DataError(f"{shown(uri)}: expected the URI of a file or folder")
    identity = urlunsplit(parts._replace(netloc=host, path=parts.path.rstrip("/")))
    label = name if len(name_bytes(name)) <= _LONGEST else "long"  # file systems end at 255 bytes
    return cache_folder() / f"placed-{label}-{hashlib.sha256(name_bytes(identity)).hexdigest()[:16]}", name


def _ensure(uri: str, entry: Path, name: str, sums: Sums) -> None:
    held = _held(entry)
    try:
        filesystem, path = open_storage(uri, _ATTEMPTS)
        path = path.rstrip("/")
        listing = _listing(filesystem, path, name, uri)
        if held == listing:
            return
        filesystem, _ = open_storage(uri)
    except (OSError, ValueError) as error:
        if held is None:
            _fail(uri, "cannot be read", error)
        note(f"{shown(uri)} cannot be read, its copy in {entry} is used")
        return
    shutil.rmtree(entry, ignore_errors=True)
    _copy(filesystem, path, listing, uri, entry, name, sums)


def _held(entry: Path) -> Listing | None:
    """What was copied to an entry, None where its files are not that (any more)."""
    try:
        listing: Listing = json.loads((entry / _LISTING).read_text())
        whole = all((entry / name).stat().st_size == size for name, (size, _) in listing.items())
    except (OSError, ValueError):
        return None
    return listing if whole else None


def _listing(filesystem: pafs.FileSystem, path: str, name: str, uri: str) -> Listing:
    """All files at a path.

    Raises:
        DataError: there are none, or a name leads out of the folder.
        OSError: the file system does not answer.
    """
    (here,) = filesystem.get_file_info([path])
    if here.is_file:
        return {name: [here.size, here.mtime_ns or 0]}
    try:
        infos = filesystem.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True))
        listing = {
            f"{name}/{PurePosixPath(info.path).relative_to(path)}": [info.size, info.mtime_ns or 0]
            for info in infos if info.is_file
        }  # fmt: skip
    except UnicodeDecodeError as error:  # pyarrow's, of a name of this machine
        raise DataError(f"{shown(uri)}: {error.object!r} is not UTF-8: give the folder's path, not a URI") from None
    _tell_dangling(filesystem, path, uri)
    if not listing:
        there = [str(parent) for parent in PurePosixPath(path).parents if str(parent) not in (".", "/")]
        absent = [parent for parent in there if filesystem.get_file_info(parent).type == pafs.FileType.NotFound]
        also = f", nor is there {absent[-1]}" if absent else ""
        raise DataError(f"{shown(uri)}: no file is there{also}")
    if out := next((key for key in listing if ".." in PurePosixPath(key).parts), None):
        raise DataError(f"{shown(uri)}: the name {out} leads out of the folder")
    return listing


def _tell_dangling(filesystem: pafs.FileSystem, path: str, uri: str) -> None:
    """pyarrow does not list links of this machine that lead nowhere."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        gone = [link for link in Path(path).rglob("*") if link.is_symlink() and not link.exists()]
        if gone:
            note(f"{shown(uri)}: left out {len(gone)} links to files that are not there, the first is {gone[0]}")


def _copy(filesystem: pafs.FileSystem, path: str, listing: Listing, uri: str, entry: Path, name: str,
          sums: Sums) -> None:  # fmt: skip
    """Copies beside the entry and renames: a killed process leaves nothing that looks whole."""
    partial = entry.with_name(f"{entry.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    needed, free = sum(size for size, _ in listing.values()), shutil.disk_usage(entry.parent).free
    if needed > free:
        raise DataError(f"{shown(uri)} needs {needed / 1e9:.3g} GB in {entry.parent}, which has {free / 1e9:.3g} GB "
                        "(SB_CACHE names another folder)")  # fmt: skip
    note(f"copying {shown(uri)} to {entry}: {len(listing)} files, {needed / 1e9:.3g} GB")
    try:
        partial.mkdir()
        _fetch(filesystem, PurePosixPath(path).parent, listing, partial)
        (partial / _LISTING).write_text(json.dumps(listing))
        if _held(partial) is None:
            raise DataError(f"{shown(uri)} has changed while it was copied: start again when it is complete")
        _verify(filesystem, path, listing, uri, partial / name, sums)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fetch(filesystem: pafs.FileSystem, parent: PurePosixPath, listing: Listing, target: Path) -> None:
    stopped = threading.Event()

    def fetch(key: str) -> int:
        file = target / key
        file.parent.mkdir(parents=True, exist_ok=True)
        with filesystem.open_input_stream(str(parent / key), compression=None) as source, file.open("wb") as copy:
            while (chunk := source.read(_CHUNK)) and not stopped.is_set():
                copy.write(chunk)
        return listing[key][0]

    keys = list(listing)
    with progress("copying", sum(size for size, _ in listing.values()), unit="B") as bar, \
            ThreadPoolExecutor(_THREADS) as pool:  # fmt: skip
        try:
            for start in range(0, len(keys), 1024):  # so that an interrupt has few to cancel
                for size in pool.map(fetch, keys[start : start + 1024]):
                    bar.update(size)
        finally:
            stopped.set()


def _verify(filesystem: pafs.FileSystem, path: str, listing: Listing, uri: str, copy: Path, sums: Sums) -> None:
    """Compares a copy with the checksums that there are.

    Raises:
        DataError: a file is missing or has another checksum, or checksums cannot be read; the message names the file.
    """
    try:
        if copy.is_dir():
            published = (copy / SUMS).read_bytes() if (copy / SUMS).is_file() else b""
            wanted = [*sums(copy).items(), *_parsed(published)]
            files = {key: f"{copy.name}/{key}" for key, _ in wanted}
        else:
            beside = str(PurePosixPath(path).with_name(SUMS))
            published = _content(filesystem, beside) if filesystem.get_file_info(beside).is_file else b""
            wanted = [(key, digest) for key, digest in _parsed(published) if key == PurePosixPath(path).name]
            files = {key: copy.name for key, _ in wanted}
    except (DataError, ValueError) as problem:
        raise DataError(f"{shown(uri)}: {problem}") from None
    for key, digest in wanted:
        if files[key] not in listing:
            raise DataError(f"{shown(uri)}: {key} is missing, which has a checksum")
        with (copy.parent / files[key]).open("rb") as file:
            found = hashlib.file_digest(file, "md5" if len(digest) == 32 else "sha256").hexdigest()
        if found != digest.lower():
            raise DataError(f"{shown(uri)}: {key} has the checksum {found}, not {digest}")


def _parsed(content: bytes) -> Iterable[tuple[str, str]]:
    """Names and digests of what sha256sum prints; it marks lines in which a name's line breaks are escaped."""
    for line in content.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n") if content else ():
        found = re.fullmatch(r"(\\?)([0-9a-fA-F]{64}) [ *](?:\./)?([^\r]+)\r?", line)
        if found is None:
            raise DataError(f"{SUMS} is not as sha256sum writes it, at {line[:80]!r}")
        escaped, digest, name = found.groups()
        yield re.sub(r"\\(.)", lambda part: _ESCAPES.get(part[1], part[0]), name) if escaped else name, digest


def _content(filesystem: pafs.FileSystem, path: str) -> bytes:
    with filesystem.open_input_stream(path, compression=None) as stream:
        data: bytes = stream.read()
    return data


def _fail(uri: str, problem: str, error: Exception) -> NoReturn:
    lines = str(error).replace(uri, shown(uri)).splitlines()
    raise DataError(f"{shown(uri)} {problem}: {lines[0] if lines else type(error).__name__}") from None

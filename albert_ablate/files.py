"""Small files, written atomically: a reader sees the old or the new content, never a part."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from albert_ablate.compressed import unpacked
from albert_ablate.errors import DamagedFileError, DataError


def write_text(path: Path, text: str) -> None:
    """Write ``text`` atomically: to a temporary file in the same folder, then fsync and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def require_writable(*folders: Path) -> None:
    """Create a temporary file in each folder, or in its nearest existing parent. Raises OSError if one fails."""
    for folder in folders:
        existing = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
        try:
            tempfile.TemporaryFile(dir=existing).close()
        except OSError as error:
            error.filename = str(folder)
            raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; when the body succeeds, the file written there replaces ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse the JSON file at ``path``. Raises DamagedFileError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged ({str(error).splitlines()[0]}).") from error


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """Open a UTF-8 text file, compressed or not (``compressed``). Raises DataError if it is not UTF-8, and OSError."""
    with unpacked(path) as source:
        try:
            with io.TextIOWrapper(source, encoding="utf-8-sig", newline="") as lines:
                yield lines
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason}). Convert the file first.") from error


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def digest(value: Any, length: int = 16) -> str:
    """First ``length`` hex digits of the sha256 of ``value``'s canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def differences(expected: Any, actual: Any, name: str = "") -> list[str]:
    """``field: expected, not actual`` for every field in which two nested dictionaries differ.

    A missing field counts as None. ``name`` is the field that contains both dictionaries.
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            difference
            for key in sorted(expected.keys() | actual.keys())
            for difference in differences(expected.get(key), actual.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if expected == actual else [f"{name}: {expected}, not {actual}"]


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yield a temporary sibling of ``folder`` and rename it into place when the body succeeds.

    ``folder`` therefore exists only when complete and flushed to the disk. If two processes build the
    same folder at once, the first to finish wins and the work of the second is dropped.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        _sync_tree(temporary)
        try:
            os.rename(temporary, folder)
            sync(folder.parent)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        if temporary.exists():
            _remove_tree(temporary)


def _sync_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        _sync_tree(entry) if entry.is_dir() else sync(entry)
    sync(folder)


def _remove_tree(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _remove_tree(entry)
        else:
            entry.unlink()
    folder.rmdir()

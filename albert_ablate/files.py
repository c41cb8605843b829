"""Small files, written so that a reader sees the old content or the new, never half of either."""

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
    """Write ``text`` atomically: temporary file in the same folder, fsync, rename."""
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
    """Try a file in each folder or, where it is not made yet, in the nearest one above it. Raises OSError."""
    for folder in folders:
        there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            error.filename = str(folder)
            raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; what the body writes there takes its place when it succeeds."""
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
    """Wait until a file, or a folder's list of names, is on the disk and not only in memory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Parse the JSON file at ``path``. Raises DamagedFileError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged ({str(error).splitlines()[0]}).") from error


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """A UTF-8 text file, packed or not (``packing``). Raises DataError where it is none, and OSError."""
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
    """``field: a, not b`` for every field in which two nested dictionaries, as of JSON, differ; a missing one is None.

    a is of ``expected``; ``name`` is the field that both stand in.
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

    ``folder`` therefore exists only complete, on the disk and not only in memory. Of two processes
    that build the same folder at once, the first to finish wins and the other's work is dropped.
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

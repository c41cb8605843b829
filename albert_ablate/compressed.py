"""Compressed files, recognised by their first bytes: gzip, xz, bzip2, Zstandard, LZ4, and zip with one file."""

import bz2
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from albert_ablate.errors import DataError, NotTextError
from albert_ablate.shipped import install_command

#: First bytes -> kind of compression.
_MAGIC = {
    b"\x1f\x8b": "gz",
    b"\xfd7zXZ\x00": "xz",
    b"]\x00\x00": "lzma",
    b"(\xb5/\xfd": "zst",
    b"\x04\"M\x18": "lz4",
    b"PK\x03\x04": "zip",
}  # fmt: skip
#: Suffixes of compressed files.
SUFFIXES = (".gz", ".xz", ".lzma", ".bz2", ".zst", ".lz4", ".zip")
#: What the libraries raise for a truncated or corrupt file.
_DAMAGE = (lzma.LZMAError, gzip.BadGzipFile, zlib.error, EOFError, zipfile.BadZipFile, NotImplementedError)


def packing_of(path: Path) -> str | None:
    """``gz``, ``xz`` and so on, or None for a file that is not compressed. Raises OSError."""
    with path.open("rb") as source:
        head = source.read(10)
    if re.match(rb"BZh[1-9]1AY&SY", head):
        return "bz2"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The decompressed bytes of a file.

    Raises DataError if it is damaged or not compressed as its name says, and OSError.
    """
    kind = packing_of(path)
    if kind is None and path.name.lower().endswith(SUFFIXES) and path.stat().st_size:
        raise DataError(
            f"{path}: damaged {path.suffix} file (it does not begin like one). Fetch it again or, if it is not "
            "compressed, give it another name."
        )
    try:
        with ExitStack() as opened:
            yield opened.enter_context(_opened(path, kind, opened))
    except _DAMAGE as error:
        raise DataError(f"{path}: damaged .{kind} file ({error}). Fetch it again.") from error
    except OSError as error:
        if error.errno is not None or kind is None:
            raise
        raise DataError(f"{path}: damaged .{kind} file ({error}). Fetch it again.") from error


def _opened(path: Path, kind: str | None, opened: ExitStack) -> Any:
    if kind is None:
        return path.open("rb")
    if kind in ("zst", "lz4"):
        return _through_arrow(path, kind)
    if kind == "zip":
        archive = opened.enter_context(zipfile.ZipFile(path))
        return archive.open(_only_member(path, archive))
    openers: dict[str, Any] = {"gz": gzip.open, "xz": lzma.open, "lzma": lzma.open, "bz2": bz2.open}
    return openers[kind](path, "rb")


def _through_arrow(path: Path, kind: str) -> IO[bytes]:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise DataError(
            f"{path}: reading .{kind} needs pyarrow. Run `{install_command('hub')}`, or unpack the file first."
        ) from error
    stream = pyarrow.CompressedInputStream(str(path), {"zst": "zstd", "lz4": "lz4"}[kind])
    return io.BufferedReader(stream)


def _only_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    names = archive.namelist()
    office = {"[Content_Types].xml", "mimetype", "META-INF/MANIFEST.MF", "META-INF/container.xml"}
    if office & set(names):
        raise NotTextError(f"{path}: an office document or an e-book, not plain text. Save it as .txt.")
    files = [
        member for member in archive.infolist() if not member.is_dir() and not member.filename.startswith("__MACOSX/")
    ]
    if len(files) != 1:
        listed = ", ".join(member.filename for member in files[:4]) + (", …" if len(files) > 4 else "")
        raise NotTextError(
            f"{path}: an archive of {len(files)} files ({listed}). Unpack it into a folder and name that."
        )
    if files[0].flag_bits & 1:
        raise NotTextError(f"{path}: the archive is encrypted. Unpack it first.")
    return files[0]

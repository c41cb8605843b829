"""A packed corpus: tokens, tokenizer and metadata of a text in one file, without the text itself.

The file is a zip archive. ``about.json`` holds counts and fingerprints, beside the tokenizer's file. Each side has
its tokens and the lengths of its sentences and documents as ``.npy.xz``. A run on a packed corpus has the same
identity, batches and records as a run on the text.
"""

import io
import json
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.command_line import command_name
from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.marks import Marks
from albert_ablate.data.store import SIDES, TokenStore, offsets, open_side, store_fingerprint
from albert_ablate.data.text import intact
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import opened
from albert_ablate.data.vocabulary_training import KEPT_AS
from albert_ablate.errors import DataError
from albert_ablate.files import building, differences, read_json, replacing, sha256_file, write_json

#: Raise when the layout of the file changes.
PACKED_FORMAT = 1
_ABOUT = "about.json"
_ARRAYS = ("tokens", "sentences", "documents")
_COMMAND = f"{command_name('pack')} FILE data=..."
#: Tokenizer settings that decide the tokens of a text, beside the tokenizer's file.
_CLEANING = ("name", "words", "vocab_size", "lowercase", "strip_accents", "split_digit_commas")


@dataclass(frozen=True)
class Encoded:
    """A corpus as tokens, with metadata of its text."""

    corpus: str  # name of the corpus
    info: dict[str, Any]  # ``text.text_info``
    tokenizer: Tokenizer
    train: TokenStore  # all training documents
    valid: TokenStore
    marks: Marks | None  # marks that the tokenizer drops; None if it keeps accents
    held_out_by: float | None  # data.validation_fraction that split the text; None for a validation file
    text: Path | None = None  # the folder of the prepared text; None if only its tokens are known


def write_packed(file: Path, encoded: Encoded) -> None:
    """Writes ``encoded`` to ``file`` atomically. The same corpus gives the same bytes."""
    tokenizer = encoded.tokenizer
    about = {
        "format": PACKED_FORMAT,
        "corpus": encoded.corpus,
        "fingerprint": encoded.train.fingerprint,
        "text": encoded.info,
        "tokenizer": {
            "file": tokenizer.kept_as, "fingerprint": tokenizer.fingerprint, "settings": _cleaning(tokenizer.config)
        },
        "held_out_by": encoded.held_out_by,
        "marks": None if encoded.marks is None else asdict(encoded.marks),
    }  # fmt: skip
    with replacing(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_entry(_ABOUT), json.dumps(about, ensure_ascii=False, indent=1))
        archive.writestr(_entry(tokenizer.kept_as), tokenizer.path.read_bytes())
        for side, store in zip(SIDES, (encoded.train, encoded.valid), strict=True):
            arrays = (store.tokens, _narrow(np.diff(store.sentences)), _narrow(np.diff(store.documents)))
            for kind, values in zip(_ARRAYS, arrays, strict=True):
                archive.writestr(_entry(f"{side}/{kind}.npy.xz"), _compressed(values))


def open_packed(path: Path, config: TokenizerConfig, cache: Path) -> Encoded:
    """The corpus in the file ``path``, unpacked into ``cache`` once.

    Raises DataError if it is not a packed corpus, is damaged, or was tokenised with other settings than ``config``.
    """
    folder = _unpacked(path, cache)
    with intact(folder):
        about = read_json(folder / _ABOUT)
        kept, marks = about["tokenizer"], about["marks"]
        return Encoded(
            corpus=about["corpus"],
            info=about["text"],
            tokenizer=_tokenizer(path, config, folder / kept["file"], kept),
            train=open_side(folder, "train"),
            valid=open_side(folder, "valid"),
            marks=None if marks is None else Marks(**marks),
            held_out_by=about["held_out_by"],
        )


def find_packed(path: Path, cache: Path) -> TokenStore | None:
    """The training tokens of the file ``path`` if it is already unpacked, else None."""
    if not path.is_file():
        return None
    folder = _folder(path, cache)
    return open_side(folder, "train") if folder.is_dir() else None


def _tokenizer(path: Path, config: TokenizerConfig, file: Path, kept: dict[str, Any]) -> Tokenizer:
    """The packed tokenizer, or that of ``tokenizer.model_path`` if it gives the same tokens."""
    model = file if config.model_path is None else Path(config.model_path).expanduser()
    tokenizer = opened(model, replace(config, model_path=str(model)))
    if tokenizer.fingerprint != kept["fingerprint"]:
        apart = differences(kept["settings"], _cleaning(config), "tokenizer")
        why = "; ".join(apart) or f"tokenizer.model_path={model} is another tokenizer"
        raise DataError(
            f"data.path={path}: the packed tokens were made with other settings ({why}). Set those of the file, or "
            f"pack the text again: {_COMMAND}"
        )
    return tokenizer


def _cleaning(config: TokenizerConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _CLEANING}


def _folder(path: Path, cache: Path) -> Path:
    return cache / "tokens" / f"packed-{sha256_file(path)[:16]}"


def _unpacked(path: Path, cache: Path) -> Path:
    with _readable(path):
        folder = _folder(path, cache)
        if folder.is_dir():
            return folder
        about, tokenizer, arrays = _read(path)
    with building(folder) as temporary:
        (temporary / about["tokenizer"]["file"]).write_bytes(tokenizer)
        for side, (tokens, sentences, documents) in arrays.items():
            (temporary / side).mkdir()
            np.save(temporary / side / "tokens.npy", tokens)
            np.save(temporary / side / "sentences.npy", offsets(sentences))
            np.save(temporary / side / "documents.npy", offsets(documents))
        write_json(temporary / _ABOUT, about)
        write_json(temporary / "info.json", {"fingerprint": about["fingerprint"], "text": about["corpus"]})
    return folder


def _read(path: Path) -> tuple[dict[str, Any], bytes, dict[str, list[np.ndarray]]]:
    """(content of ``about.json``, the tokenizer's file, tokens and lengths of each side)."""
    with zipfile.ZipFile(path) as archive:
        about = json.loads(archive.read(_ABOUT))
        _require_known(about)
        tokenizer = archive.read(about["tokenizer"]["file"])
        arrays = {side: [_array(archive, side, kind) for kind in _ARRAYS] for side in SIDES}
    for tokens, sentences, documents in arrays.values():
        if sentences.sum() != len(tokens) or documents.sum() != len(sentences) or not documents.all():
            raise ValueError("the boundaries do not fit the tokens")
    return about, tokenizer, arrays


def _require_known(about: dict[str, Any]) -> None:
    """Raise ValueError if another version of the project wrote the file."""
    if about["format"] != PACKED_FORMAT:
        raise ValueError(f"its format is {about['format']}, this version reads {PACKED_FORMAT}")
    if about["tokenizer"]["file"] not in KEPT_AS.values():
        raise ValueError(f"its tokenizer is called {about['tokenizer']['file']!r}")
    if about["fingerprint"] != store_fingerprint(about["text"]["fingerprint"], about["tokenizer"]["fingerprint"]):
        raise ValueError("its tokens are of another version of the token store")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns any failure in reading the file into DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"data.path={path}: no such file. Write one with `{_COMMAND}`.") from None
    except IsADirectoryError:
        raise DataError(f"data.path={path}: a folder. Name the file that `{_COMMAND}` wrote.") from None
    except (
        OSError, ValueError, LookupError, TypeError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile,
        lzma.LZMAError,
    ) as error:  # fmt: skip
        reason = str(error).strip("'\"") or type(error).__name__
        raise DataError(
            f"data.path={path}: damaged, or not a packed corpus ({reason}). Copy it again, or write it again with "
            f"`{_COMMAND}`. Text is read with data=text."
        ) from error


def _entry(name: str) -> zipfile.ZipInfo:
    """An entry with a fixed date, so that equal corpora give equal files."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def _narrow(lengths: np.ndarray) -> np.ndarray:
    return lengths.astype(np.min_scalar_type(int(lengths.max(initial=0))))


def _compressed(values: np.ndarray) -> bytes:
    plain = io.BytesIO()
    np.save(plain, np.asarray(values), allow_pickle=False)
    return lzma.compress(plain.getvalue())


def _array(archive: zipfile.ZipFile, side: str, kind: str) -> np.ndarray:
    plain = io.BytesIO(lzma.decompress(archive.read(f"{side}/{kind}.npy.xz")))
    values: np.ndarray = np.load(plain, allow_pickle=False)
    if values.ndim != 1 or values.dtype.kind != "u":
        raise ValueError(f"{side}/{kind} does not hold unsigned integers")
    return values

"""Reads from a SentencePiece model file what the library does not expose: type, pieces and normaliser."""

from pathlib import Path
from typing import Any

from albert_ablate.errors import DataError

#: SentencePiece's types of pieces.
NORMAL, USER_DEFINED, BYTE = 1, 4, 6
_TYPES = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
#: Types that each ``tokenizer.name`` accepts. A char model encodes like a Unigram model whose pieces are characters.
_ACCEPTED = {"unigram": ("unigram", "char"), "bpe": ("bpe",)}


def read_model(path: Path) -> Any:
    """The ModelProto of ``path``. Raises DataError if the file is not one."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    try:
        proto.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise unreadable(path, str(error)) from error
    return proto


def unreadable(path: Path, why: str) -> DataError:
    """The error for a file that is not a SentencePiece model."""
    return DataError(
        f"tokenizer.model_path={path}: not a readable SentencePiece model ({(why or 'unknown').splitlines()[0]}). "
        "Give the path of a .model file (a vocab.txt needs tokenizer=wordpiece), or leave it empty to train one."
    )


def model_type(proto: Any) -> str:
    """``unigram``, ``bpe``, ``word`` or ``char``."""
    return _TYPES.get(proto.trainer_spec.model_type, "unknown")


def require_usable(proto: Any, path: Path, name: str) -> None:
    """Raise DataError if the model does not have the type ``name``, or marks words in an unsupported way."""
    kind = model_type(proto)
    if kind not in _ACCEPTED[name]:
        matching = next((known for known, types in _ACCEPTED.items() if kind in types), None)
        advice = f"Set tokenizer={matching}" if matching else "Models of type unigram, bpe and char can be taken"
        raise DataError(f"tokenizer.model_path={path}: a {kind} model, but tokenizer.name={name}. {advice}.")
    several = [p.piece for p in list(proto.pieces)[5:] if p.type == USER_DEFINED and len(p.piece) > 1]
    problems = {
        "it marks the end of words (treat_whitespace_as_suffix), their beginning is needed": (
            proto.trainer_spec.treat_whitespace_as_suffix
        ),
        "its sentences begin without the word mark (add_dummy_prefix=false)": (
            any(p.piece.startswith("▁") for p in proto.pieces) and not proto.normalizer_spec.add_dummy_prefix
        ),
        f"user-defined symbols of several characters ({', '.join(several[:3])}) in a BPE model have no equivalent in "
        "other libraries": kind == "bpe" and bool(several),
    }
    wrong = [message for message, holds in problems.items() if holds]
    if wrong:
        raise DataError(
            f"tokenizer.model_path={path}: {'; '.join(wrong)}. Train the model without it, or leave "
            "tokenizer.model_path empty to train one."
        )

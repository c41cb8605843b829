"""Reads ``tokenizer.json`` with the tokenizers library, and refuses what this project does not support."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albert_ablate.data.tokenizer import CLS, SEP
from albert_ablate.errors import DataError
from albert_ablate.record.folder import TOKENIZER
from albert_ablate.shipped import install_command

#: Fields of a sequence of steps.
_SEQUENCES = ("normalizers", "pretokenizers", "decoders")
#: Most added tokens named in one message.
_NAMED = 8


def read_pipeline(file: Path) -> tuple[Any, dict[str, Any]]:
    """(the pipeline that the tokenizers library reads from ``file``, the content that it would write).

    Raises DataError if the library is missing or cannot read the file.
    """
    try:
        from tokenizers import Tokenizer as Pipeline
    except ModuleNotFoundError as error:
        raise DataError(f"{file}: reading it needs tokenizers. Run `{install_command('huggingface')}`.") from error
    text = _text(file)
    try:
        pipeline = Pipeline.from_str(text)
        pipeline.no_truncation()
        pipeline.no_padding()
        return pipeline, json.loads(pipeline.to_str())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of the library do not derive from Exception
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"{file}: not a readable tokenizer.json ({line}).") from None


def _text(file: Path) -> str:
    """The file's text. Raises DataError if it is not a JSON object, or has fields that crash the library."""
    try:
        text = file.read_text(encoding="utf-8")
        model = json.loads(text)["model"]
        affixes = [name for name in ("continuing_subword_prefix", "end_of_word_suffix") if model.get(name)]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: not a readable tokenizer.json ({type(error).__name__}).") from None
    if affixes and model.get("type") != "WordPiece":
        raise DataError(f"{file}: model.{affixes[0]} is {model[affixes[0]]!r}: SentencePiece has no counterpart.")
    return text


def pieces_of(file: Path) -> list[str]:
    """The pieces of a tokenizer.json in the order of their ids."""
    vocabulary = read_pipeline(file)[1]["model"]["vocab"]
    if isinstance(vocabulary, list):
        return [piece for piece, _ in vocabulary]
    return sorted(vocabulary, key=vocabulary.__getitem__)


def steps_of(content: Mapping[str, Any]) -> set[str]:
    """The types of all steps before and after the model."""
    parts = [content[name] or {} for name in ("normalizer", "pre_tokenizer", "decoder")]
    inner = [step for part in parts for name in _SEQUENCES for step in part.get(name) or []]
    return {step.get("type", "") for step in (*parts, *inner)}


def require_plain(
    file: Path, pipeline: Any, content: dict[str, Any], specials: Sequence[str], documents: bool = False
) -> None:
    """Raise DataError for tokens outside the vocabulary, and for a template other than [CLS] A [SEP] B [SEP].

    ``documents``: [SEP] A [SEP] B is accepted too.
    """
    added = [token["content"] for token in content["added_tokens"] if token["content"] not in specials]
    if added:
        more = f" and {len(added) - _NAMED} more" if len(added) > _NAMED else ""
        raise DataError(
            f"{file}: added_tokens: {', '.join(map(repr, added[:_NAMED]))}{more}. Added tokens cut the text before the "
            "tokenizer sees it, which has no counterpart here. transformers' AlbertTokenizer makes them of the "
            f"user-defined pieces of a {TOKENIZER}: copy the {TOKENIZER} that the model was trained with into the "
            "folder."
        )
    ids = content["model"]["vocab"]
    ids = {piece: i for i, (piece, _) in enumerate(ids)} if isinstance(ids, list) else ids
    moved = [token["content"] for token in content["added_tokens"] if ids.get(token["content"]) != token["id"]]
    if moved:
        raise DataError(f"{file}: added_tokens: {', '.join(moved)} have other ids there than in model.vocab.")
    frame = pipeline.encode("", "")
    cls, sep = (ids.get(specials[i]) for i in (CLS, SEP))
    known = [([cls, sep, sep], [0, 0, 1])] + ([([sep, sep], [0, 0])] if documents else [])
    if frame.ids and (frame.ids, frame.type_ids) not in known:
        raise DataError(
            f"{file}: post_processor: two empty texts become {' '.join(frame.tokens)} with token types "
            f"{frame.type_ids}; [CLS] A [SEP] B [SEP] with types 0 and 1 is needed."
        )


def by_id(vocabulary: Mapping[str, int]) -> list[str]:
    """Pieces in the order of their ids; an empty string for an unused id, as when a vocab.txt repeats a piece."""
    pieces = [""] * (max(vocabulary.values(), default=-1) + 1)
    for piece, index in vocabulary.items():
        pieces[index] = piece
    return pieces

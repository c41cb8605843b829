"""Reads the tokenizer of a checkpoint folder: ``spiece.model``, ``vocab.txt``, or only ``tokenizer.json``.

transformers 5 saves only ``tokenizer.json`` and ``tokenizer_config.json``. Parts of a tokenizer.json
that this project does not support are refused by name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_ablate.data.sentencepiece_model import model_type, read_model
from albert_ablate.data.tokenizer import SPECIALS as SENTENCEPIECE_SPECIALS
from albert_ablate.data.wordpiece import LONGEST_WORD, NAME, SPECIALS, VOCABULARY, read_vocabulary
from albert_ablate.errors import DataError
from albert_ablate.interop.pipeline import by_id, pieces_of, read_pipeline, require_plain, steps_of
from albert_ablate.record.folder import TOKENIZER, TOKENIZER_JSON

#: Boolean settings of tokenizer_config.json, all optional.
_FLAGS = ("do_lower_case", "keep_accents", "strip_accents", "tokenize_chinese_chars", "split_digit_commas")
_REMEDY = "Remove the one that the model was not trained with."
#: The vocabulary of a byte-level BPE that has no ``tokenizer.json``.
_BYTE_LEVEL = "vocab.json"
_OF_BYTES = (
    "a byte-level BPE, as in GPT-2. Its pieces are byte sequences, which no tokenizer here holds; a model with a "
    "SentencePiece or WordPiece tokenizer can be imported."
)
#: Classes of transformers that read ``tokenizer.json`` as it is.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
_ALBERT_CLASSES = ("AlbertTokenizer", "AlbertTokenizerFast", *_PLAIN_CLASSES)
_BERT_CLASSES = (
    *(f"{name}Tokenizer{fast}" for name in ("Bert", "DistilBert", "Electra") for fast in ("", "Fast")), *_PLAIN_CLASSES,
)  # fmt: skip


@dataclass(frozen=True)
class ForeignTokenizer:
    """A tokenizer of another library, as a file and settings of this project."""

    file: Path  # a SentencePiece model or a WordPiece vocabulary
    name: str  # as ``tokenizer.name``
    lowercase: bool
    strip_accents: bool
    read: tuple[Path, ...]  # files of the folder that were read
    kept: Path | None = None  # the original tokenizer.json, for exports, if a converted one would differ
    split_digit_commas: bool = True  # splits pieces such as "3,", as the reference does with a SentencePiece model


def find_tokenizer(
    folder: Path, described: Mapping[str, Any], scratch: Path, documents: bool = False
) -> ForeignTokenizer:
    """The tokenizer of a checkpoint ``folder``.

    ``described`` is the content of ``tokenizer_config.json``; converted files are written to ``scratch``;
    ``documents``: a text may begin with [SEP] alone, as a causal LM reads it. Raises DataError if there is no
    tokenizer, if two files disagree, or if a part is not supported.
    """
    flags = {name: _flag(described, name) for name in _FLAGS}
    vocabulary, pipeline = folder / VOCABULARY, folder / TOKENIZER_JSON
    models = sorted(folder.glob("*.model"))  # TensorFlow's release calls it 30k-clean.model
    model = folder / TOKENIZER if folder / TOKENIZER in models else (models[0] if len(models) == 1 else None)
    if model is not None and vocabulary.is_file():
        raise DataError(f"{folder}: both {model.name} (SentencePiece) and {VOCABULARY} (WordPiece). {_REMEDY}")
    if model is not None:
        _require_class(described, _ALBERT_CLASSES)
        tokenizer = _from_model(model, pipeline, flags)
        _require_no_more(folder, described, {piece.piece for piece in read_model(model).pieces})
        return tokenizer
    if pipeline.is_file():
        return _from_json(pipeline, flags, scratch, documents)
    if not vocabulary.is_file():
        if (folder / _BYTE_LEVEL).is_file():
            raise DataError(f"{folder / _BYTE_LEVEL}: {_OF_BYTES}")
        raise DataError(
            f"{folder}: no {TOKENIZER} (SentencePiece), no {VOCABULARY} (WordPiece) and no {TOKENIZER_JSON}; one is "
            "needed."
        )
    _require_class(described, _BERT_CLASSES)
    _require_no_more(folder, described, set(read_vocabulary(vocabulary)))
    _require_division(flags)
    lowercase = flags["do_lower_case"] is not False
    strip = lowercase if flags["strip_accents"] is None else flags["strip_accents"]
    return ForeignTokenizer(vocabulary, NAME, lowercase, strip, (vocabulary,))


def _flag(described: Mapping[str, Any], name: str) -> bool | None:
    value = described.get(name)
    if value is not None and not isinstance(value, bool):
        raise DataError(f"tokenizer_config.json: {name} is {value!r}; true or false is expected.")
    return value


def _from_model(model: Path, described_by: Path, flags: Mapping[str, bool | None]) -> ForeignTokenizer:
    proto = read_model(model)
    if described_by.is_file() and [piece.piece for piece in proto.pieces] != pieces_of(described_by):
        raise DataError(f"{described_by} holds other pieces than {model.name}. {_REMEDY}")
    name = "bpe" if model_type(proto) == "bpe" else "unigram"
    lowercase, split = (flags[name] is not False for name in ("do_lower_case", "split_digit_commas"))
    return ForeignTokenizer(model, name, lowercase, not flags["keep_accents"], (model,), split_digit_commas=split)


def _from_json(file: Path, flags: Mapping[str, bool | None], scratch: Path, documents: bool) -> ForeignTokenizer:
    pipeline, content = read_pipeline(file)
    kind = content["model"].get("type")
    if "ByteLevel" in steps_of(content):
        raise DataError(f"{file}: {_OF_BYTES}")
    if kind == "WordPiece":
        require_plain(file, pipeline, content, SPECIALS, documents)
        return _word_pieces(file, content, flags, scratch)
    if kind not in ("Unigram", "BPE"):
        raise DataError(f"{file}: model ({kind}): WordPiece, Unigram and BPE can be imported.")
    from albert_ablate.interop.spiece import rebuild

    require_plain(file, pipeline, content, SENTENCEPIECE_SPECIALS, documents)
    built = rebuild(content, pipeline, file)
    (scratch / TOKENIZER).write_bytes(built.model)
    kept = None if built.exact else file
    split = built.exact and flags["split_digit_commas"] is not False
    return ForeignTokenizer(scratch / TOKENIZER, built.name, built.lowercase, built.strip_accents, (file,), kept, split)


def _word_pieces(
    file: Path, content: dict[str, Any], flags: Mapping[str, bool | None], scratch: Path
) -> ForeignTokenizer:
    """BERT's tokenizer, with its vocabulary as ``vocab.txt``."""
    model = content["model"]
    normalizer, pre_tokenizer = (content[name] or {"type": "none"} for name in ("normalizer", "pre_tokenizer"))
    plain = {"unk_token": SPECIALS[1], "continuing_subword_prefix": "##", "max_input_chars_per_word": LONGEST_WORD}
    problems = [f"model.{name} is {model.get(name)!r}" for name, value in plain.items() if model.get(name) != value]
    if normalizer["type"] != "BertNormalizer":
        problems.append(f"normalizer is {normalizer['type']}")
    else:
        always = ("clean_text", "handle_chinese_chars")
        problems += [f"normalizer.{name} is false" for name in always if not normalizer[name]]
    if pre_tokenizer["type"] != "BertPreTokenizer":
        problems.append(f"pre_tokenizer is {pre_tokenizer['type']}")
    if problems:
        raise DataError(f"{file}: {'; '.join(problems)}. Word pieces are read with BERT's own cleaning and division.")
    lowercase, strip = _bert_cleaning(file, normalizer, flags)
    if max(model["vocab"].values(), default=0) > 2 * len(model["vocab"]):
        raise DataError(
            f"{file}: model.vocab: {len(model['vocab']):,} pieces with ids up to {max(model['vocab'].values()):,}."
        )
    made, sibling = scratch / VOCABULARY, file.with_name(VOCABULARY)
    made.write_bytes("".join(f"{piece}\n" for piece in by_id(model["vocab"])).encode())
    if _ids(read_vocabulary(made)) != model["vocab"]:
        raise DataError(f"{file}: model.vocab: it has a piece that cannot be a line of a {VOCABULARY}.")
    if sibling.is_file() and _ids(read_vocabulary(sibling)) != model["vocab"]:
        raise DataError(f"{file} holds other pieces than {VOCABULARY}. {_REMEDY}")
    return ForeignTokenizer(sibling if sibling.is_file() else made, NAME, lowercase, strip, (file,))


def _bert_cleaning(file: Path, normalizer: Mapping[str, Any], flags: Mapping[str, bool | None]) -> tuple[bool, bool]:
    """(lowercase, strip_accents). Raises DataError if tokenizer_config.json, which BertTokenizer follows, differs."""
    lowercase = bool(normalizer["lowercase"])
    strip = lowercase if normalizer["strip_accents"] is None else bool(normalizer["strip_accents"])
    given = flags["do_lower_case"]
    if given is not None and given != lowercase:
        raise DataError(
            f"{file}: normalizer.lowercase is {_word(lowercase)}, but tokenizer_config.json says do_lower_case "
            f"{_word(given)}. Correct the one that the model was not trained with."
        )
    wanted = flags["strip_accents"]
    wanted = given if wanted is None else wanted
    if wanted is not None and wanted != strip:
        raise DataError(
            f"{file}: normalizer.strip_accents is {_word(strip)}, but by tokenizer_config.json it is {_word(wanted)}. "
            "Correct the one that the model was not trained with."
        )
    _require_division(flags)
    return lowercase, strip


def _require_division(flags: Mapping[str, bool | None]) -> None:
    if flags["tokenize_chinese_chars"] is False:
        raise DataError("tokenizer_config.json: tokenize_chinese_chars is false; BERT's own cleaning divides them.")


def _require_class(described: Mapping[str, Any], known: Sequence[str]) -> None:
    """Raise DataError for a tokenizer class that may clean text or number pieces differently."""
    name = described.get("tokenizer_class")
    if name is not None and name not in known:
        raise DataError(f"tokenizer_config.json: tokenizer_class is {name!r}; {', '.join(known)} can be imported.")


def _word(value: bool) -> str:
    return "true" if value else "false"


def _require_no_more(folder: Path, described: Mapping[str, Any], vocabulary: set[str]) -> None:
    """Raise DataError for added tokens that older versions of transformers store outside the vocabulary."""
    file = folder / "added_tokens.json"
    try:
        extra = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        decoder = described.get("added_tokens_decoder") or {}
        tokens = [*extra, *(token["content"] for token in decoder.values())]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{folder}: its added tokens are not readable ({type(error).__name__}).") from None
    added = [str(token) for token in tokens if token not in vocabulary]
    if added:
        raise DataError(
            f"{folder}: added tokens: {', '.join(added[:8])}. They are not in the vocabulary; a tokenizer with "
            "them has no counterpart here."
        )


def _ids(pieces: list[str]) -> dict[str, int]:
    """Piece -> id; a repeated piece keeps its last id, empty lines are skipped."""
    return {piece: index for index, piece in enumerate(pieces) if piece}

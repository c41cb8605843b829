"""Converts a Unigram or BPE ``tokenizer.json`` to a SentencePiece model with the same ids.

A file that this project exported, even if transformers saved it again, is recognised: the settings are
those that would export an equal file. For any other file, such as that of transformers' AlbertTokenizer,
the normaliser's output for every character becomes the model's character map. The two normalisers are
compared on a large sample before the file is accepted.
"""

import base64
import io
import itertools
import json
import random
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from albert_ablate.data.sentencepiece_model import BYTE, NORMAL, USER_DEFINED
from albert_ablate.data.tokenizer import FIRST_PIECE, SPECIALS, UNK, clean
from albert_ablate.errors import DataError
from albert_ablate.interop.tokenizer_json import bpe_model, content_for, symbol_score

_CONTROL, _UNKNOWN = 3, 2
_TYPES = {"Unigram": 1, "BPE": 2}
_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}
#: Number of random strings of letters and marks on which the two normalisers are compared.
_STRINGS = 30_000


@dataclass(frozen=True)
class Rebuilt:
    """A SentencePiece model, and the cleaning applied before it."""

    model: bytes
    name: str  # as ``tokenizer.name``
    lowercase: bool
    strip_accents: bool
    exact: bool  # an export would write the same tokenizer.json


def rebuild(content: dict[str, Any], pipeline: Any, file: Path) -> Rebuilt:
    """The model for ``file``, whose ``content`` and ``pipeline`` are those of ``read_pipeline``.

    Raises DataError naming a part that SentencePiece cannot represent.
    """
    model = content["model"]
    proto = _pieces(model, file)
    name = model["type"].lower()
    for lowercase, strip_accents in itertools.product((True, False), repeat=2):
        for charsmap in _charsmaps(content["normalizer"]):
            proto.normalizer_spec.name, proto.normalizer_spec.precompiled_charsmap = charsmap
            if _same_cleaning(content, content_for(proto, lowercase, strip_accents)):
                return Rebuilt(proto.SerializeToString(), name, lowercase, strip_accents, exact=True)
    _require_word_marks(content["pre_tokenizer"], file)
    proto.normalizer_spec.name = "user_defined"
    proto.normalizer_spec.precompiled_charsmap = _charsmap(pipeline.normalizer) if pipeline.normalizer else b""
    for piece in proto.pieces:
        piece.type = NORMAL if piece.type == USER_DEFINED else piece.type  # else it would escape the normaliser
    built = proto.SerializeToString()
    _require_equal(built, pipeline, file)
    return Rebuilt(built, name, lowercase=False, strip_accents=False, exact=False)


def _pieces(model: dict[str, Any], file: Path) -> Any:
    """The ModelProto without its normaliser."""
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    scores = _unigram_scores(model, file) if model["type"] == "Unigram" else _bpe_scores(model, file)
    if tuple(list(scores)[:FIRST_PIECE]) != SPECIALS:
        raise DataError(
            f"{file}: model.vocab: ids 0 to 4 are {list(scores)[:FIRST_PIECE]}, but {list(SPECIALS)} are needed."
        )
    best = max(list(scores.values())[FIRST_PIECE:], default=0.0)
    for index, (piece, score) in enumerate(scores.items()):
        symbol = model["type"] == "Unigram" and score == symbol_score(piece, best)
        kind = USER_DEFINED if symbol else NORMAL
        if index < FIRST_PIECE:
            kind = _UNKNOWN if index == UNK else _CONTROL
        elif model.get("byte_fallback") and _is_byte(piece):
            kind = BYTE
        proto.pieces.add(piece=piece, score=0.0 if symbol else score, type=kind)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    trainer.model_type, trainer.vocab_size = _TYPES[model["type"]], len(scores)
    trainer.pad_id, trainer.unk_id, trainer.bos_id, trainer.eos_id = 0, UNK, -1, -1
    trainer.pad_piece, trainer.unk_piece = SPECIALS[0], SPECIALS[UNK]
    trainer.byte_fallback = bool(model.get("byte_fallback"))
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = normalizer.escape_whitespaces = True
    if model["type"] == "BPE" and bpe_model(proto)["merges"] != [list(pair) for pair in model["merges"]]:
        raise DataError(
            f"{file}: model.merges: SentencePiece merges any two neighbours that make a piece, the better piece first; "
            "these merges leave some out or come in another order."
        )
    return proto


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _unigram_scores(model: dict[str, Any], file: Path) -> dict[str, float]:
    if model["unk_id"] != UNK:
        raise DataError(f"{file}: model.unk_id is {model['unk_id']}; {UNK} is needed.")
    scores = {piece: float(score) for piece, score in model["vocab"]}
    if len(scores) < len(model["vocab"]):
        raise DataError(f"{file}: model.vocab: a piece occurs twice.")
    return scores


def _bpe_scores(model: dict[str, Any], file: Path) -> dict[str, float]:
    """Scores that rank pieces in the order of the merges; SentencePiece uses only this order."""
    plain = {
        "dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": True,
        "ignore_merges": False, "unk_token": SPECIALS[UNK],
    }  # fmt: skip
    unsupported = [
        f"model.{name} is {model.get(name)!r}"
        for name, value in plain.items()
        if (model.get(name) or None) != (value or None)
    ]
    if unsupported:
        raise DataError(f"{file}: {', '.join(unsupported)}: SentencePiece's BPE has no counterpart.")
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][piece] for piece in pieces] != list(range(len(pieces))):
        raise DataError(f"{file}: model.vocab: its ids are not 0, 1, 2, ... without a gap.")
    merged = list(dict.fromkeys("".join(pair) for pair in model["merges"]))
    scores = {piece: -float(rank) for rank, piece in enumerate(merged)}
    return {
        piece: 0.0 if index < FIRST_PIECE else scores.get(piece, -float(len(merged)))
        for index, piece in enumerate(pieces)
    }


def _charsmaps(normalizer: Any) -> list[tuple[str, bytes]]:
    """Candidates (name, bytes) for the model's character map, from the map in ``normalizer``."""
    steps = _steps(normalizer)
    maps = [base64.b64decode(step["precompiled_charsmap"]) for step in steps if step["type"] == "Precompiled"]
    return [(name, maps[0]) for name in ("nmt_nfkc", "user_defined")] if maps else [("identity", b"")]


def _steps(part: Any, inside: str = "normalizers") -> list[dict[str, Any]]:
    """The steps of a normaliser or pre-tokenizer, with nested sequences flattened."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for nested in part[inside] for step in _steps(nested, inside)]


def _same_cleaning(content: dict[str, Any], candidate: dict[str, Any]) -> bool:
    """Whether normaliser and pre-tokenizer are equal, as the library writes them."""
    from tokenizers import Tokenizer as Pipeline

    stub = {"type": "WordLevel", "vocab": {"": 0}, "unk_token": ""}
    kept: dict[str, Any] = {
        "version": "1.0",
        "added_tokens": [],
        "model": stub,
        "decoder": None,
        "post_processor": None,
    }
    parts = ("normalizer", "pre_tokenizer")
    written = json.loads(Pipeline.from_str(json.dumps(kept | {name: candidate[name] for name in parts})).to_str())
    return all(
        _steps(content[name], inside) == _steps(written[name], inside)
        for name, inside in zip(parts, ("normalizers", "pretokenizers"), strict=True)
    )


def _require_word_marks(pre_tokenizer: Any, file: Path) -> None:
    """Raise DataError unless text is split at white space and each word gets a word mark."""
    steps = _steps(pre_tokenizer, "pretokenizers")
    shown = [{k: v for k, v in step.items() if k != "split"} for step in steps]
    if shown != [{"type": "WhitespaceSplit"}, _METASPACE]:
        names = ", ".join(step["type"] for step in steps) or "none"
        raise DataError(
            f"{file}: pre_tokenizer ({names}): WhitespaceSplit and then Metaspace with prepend_scheme=always are "
            "needed. Byte-level BPE (GPT-2, RoBERTa) has no counterpart here."
        )


def _charsmap(normalizer: Any) -> bytes:
    """The output of ``normalizer`` for every character, compiled by SentencePiece to a character map."""
    made = {c: normalizer.normalize_str(c) for c in _characters()}
    for sequence in itertools.chain(("``", "''"), _composed_sequences()):
        alone = "".join(made.get(c, c) for c in sequence)
        together = normalizer.normalize_str(sequence)
        if together != alone:
            made[sequence] = together
    rules = {c: "".join(" " if d.isspace() else d for d in text) for c, text in made.items()}
    lines = [f"{_hexadecimal(c)}\t{_hexadecimal(text)}\n" for c, text in rules.items() if text != c]
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.tsv"
        file.write_text("".join(lines), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"]), model_writer=out, vocab_size=8, model_type="char",
            hard_vocab_limit=False, normalization_rule_tsv=str(file), minloglevel=2,
        )  # fmt: skip
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(out.getvalue())
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def _hexadecimal(text: str) -> str:
    return " ".join(f"{ord(c):x}" for c in text)


@cache
def _characters() -> tuple[str, ...]:
    """Every assigned Unicode character."""
    every = map(chr, range(1, sys.maxunicode + 1))
    return tuple(c for c in every if unicodedata.category(c) not in ("Cn", "Cs", "Co"))


def _composed_sequences() -> Iterator[str]:
    """Letters with combining marks, which a normaliser may compose to one character."""
    for c in _characters():
        parts = unicodedata.normalize("NFD", c)
        if len(parts) > 1:
            yield parts
            yield unicodedata.normalize("NFC", parts[:-1]) + parts[-1]


def _require_equal(model: bytes, pipeline: Any, file: Path) -> None:
    """Raise DataError with the first string that the two normalisers treat differently."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in _probes():
        expected = pipeline.normalizer.normalize_str(text) if pipeline.normalizer else text
        ours = processor.normalize(clean(text, lowercase=False, strip_accents=False)).replace("▁", " ")
        if expected.split() != ours.split():
            steps = ", ".join(step["type"] for step in _steps(json.loads(pipeline.to_str())["normalizer"]))
            raise DataError(
                f"{file}: normalizer ({steps}): it turns {text!r} into {' '.join(expected.split())!r}, which a map of "
                f"characters cannot do ({' '.join(ours.split())!r} here)."
            )


def _probes() -> Iterator[str]:
    """Every character between letters; quotes; letters followed by one to three marks, drawn with a fixed seed."""
    yield from (f"a{c}b {c}" for c in _characters() if not c.isspace() and c != "▁")
    yield from ("''quoted`` '''' ```` ' ` a  b\tc", "ΟΔΟΣ Σας ΑΣ.")
    yield from _composed_sequences()
    draw = random.Random(0)
    marks = [c for c in _characters() if unicodedata.category(c) in ("Mn", "Mc")]
    letters = [c for c in _characters() if unicodedata.category(c)[0] == "L" and ord(c) < 0x3000]
    for _ in range(_STRINGS):
        letter, count = draw.choice(letters), draw.randint(1, 3)
        near = [m for m in draw.choices(marks, k=6) if abs(ord(m) - ord(letter)) < 0x200] or draw.choices(marks[:112])
        yield letter + "".join(draw.choices(near, k=count)) + draw.choice(letters)

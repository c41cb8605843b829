"""Our SentencePiece tokenizer as a ``tokenizer.json``, the form of the tokenizers library.

transformers converts a ``spiece.model`` by itself, but makes added tokens of the user-defined pieces
(quotes, brackets, ...), which loses the word mark before them. SentencePiece gives such a piece a
score that always wins; so does this file. One rule cannot be said in this form: a piece such as
"3," is split here into "3" and ",".
"""

import base64
from pathlib import Path
from typing import Any

from albert_ablate.config import TokenizerConfig
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, SEP, UNK, combining_marks

#: SentencePiece's types of pieces.
_NORMAL, _USER_DEFINED = 1, 4


def tokenizer_json(model: Path, config: TokenizerConfig) -> dict[str, Any]:
    """The file's content for the SentencePiece ``model`` with the cleaning of ``config``."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(model.read_bytes())
    best = max(piece.score for piece in proto.pieces if piece.type == _NORMAL)
    vocabulary = [[p.piece, _score(p, best)] for p in proto.pieces]
    specials = [vocabulary[i][0] for i in range(FIRST_PIECE)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, piece) for i, piece in enumerate(specials)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(proto, config)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": _template(specials[CLS], specials[SEP]),
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": UNK, "vocab": vocabulary, "byte_fallback": False},
    }


def _score(piece: Any, best: float) -> float:
    """Of a user-defined piece, what SentencePiece gives it while it encodes."""
    return len(piece.piece) * best - 0.1 if piece.type == _USER_DEFINED else float(piece.score)


def _added(place: int, piece: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": place, "content": piece, **flags, "special": True}


def _normalizers(proto: Any, config: TokenizerConfig) -> list[dict[str, Any]]:
    """Our cleaning, then the model's own map of characters."""
    found: list[dict[str, Any]] = []
    if config.strip_accents:
        # Not its own StripAccents, which takes the vowel signs of Indic scripts too.
        found += [{"type": "NFKD"}, {"type": "Replace", "pattern": {"Regex": _marks()}, "content": ""}]
    if config.lowercase:
        found.append({"type": "Lowercase"})
    charsmap = proto.normalizer_spec.precompiled_charsmap
    if charsmap:
        found.append({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()})
    return found


def _marks() -> str:
    """A class of the characters that our cleaning drops, in ranges."""
    codes = set(map(ord, combining_marks()))
    starts = sorted(code for code in codes if code - 1 not in codes)
    ends = sorted(code for code in codes if code + 1 not in codes)
    return f"[{''.join(f'{chr(a)}-{chr(b)}' for a, b in zip(starts, ends, strict=True))}]"


def _template(start: str, end: str) -> dict[str, Any]:
    """[CLS] A [SEP] B [SEP]."""

    def special(piece: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": piece, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    one = [special(start, 0), text("A", 0), special(end, 0)]
    tokens = {piece: {"id": piece, "ids": [i], "tokens": [piece]} for piece, i in ((start, CLS), (end, SEP))}
    return {
        "type": "TemplateProcessing",
        "single": one,
        "pair": [*one, text("B", 1), special(end, 1)],
        "special_tokens": tokens,
    }

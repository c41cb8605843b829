"""Converts a SentencePiece tokenizer to ``tokenizer.json``, the format of the tokenizers library.

transformers can convert a ``spiece.model`` itself, but it turns user-defined pieces (quotes, brackets,
...) into added tokens, which loses the word mark before them. SentencePiece gives such a piece a score
that always wins, and this conversion does the same. The format cannot express one rule: this project
splits a piece such as "3," into "3" and ",".
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.sentencepiece_model import BYTE, NORMAL, USER_DEFINED, model_type, read_model
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, SEP, UNK, combining_marks

#: Between a capital sigma and the next letter of its word: marks and points, as in Python's lower-casing.
_BETWEEN = r"[\p{M}\p{Lm}\p{Sk}\p{Cf}'.:·’‘․]*"
#: Combining marks that compose with a letter to one character.
_COMPOSED = {*range(0x300, 0x34F), *range(0x350, 0x370), 0x653, 0x654, 0x655, 0x3099, 0x309A}
_JOINER = "\u034f"
_FINAL_SIGMA = rf"[\p{{Lu}}\p{{Ll}}\p{{Lt}}]{_BETWEEN}\KΣ(?!{_BETWEEN}[\p{{Lu}}\p{{Ll}}\p{{Lt}}])"


def tokenizer_json(model: Path, config: TokenizerConfig, documents: bool = False) -> dict[str, Any]:
    """Content of ``tokenizer.json`` for the SentencePiece ``model`` with the cleaning of ``config``.

    ``documents``: a text gets a [SEP] before it and nothing else, as causal LM reads documents.
    """
    content = content_for(read_model(model), config.lowercase, config.strip_accents)
    if documents:
        content["post_processor"] = _opening(content["added_tokens"][SEP]["content"])
    return content


def content_for(proto: Any, lowercase: bool, strip_accents: bool) -> dict[str, Any]:
    """As ``tokenizer_json``, for a ModelProto."""
    specials = [proto.pieces[i].piece for i in range(FIRST_PIECE)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    across = any("▁" in p.piece[1:] for p in proto.pieces if p.type == NORMAL)  # pieces of several words
    division = [metaspace | {"split": False}] if across else [{"type": "WhitespaceSplit"}, metaspace]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, piece) for i, piece in enumerate(specials)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(proto, lowercase, strip_accents, across)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": division},
        "post_processor": _template(specials[CLS], specials[SEP]),
        "decoder": metaspace,
        "model": bpe_model(proto) if model_type(proto) == "bpe" else _unigram(proto),
    }


def _unigram(proto: Any) -> dict[str, Any]:
    best = max(piece.score for piece in proto.pieces if piece.type == NORMAL)
    vocabulary = [[p.piece, _score(p, best)] for p in proto.pieces]
    return {"type": "Unigram", "unk_id": UNK, "vocab": vocabulary, "byte_fallback": _has_bytes(proto)}


def _score(piece: Any, best: float) -> float:
    """The score of a piece; for a user-defined piece, the score that SentencePiece uses while encoding."""
    return symbol_score(piece.piece, best) if piece.type == USER_DEFINED else float(piece.score)


def symbol_score(piece: str, best: float) -> float:
    """The score of a user-defined piece if ``best`` is the highest score of a normal piece."""
    return len(piece) * best - 0.1


def bpe_model(proto: Any) -> dict[str, Any]:
    """The BPE model. SentencePiece merges neighbours whose piece scores highest; the format lists merges in order."""
    scores = {p.piece: p.score for p in proto.pieces if p.type == NORMAL}
    merges = [
        (-score, piece[:i], piece[i:])
        for piece, score in scores.items()
        for i in range(1, len(piece))
        if piece[:i] in scores and piece[i:] in scores
    ]
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": proto.pieces[UNK].piece,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": _has_bytes(proto),
        "ignore_merges": False,
        "vocab": {p.piece: i for i, p in enumerate(proto.pieces)},
        "merges": [[left, right] for _, left, right in sorted(merges)],
    }


def _has_bytes(proto: Any) -> bool:
    return any(piece.type == BYTE for piece in proto.pieces)


def _added(index: int, piece: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": piece, **flags, "special": True}


def _normalizers(proto: Any, lowercase: bool, strip_accents: bool, across: bool) -> list[dict[str, Any]]:
    """Steps for this project's cleaning, then the model's character map."""
    steps: list[dict[str, Any]] = []
    if strip_accents:
        # Not the library's StripAccents, which also drops the vowel signs of Indic scripts.
        steps += [{"type": "NFKD"}, _replaced(f"[{_ranges(map(ord, combining_marks()))}]", "")]
    if lowercase:
        steps += [_replaced(_FINAL_SIGMA, "ς"), {"type": "Lowercase"}]
    charsmap = proto.normalizer_spec.precompiled_charsmap
    if charsmap:
        step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
        steps += _composed(step) if "nfkc" in proto.normalizer_spec.name else [step]
    if across:
        steps += [_replaced(r"\s+", " "), {"type": "Strip", "strip_left": True, "strip_right": True}]
    return steps


def _composed(charsmap: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps that apply ``charsmap`` as SentencePiece does, which composes letters and marks.

    The library's Precompiled step sees at most one letter and mark, so NFC composes instead. NFC also reorders marks,
    which SentencePiece does not; a joiner between two marks preserves their order. Half-width kana are composed after
    the map.
    """
    ordered = f"[{_ranges(code for code in map(ord, combining_marks()) if code not in _COMPOSED)}]"
    voiced = "(?<=[\uff66-\uff9d])"
    return [
        _replaced(f"(?<={ordered})(?={ordered})", _JOINER),
        {"type": "NFC"},
        _replaced(f"{voiced}\uff9e", "\u3099"),
        _replaced(f"{voiced}\uff9f", "\u309a"),
        charsmap,
        {"type": "NFC"},
        _replaced(_JOINER, ""),
    ]


def _replaced(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _ranges(codes: Iterable[int]) -> str:
    """Content of a regular expression's character class."""
    known = set(codes)
    starts = sorted(code for code in known if code - 1 not in known)
    ends = sorted(code for code in known if code + 1 not in known)
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


def _template(start: str, end: str) -> dict[str, Any]:
    """The post-processor [CLS] A [SEP] B [SEP]."""
    single = [_special(start, 0), _text("A", 0), _special(end, 0)]
    return _processor(single, [*single, _text("B", 1), _special(end, 1)], {start: CLS, end: SEP})


def _opening(separator: str) -> dict[str, Any]:
    """The post-processor [SEP] A [SEP] B."""
    single = [_special(separator, 0), _text("A", 0)]
    return _processor(single, [*single, _special(separator, 0), _text("B", 0)], {separator: SEP})


def _special(piece: str, kind: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": piece, "type_id": kind}}


def _text(name: str, kind: int) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": kind}}


def _processor(single: list[dict[str, Any]], pair: list[dict[str, Any]], ids: dict[str, int]) -> dict[str, Any]:
    tokens = {piece: {"id": piece, "ids": [index], "tokens": [piece]} for piece, index in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}

"""Our SentencePiece tokenizer as a ``tokenizer.json``, the form of the tokenizers library.

transformers converts a ``spiece.model`` by itself, but makes added tokens of the user-defined pieces
(quotes, brackets, ...), which loses the word mark before them. SentencePiece gives such a piece a
score that always wins; so does this file. One rule cannot be said in this form: a piece such as
"3," is split here into "3" and ",".
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.sentencepiece_model import BYTE, NORMAL, USER_DEFINED, model_type, read_model
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, SEP, UNK, combining_marks

#: A capital sigma that ends a word, as Python lower-cases it; marks and points between letters do not end one.
_BETWEEN = r"[\p{M}\p{Lm}\p{Sk}\p{Cf}'.:·’‘․]*"
#: Marks that make one character with a letter of their own or of several scripts.
_COMPOSED = {*range(0x300, 0x34F), *range(0x350, 0x370), 0x653, 0x654, 0x655, 0x3099, 0x309A}
_JOINER = "\u034f"
_FINAL_SIGMA = rf"[\p{{Lu}}\p{{Ll}}\p{{Lt}}]{_BETWEEN}\KΣ(?!{_BETWEEN}[\p{{Lu}}\p{{Ll}}\p{{Lt}}])"


def tokenizer_json(model: Path, config: TokenizerConfig) -> dict[str, Any]:
    """The file's content for the SentencePiece ``model`` with the cleaning of ``config``."""
    return content_for(read_model(model), config.lowercase, config.strip_accents)


def content_for(proto: Any, lowercase: bool, strip_accents: bool) -> dict[str, Any]:
    """The same for a model that was read."""
    specials = [proto.pieces[i].piece for i in range(FIRST_PIECE)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    across = any("▁" in p.piece[1:] for p in proto.pieces if p.type == NORMAL)  # pieces of several words
    words = [metaspace | {"split": False}] if across else [{"type": "WhitespaceSplit"}, metaspace]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(i, piece) for i, piece in enumerate(specials)],
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(proto, lowercase, strip_accents, across)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": words},
        "post_processor": _template(specials[CLS], specials[SEP]),
        "decoder": metaspace,
        "model": bpe_model(proto) if model_type(proto) == "bpe" else _unigram(proto),
    }


def _unigram(proto: Any) -> dict[str, Any]:
    best = max(piece.score for piece in proto.pieces if piece.type == NORMAL)
    vocabulary = [[p.piece, _score(p, best)] for p in proto.pieces]
    return {"type": "Unigram", "unk_id": UNK, "vocab": vocabulary, "byte_fallback": _has_bytes(proto)}


def _score(piece: Any, best: float) -> float:
    """Of a user-defined piece, what SentencePiece gives it while it encodes."""
    return symbol_score(piece.piece, best) if piece.type == USER_DEFINED else float(piece.score)


def symbol_score(piece: str, best: float) -> float:
    """Of a user-defined piece, where the normal pieces' highest score is ``best``."""
    return len(piece) * best - 0.1


def bpe_model(proto: Any) -> dict[str, Any]:
    """SentencePiece merges the neighbours that make the piece of the highest score; here the merges are listed."""
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


def _added(place: int, piece: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": place, "content": piece, **flags, "special": True}


def _normalizers(proto: Any, lowercase: bool, strip_accents: bool, across: bool) -> list[dict[str, Any]]:
    """Our cleaning, then the model's own map of characters."""
    found: list[dict[str, Any]] = []
    if strip_accents:
        # Not its own StripAccents, which takes the vowel signs of Indic scripts too.
        found += [{"type": "NFKD"}, _replaced(f"[{_ranges(map(ord, combining_marks()))}]", "")]
    if lowercase:
        found += [_replaced(_FINAL_SIGMA, "ς"), {"type": "Lowercase"}]
    charsmap = proto.normalizer_spec.precompiled_charsmap
    if charsmap:
        step = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
        found += _composed(step) if "nfkc" in proto.normalizer_spec.name else [step]
    if across:
        found += [_replaced(r"\s+", " "), {"type": "Strip", "strip_left": True, "strip_right": True}]
    return found


def _composed(charsmap: dict[str, Any]) -> list[dict[str, Any]]:
    """SentencePiece's map composes letters and marks; theirs sees at most one letter and mark, so NFC does that.

    NFC also brings marks into an order, which SentencePiece leaves alone; a joiner between two marks keeps theirs.
    Half-width kana are composed after the map.
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
    """The inside of a class of characters."""
    known = set(codes)
    starts = sorted(code for code in known if code - 1 not in known)
    ends = sorted(code for code in known if code + 1 not in known)
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


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

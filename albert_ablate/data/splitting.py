"""Splits paragraphs into sentences with sentencex and the rules of a language."""

import re
from collections import Counter
from collections.abc import Iterator

import sentencex

#: Sentence marks unknown to sentencex: Khmer, Tibetan, and the vertical forms of Chinese marks.
_UNKNOWN = "\u17d4\u17d5\u0f08\u0f0d-\u0f12\u0f14\ufe12\ufe15\ufe16"
_CLOSING = "』】》〉）〕］｝〗〙〛」”’»"
_MARKED_SENTENCES = re.compile(f"[^{_UNKNOWN}]*[{_UNKNOWN}][{_UNKNOWN}\\s{_CLOSING}]*|[^{_UNKNOWN}]+")
_HAS_UNKNOWN = re.compile(f"[{_UNKNOWN}]")
#: Closing marks that belong to the sentence before. Those that English uses too are left where sentencex puts them.
_STRAY = re.compile("[』】》〉）〕］｝〗〙〛」]+")


def split_sentences(document: str, language: str, tally: Counter[str] | None = None) -> Iterator[str]:
    """Sentences of ``document`` in order; the end of a paragraph always ends a sentence.

    ``tally["mended"]`` counts the sentence ends that sentencex misses or misplaces.
    """
    for paragraph in document.splitlines():
        if paragraph.strip():
            for part in _mended(sentencex.segment(language, paragraph), tally):
                if sentence := " ".join(part.split()):
                    yield sentence


def _mended(sentences: list[str], tally: Counter[str] | None) -> Iterator[str]:
    """Returns closing brackets to the sentence that they close, and splits at marks unknown to sentencex."""
    whole: list[str] = []
    mended = 0
    for sentence in sentences:
        stray = _STRAY.match(sentence) if whole else None
        if stray:
            whole[-1] += stray[0]
            sentence = sentence[stray.end() :]
            mended += 1
        if _HAS_UNKNOWN.search(sentence):
            parts = _MARKED_SENTENCES.findall(sentence)
            mended += len(parts) - 1
            whole += parts
        elif sentence:
            whole.append(sentence)
    if tally is not None and mended:
        tally["mended"] += mended
    yield from whole

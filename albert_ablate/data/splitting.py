"""Paragraphs -> sentences, by sentencex and the rules of a language."""

import re
from collections import Counter
from collections.abc import Iterator

import sentencex

#: Marks that end a sentence and that sentencex does not know: Khmer's, Tibetan's, and vertical forms of Chinese.
_UNKNOWN = "\u17d4\u17d5\u0f08\u0f0d-\u0f12\u0f14\ufe12\ufe15\ufe16"
_CLOSING = "』】》〉）〕］｝〗〙〛」”’»"
_OWN_SENTENCES = re.compile(f"[^{_UNKNOWN}]*[{_UNKNOWN}][{_UNKNOWN}\\s{_CLOSING}]*|[^{_UNKNOWN}]+")
_HAS_UNKNOWN = re.compile(f"[{_UNKNOWN}]")
#: Closing marks that belong to the sentence before; those that English has too stay where sentencex puts them.
_STRAY = re.compile("[』】》〉）〕］｝〗〙〛」]+")


def split_sentences(document: str, language: str, tally: Counter[str] | None = None) -> Iterator[str]:
    """Sentences of ``document`` in order; a paragraph's end always ends a sentence.

    ``tally`` counts under ``mended`` the sentences whose end sentencex does not find or misplaces.
    """
    for paragraph in document.splitlines():
        if paragraph.strip():
            for found in _mended(sentencex.segment(language, paragraph), tally):
                if sentence := " ".join(found.split()):
                    yield sentence


def _mended(sentences: list[str], tally: Counter[str] | None) -> Iterator[str]:
    """Closing brackets go back to the sentence that they close; marks that sentencex does not know end one too."""
    whole: list[str] = []
    mended = 0
    for sentence in sentences:
        stray = _STRAY.match(sentence) if whole else None
        if stray:
            whole[-1] += stray[0]
            sentence = sentence[stray.end() :]
            mended += 1
        if _HAS_UNKNOWN.search(sentence):
            parts = _OWN_SENTENCES.findall(sentence)
            mended += len(parts) - 1
            whole += parts
        elif sentence:
            whole.append(sentence)
    if tally is not None and mended:
        tally["mended"] += mended
    yield from whole

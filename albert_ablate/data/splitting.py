"""Paragraphs -> sentences, by sentencex and the rules of a language."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import sentencex

#: Marks that end a sentence and that sentencex does not know: Khmer's, Tibetan's, and vertical forms of Chinese.
_UNKNOWN = "\u17d4\u17d5\u0f08\u0f0d-\u0f12\u0f14\ufe12\ufe15\ufe16"
_CLOSING = "』】》〉）〕］｝〗〙〛」”’»"
_OWN_SENTENCES = re.compile(f"[^{_UNKNOWN}]*[{_UNKNOWN}][{_UNKNOWN}\\s{_CLOSING}]*|[^{_UNKNOWN}]+")
_HAS_UNKNOWN = re.compile(f"[{_UNKNOWN}]")
#: Closing marks that belong to the sentence before; those that English has too stay where sentencex puts them.
_STRAY = re.compile("[』】》〉）〕］｝〗〙〛」]+")

#: Languages that sentencex has rules for; English's come first, since others have the same ones for lack of their own.
_LANGUAGES = {
    "en": "English", "am": "Amharic", "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan",
    "da": "Danish", "de": "German", "el": "Greek", "es": "Spanish", "fi": "Finnish", "fr": "French", "gu": "Gujarati",
    "hi": "Hindi", "hy": "Armenian", "it": "Italian", "ja": "Japanese", "kk": "Kazakh", "kn": "Kannada",
    "ml": "Malayalam", "mr": "Marathi", "my": "Burmese", "nl": "Dutch", "or": "Odia", "pa": "Punjabi", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "sk": "Slovak", "ta": "Tamil", "te": "Telugu", "uk": "Ukrainian",
}  # fmt: skip
#: Abbreviations that tell the rules of those languages apart.
_PROBES = (
    "Sr", "núm", "nr", "kr", "z.B", "bzw", "π.χ", "Gov", "pág", "esim", "chap", "гр", "г", "руб", "ഡോ", "bijv", "np",
    "ul", "Exmo", "т.б", "napr", "грн", "Mr", "M", "dott", "f.eks", "mm", "ul", "ж",
)  # fmt: skip


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


@lru_cache
def rules_of(language: str) -> str:
    """The language whose rules sentencex splits by: ``language``, or one that stands in for it."""
    if language in _LANGUAGES:
        return language
    probed = _probed(language)
    return next((own for own in _LANGUAGES if _probed(own) == probed), "en")


@lru_cache
def _probed(language: str) -> tuple[int, ...]:
    return tuple(len(sentencex.segment(language, f"Aaa bbb {probe}. Ббб ccc ddd")) for probe in _PROBES)


def known_code(code: str) -> str:
    """``zh_CN``, ``pt-BR`` or ``en-US`` as sentencex spells it: a region that it does not know is left out."""
    code = code.lower().replace("_", "-")
    while "-" in code and rules_of(code) == "en":
        code = code.rpartition("-")[0]
    return code


def rules_in_words(language: str) -> str | None:
    """Whose rules stand in for a language that sentencex has none for; None where it has its own."""
    if language in _LANGUAGES:
        return None
    own = rules_of(language)
    return (
        f"data.language={language}: there are no rules for splitting its sentences; those of {_LANGUAGES[own]} ({own}) "
        "stand in, with the sentence marks of every script"
    )

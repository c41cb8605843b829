"""Languages whose sentences can be split, and the one whose rules stand in for a language without any."""

from functools import lru_cache

import sentencex

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

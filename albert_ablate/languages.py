"""Languages with rules for splitting sentences, and which rules are used for a language without any."""

from functools import lru_cache

import sentencex

#: Languages that sentencex has rules for. English comes first: sentencex falls back to its rules.
_LANGUAGES = {
    "en": "English", "am": "Amharic", "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan",
    "da": "Danish", "de": "German", "el": "Greek", "es": "Spanish", "fi": "Finnish", "fr": "French", "gu": "Gujarati",
    "hi": "Hindi", "hy": "Armenian", "it": "Italian", "ja": "Japanese", "kk": "Kazakh", "kn": "Kannada",
    "ml": "Malayalam", "mr": "Marathi", "my": "Burmese", "nl": "Dutch", "or": "Odia", "pa": "Punjabi", "pl": "Polish",
    "pt": "Portuguese", "ru": "Russian", "sk": "Slovak", "ta": "Tamil", "te": "Telugu", "uk": "Ukrainian",
}  # fmt: skip
#: Abbreviations that distinguish the rules of these languages.
_PROBES = (
    "Sr", "núm", "nr", "kr", "z.B", "bzw", "π.χ", "Gov", "pág", "esim", "chap", "гр", "г", "руб", "ഡോ", "bijv", "np",
    "ul", "Exmo", "т.б", "napr", "грн", "Mr", "M", "dott", "f.eks", "mm", "ul", "ж",
)  # fmt: skip


@lru_cache
def rules_of(language: str) -> str:
    """The language whose rules sentencex applies to ``language``: itself, or its fallback."""
    if language in _LANGUAGES:
        return language
    probed = _probed(language)
    return next((known for known in _LANGUAGES if _probed(known) == probed), "en")


@lru_cache
def _probed(language: str) -> tuple[int, ...]:
    return tuple(len(sentencex.segment(language, f"Aaa bbb {probe}. Ббб ccc ddd")) for probe in _PROBES)


def known_code(code: str) -> str:
    """``zh_CN``, ``pt-BR`` or ``en-US`` as sentencex spells it, without a region that it does not know."""
    code = code.lower().replace("_", "-")
    while "-" in code and rules_of(code) == "en":
        code = code.rpartition("-")[0]
    return code


def borrowed_rules(language: str) -> str | None:
    """A message that names the fallback rules of ``language``; None if sentencex has rules for it."""
    if language in _LANGUAGES:
        return None
    fallback = rules_of(language)
    return (
        f"data.language={language}: there are no rules for splitting its sentences; the rules of "
        f"{_LANGUAGES[fallback]} ({fallback}) are used, with the sentence marks of every script"
    )

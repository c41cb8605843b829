"""Made-up corpora of every script, form, suffix, line end and length: counted exactly, or refused in words."""

import bz2
import csv
import dataclasses
import gzip
import io
import itertools
import json
import lzma
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runhelpers import tiny_overrides

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.batches import PairBatches
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.data.text import prepare_text, text_info
from albert_ablate.door.compose import compose
from albert_ablate.errors import UserError

# --- scripts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """Letters to make words of, the marks that end a sentence, and what stands between words."""

    language: str
    letters: str
    marks: str
    space: str = " "


def letters(first: str, last: str) -> str:
    return "".join(map(chr, range(ord(first), ord(last) + 1)))


SCRIPTS = {
    "Latin": Script("en", "abdefgiklmnoprstu", ".!?"),
    "accented": Script("de", "abdefgiklmnoprstuäöü", ".!?"),
    "Cyrillic": Script("ru", letters("а", "я"), ".!?"),
    "Greek": Script("el", letters("α", "ρ"), ".!;"),
    "Arabic": Script("ar", letters("ا", "غ"), ".؟!"),
    "Urdu": Script("ur", letters("ا", "غ"), "۔؟"),
    "Hebrew": Script("he", letters("א", "ת"), ".?!"),
    "Devanagari": Script("hi", letters("क", "न"), "।?"),
    "Bengali": Script("bn", letters("ক", "ন"), "।"),
    "Tamil": Script("ta", "கஙசஞடணதநபமயரலவ", "."),
    "Thai": Script("th", letters("ก", "ฮ"), "", " "),
    "Lao": Script("lo", "ກຂຄງຈຊຍດຕຖທນບປຜຝພຟມ", "", " "),
    "Khmer": Script("km", letters("ក", "ម"), "។", ""),
    "Burmese": Script("my", letters("က", "မ"), "။", ""),
    "Tibetan": Script("bo", letters("ཀ", "མ"), "།", "་"),
    "Han": Script("zh", letters("一", "丿"), "。！？", ""),
    "kana": Script("ja", letters("か", "ま"), "。！？", ""),
    "Hangul": Script("ko", letters("가", "갛"), ".?"),
    "Ethiopic": Script("am", letters("ሀ", "ሆ") + letters("ለ", "ሎ"), "።፧"),
    "Armenian": Script("hy", letters("ա", "ռ"), "։"),
    "Georgian": Script("ka", letters("ა", "ჰ"), "."),
    "emoji": Script("en", "😀😁😂🎉🎈🚀🌍🌈abdefgiklmno", ".!?"),
    "mixed": Script("zh", "一丁七丈abdefgiかきくけ", "。！？", ""),
}
UNMARKED = ("Thai", "Lao")

Documents = list[list[str]]  # sentences of each


def make_documents(name: str, long: bool, seed: int, words_known: int = 60) -> Documents:
    """Thirty documents of three to six sentences, none of which looks like an abbreviation."""
    script, draw = SCRIPTS[name], random.Random(f"{name} {seed}")

    def word() -> str:
        return "".join(draw.choice(script.letters) for _ in range(draw.randint(5, 8)))

    known = [word() for _ in range(words_known)]

    def sentence() -> str:
        words = [draw.choice(known) for _ in range(draw.randint(2, 30 if long else 9))]
        return script.space.join(words).capitalize() + (draw.choice(script.marks) if script.marks else "")

    return [[sentence() for _ in range(draw.randint(3, 6))] for _ in range(30)]


# --- forms ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A file's text, and what has to be counted in it: None where it has to be refused."""

    text: str
    documents: int | None
    sentences: int = 0
    settings: tuple[str, ...] = ()
    words: str = ""  # of the refusal


def whole(name: str, documents: Documents) -> list[str]:
    """Each document as one paragraph."""
    between = " " if SCRIPTS[name].space == " " else ""
    return [between.join(sentences) for sentences in documents]


def split_count(name: str, documents: Documents) -> int:
    """Sentences that can be found in paragraphs: without sentence marks a paragraph is one."""
    return len(documents) if name in UNMARKED else sum(map(len, documents))


def wrapped(text: str, width: int) -> str:
    if " " not in text:
        return "\n".join(text[start : start + width] for start in range(0, len(text), width))
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".lstrip()
    return "\n".join([*lines, line])


def sentence_lines(name: str, documents: Documents) -> Made:
    return Made("\n\n".join(map("\n".join, documents)) + "\n", len(documents), sum(map(len, documents)))


def wrapped_prose(name: str, documents: Documents) -> Made:
    text = "\n\n\n".join(wrapped(paragraph, 40) for paragraph in whole(name, documents))
    return Made(text, len(documents), split_count(name, documents))


def unwrapped_prose(name: str, documents: Documents) -> Made:
    return Made("\n\n\n".join(whole(name, documents)) + "\n", len(documents), split_count(name, documents))


def table(delimiter: str) -> Callable[[str, Documents], Made]:
    def make(name: str, documents: Documents) -> Made:
        out = io.StringIO()
        rows = csv.writer(out, delimiter=delimiter, lineterminator="\n")
        rows.writerow(["id", "text", "label"])
        rows.writerows([n, text, "ab"[n % 2]] for n, text in enumerate(whole(name, documents)))
        return Made(out.getvalue(), len(documents), split_count(name, documents))

    return make


def other_table(name: str, documents: Documents) -> Made:
    text = table(",")(name, documents).text.replace("id,text,label", "id,body,label")
    return Made(text, None, words="no column 'text'; it has ['id', 'body', 'label']")


def json_lines(name: str, documents: Documents) -> Made:
    rows = [json.dumps({"id": n, "text": text}, ensure_ascii=False) for n, text in enumerate(whole(name, documents))]
    return Made("\n".join(rows) + "\n", len(documents), split_count(name, documents))


def json_array(name: str, documents: Documents) -> Made:
    rows = [{"text": text} for text in whole(name, documents)]
    return Made(json.dumps(rows, indent=1), len(documents), split_count(name, documents))


def json_texts(name: str, documents: Documents) -> Made:
    return Made(json.dumps(whole(name, documents)), len(documents), split_count(name, documents))


def unparted(name: str, documents: Documents) -> Made:
    text = "\n".join(itertools.chain.from_iterable(documents))
    return Made(text, None, words="data.documents_of=N makes one of every N sentences")


def counted_out(name: str, documents: Documents) -> Made:
    text = "\n".join(itertools.chain.from_iterable(documents))
    count = sum(map(len, documents))
    return Made(text, -(-count // 4), count, ("data.documents_of=4",))


def single_sentences(name: str, documents: Documents) -> Made:
    """Of a script without sentence marks these are paragraphs as well as documents: stated."""
    sentences = list(itertools.chain.from_iterable(documents))
    stated = ("data.format=sentences",) if name in UNMARKED else ()
    return Made("\n\n".join(sentences), len(sentences), len(sentences), stated)


FORMS: dict[str, Callable[[str, Documents], Made]] = {
    "sentences": sentence_lines,
    "wrapped": wrapped_prose,
    "unwrapped": unwrapped_prose,
    "csv": table(","),
    "tsv": table("\t"),
    "semicolons": table(";"),
    "other table": other_table,
    "json lines": json_lines,
    "json array": json_array,
    "json texts": json_texts,
    "unparted": unparted,
    "counted out": counted_out,
    "single": single_sentences,
}
TEXTS = ("sentences", "wrapped", "unwrapped", "unparted", "counted out", "single")

# --- files ---------------------------------------------------------------------------------------


def zipped(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.txt", content)
    return out.getvalue()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress, "zip": zipped,
}  # fmt: skip
#: Name of the file -> how it is packed, which the name need not say.
NAMES = {
    "own.txt": "", "own": "", "own.md": "", "own.text": "", "own.csv": "", "own.json": "", "own.TXT.gz": "gz",
    "own.xz": "xz", "own.bz2": "bz2", "own.zip": "zip", "packed.txt": "gz", "named.gz": "", "own.tsv.xz": "xz",
}  # fmt: skip
ENDS: dict[str, Callable[[str], str]] = {
    "LF": str, "CRLF": lambda text: text.replace("\n", "\r\n"), "CR": lambda text: text.replace("\n", "\r"),
    "BOM": lambda text: "\ufeff" + text, "BOM CRLF": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
}  # fmt: skip


def refused_by_name(form: str, name: str) -> str:
    """Words of the refusal where a name announces something else than text or the rows that are there."""
    if name == "own.json" and not form.startswith("json"):
        return "not JSON"
    if name == "named.gz":
        return "does not begin like one"
    return "no column 'text'" if name in ("own.csv", "own.tsv.xz") and form in TEXTS else ""


def combinations() -> Iterator[tuple[str, str, str, str, bool]]:
    """Every script in every form; suffix, line end and length take turns, so that each meets each script and form."""
    turn = zip(itertools.cycle(NAMES), itertools.cycle(ENDS), itertools.cycle([False, False, True]), strict=False)
    for number, script in enumerate(SCRIPTS):
        for form in FORMS:
            name, end, long = next(turn)
            yield script, form, name, end, long
        for _ in range(number % 3):  # so that forms and suffixes do not go in step
            next(turn)


COMBINATIONS = list(combinations())


def test_there_are_enough_and_each_meets_each() -> None:
    assert len(COMBINATIONS) >= 200
    for a, b in itertools.combinations(range(4), 2):
        seen = {(combination[a], combination[b]) for combination in COMBINATIONS}
        possible = len({c[a] for c in COMBINATIONS}) * len({c[b] for c in COMBINATIONS})
        assert len(seen) > 0.5 * possible
    read = [c for c in COMBINATIONS if not refused_by_name(*c[1:3]) and c[1] not in ("unparted", "other table")]
    assert len(read) > 0.6 * len(COMBINATIONS)


@pytest.mark.parametrize(
    ("script", "form", "name", "end", "long"), COMBINATIONS, ids=["-".join(map(str, c)) for c in COMBINATIONS]
)
def test_a_strange_corpus_is_counted_exactly_or_refused_in_words(
    script: str, form: str, name: str, end: str, long: bool, tmp_path: Path
) -> None:
    made = FORMS[form](script, make_documents(script, long, 0))
    file = tmp_path / name
    file.write_bytes(PACK[NAMES[name]](ENDS[end](made.text).encode()))
    words = refused_by_name(form, name) or (made.words if made.documents is None else "")
    settings = (f"data.language={SCRIPTS[script].language}", *made.settings)
    if words:
        with pytest.raises(UserError, match=re.escape(words)):
            prepared_info(tmp_path, file, *settings)
        return
    info = prepared_info(tmp_path, file, *settings)
    assert (total(info, "documents"), total(info, "sentences")) == (made.documents, made.sentences)


_DATA: dict[tuple[str, ...], RunConfig] = {}


def prepared_info(folder: Path, file: Path, *settings: str) -> dict[str, Any]:
    """What ``prepare_text`` counted."""
    key = tuple(sorted(settings))
    if key not in _DATA:  # composing takes longer than all the rest
        _DATA[key] = compose(["data=text", "data.path=x", *settings])
    data = dataclasses.replace(_DATA[key].data, path=str(file))
    return text_info(prepare_text(open_corpus(data), data.language, 0.3, folder / "cache"))


def total(info: dict[str, Any], what: str) -> int:
    return int(info["train"][what] + info["valid"][what])


# --- the share of masked tokens ------------------------------------------------------------------


def masked_share(prepared: Prepared, config: RunConfig) -> float:
    """Of an epoch's real tokens, special ones included as in the paper's budget, the share that is a target."""
    batches = PairBatches(
        prepared.train, prepared.tokenizer.word_starts, config.objective.name, config.pairs, config.masking,
        config.batch.size, config.seed,
    )  # fmt: skip
    epoch = [batches[step] for step in range(-(-batches.epoch_size // config.batch.size))]
    return sum(len(batch.targets) for batch in epoch) / sum(int(batch.mask.sum()) for batch in epoch)


#: Of scripts whose sentences are one long word, where hardly a piece is longer than a character.
_PIECES = {"Khmer": 40, "Burmese": 41, "Tibetan": 39, "Han": 84, "kana": 60, "mixed": 50}


def prepared_for_training(folder: Path, file: Path, script: str, *settings: str) -> tuple[Prepared, RunConfig]:
    """The corpus of ``file`` with a tokenizer of its own, and the configuration it is for."""
    language = SCRIPTS[script].language
    config = compose(
        tiny_overrides(
            folder,
            f"data.language={language}",
            f"tokenizer.vocab_size={_PIECES.get(script, 120)}",
            *settings,
            corpus=file,
        )
    )
    prepared = prepare(config)
    return prepared, prepared.settled(config)


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_share_of_masked_tokens_is_the_one_that_is_set(script: str, tmp_path: Path) -> None:
    made = sentence_lines(script, make_documents(script, False, 1, words_known=200))
    (tmp_path / "own.txt").write_text(made.text, encoding="utf-8")
    share = masked_share(*prepared_for_training(tmp_path, tmp_path / "own.txt", script))
    assert 0.14 <= share <= 0.17


@pytest.mark.parametrize("script", ["Latin", "Greek", "Cyrillic", "Georgian", "Ethiopic"])
def test_words_of_more_pieces_than_the_budget_do_not_lower_the_share(script: str, tmp_path: Path) -> None:
    """A vocabulary of hardly more than letters: a row of 32 tokens may mask five pieces, and most words have more."""
    made = sentence_lines(script, make_documents(script, False, 1, words_known=200))
    (tmp_path / "own.txt").write_text(made.text, encoding="utf-8")
    pieces = f"tokenizer.vocab_size={len(set(made.text)) + 16}"
    share = masked_share(*prepared_for_training(tmp_path, tmp_path / "own.txt", script, pieces))
    assert 0.14 <= share <= 0.17

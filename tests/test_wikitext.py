"""WikiText: articles under headings, its tokenised form undone, and texts that only look like it."""

import difflib
import gzip
import json
import lzma
import os
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from runhelpers import tiny_overrides
from test_corpora import data, documents, fault, hub

from albert_ablate.data.corpora import open_corpus, read_articles
from albert_ablate.data.forms import form_of
from albert_ablate.data.prepare import prepare
from albert_ablate.data.text import prepare_text, split_sentences, text_info
from albert_ablate.data.tokenizer import UNK
from albert_ablate.data.vocabulary import get_tokenizer
from albert_ablate.data.wikitext import UNKNOWN, detokenised, heading_level
from albert_ablate.door.compose import compose

#: Four articles' worth of lines, as WikiText writes them.
ARTICLE = """ \n = {title} = \n \n {title} , known as the " cutter " , is a <unk> of 20 @,@ 000 ( twenty @-@ odd ) . \
It weighs 0 @.@ 7 – 2 @.@ 2 kg . \n \n = = Life of {title} = = \n \n It 's blue , isn 't it ? Number {number} is . \n \
 The second line is {number} . \n \n = = = Detail = = = \n \n Weber 's <unk> @-@ based one was lost . \n"""


def articles(count: int = 60) -> str:
    return "".join(ARTICLE.format(title=f"Thing {n}", number=n) for n in range(count))


def read(number: int) -> str:
    """Article ``number`` as it is to be read."""
    return (
        f'Thing {number}, known as the "cutter", is a {UNKNOWN} of 20,000 (twenty-odd). It weighs 0.7 – 2.2 kg.\n'
        f"It's blue, isn't it? Number {number} is.\nThe second line is {number}.\n"
        f"Weber's {UNKNOWN}-based one was lost."
    )


@pytest.mark.parametrize(
    ("line", "level"),
    [(" = Robert = \n", 1), ("= Robert =", 1), (" = = Part = = \r\n", 2), (" = = = Detail = = = ", 3),
     (" = E = mc = ", 1), (" = <unk> = ", 1), ("= = Robert =", 0), ("== Robert ==", 0), ("= Robert", 0), ("= 5 .", 0),
     ("a = b", 0), ("=", 0), ("= =", 0), ("", 0)],
)  # fmt: skip
def test_headings(line: str, level: int) -> None:
    assert heading_level(line) == level


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("a red @-@ tipped claw , 4 @,@ 386 t .", "a red-tipped claw, 4,386 t."),
        ("0 @.@ 7 – 2 @.@ 2 kg ( 1 @.@ 5 lb ) .", "0.7 – 2.2 kg (1.5 lb)."),
        ('the " cutter " , a " lobster red " .', 'the "cutter", a "lobster red".'),
        ('He said : " No ! " , then [ left ] ; why ?', 'He said: "No!", then [left]; why?'),
        ('one " alone , here .', 'one " alone, here.'),
        ("Weber 's , don 't , O 'Brien , they 'll .", "Weber's, don't, O'Brien, they'll."),
        ("Linnaeus ' concept , it is .", "Linnaeus' concept, it is."),
        ("this ' anti @-@ air ' concept , it is .", "this 'anti-air' concept, it is."),
        ("Linnaeus ' concept of the ' old ' .", "Linnaeus' concept of the 'old'."),
        ("his ' ideas ' were , so .", "his ' ideas ' were, so."),  # closes, or two possessives: nobody knows
        ("in the ' 90s , so .", "in the '90s, so."),
        ("at 10 : 30 , 79 % of £ 5 and $ 6 .", "at 10:30, 79% of £5 and $6."),
        ("“ So ” , it ’ s .", "“So”, it’s."),
        ("and / or 5 – 6 , it was 57 ° 53 .", "and / or 5 – 6, it was 57 ° 53."),
        ("<unk> , ( <unk> ) and <unk> @-@ like .", f"{UNKNOWN}, ({UNKNOWN}) and {UNKNOWN}-like."),
        ("@-@ at an edge , @.@", "@-@ at an edge, @.@"),
        ("A line without any", "A line without any"),
        ("Natural text, 'quoted' and (so) on : a $ 5 . It's.", "Natural text, 'quoted' and (so) on : a $ 5 . It's."),
        ("Vraiment ? Oui ! Il dit : « non ».", "Vraiment ? Oui ! Il dit : « non »."),
        ("", ""),
    ],
)
def test_what_is_certain_is_joined_back(line: str, written: str) -> None:
    assert detokenised(line) == written
    assert detokenised(written) == written


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["wiki.valid.tokens", "wiki.txt", "wiki.txt.gz"])
def test_an_article_is_a_document(name: str, ends: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = articles().replace("\n", ends).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert documents(tmp_path / name) == [read(n) for n in range(60)]
    folder = prepare_text(open_corpus(data(tmp_path / name)), "en", 0.2, tmp_path / "cache")
    said = capsys.readouterr().out
    assert "read as WikiText, an article a document: 1 file, 60 documents" in said
    assert "120 words of it are <unk>: an unknown token each" in said
    lines = [line for side in ("train", "valid") for line in (folder / f"{side}.txt").read_text().splitlines() if line]
    assert len(lines) == 60 * 6
    assert not [line for line in lines if line.startswith(("@", "=")) or " @" in line]


def test_a_folder_of_them_is_read_as_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for part in ("train", "valid"):
        (tmp_path / "in" / f"wiki.{part}.tokens").write_text(articles(3).replace("Thing", part))
    assert len(documents(tmp_path / "in")) == 6
    (tmp_path / "in" / "rest.tokens").write_text(" It goes on here , without a heading . \n" * 3)
    words = fault(tmp_path / "in")
    assert "some files have WikiText's headings and spaces and others do not (2 and 1; without: 1 file, rest" in words
    assert "data.format=headings" in words
    assert len(documents(tmp_path / "in", format="headings")) == 7


def test_a_part_of_a_file_is_told_by_its_inner_headings(tmp_path: Path) -> None:
    (tmp_path / "part").write_text(articles(1).partition("= = Life")[2].partition("\n")[2])
    assert form_of(tmp_path / "part", data("x")).kind == "headings"


NOT_WIKITEXT = {
    "asciidoc": "= Title\n\nIt is a text, and so on.\n\n== Part\n\nMore of it, here.\n",
    "mediawiki": "= Title =\n\nIt is a text, and so on. It's long.\n\n== Part ==\n\nMore of it, here.\n",
    "spaced headings": "= Title =\n\nIt is a text, and so on.\n\n= = Part = =\n\nMore of it, here. So it is.\n",
    "equations": "It is a text, and so on. We have\n = a = \nand more of it, here. So it is.\n",
    "tokenised equations": "It is a text , and so on . We have\n = a = \nand more of it , here . So it is .\n",
    "tokenised prose": "It is a text , and so on .\nMore of it , here . So it is .\n",
    "French": "= Titre =\n\nVraiment ? Oui ! Il dit : « non », et voilà.\n",
    "headings alone": "= One =\n= Two =\n= Three =\n",
}


@pytest.mark.parametrize("name", list(NOT_WIKITEXT))
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_only_looks_like_it_is_read_as_before(name: str, ends: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(NOT_WIKITEXT[name].replace("\n", ends).encode())
    assert form_of(tmp_path / "a.txt", data("x")).kind in ("prose", "sentences")


def test_a_formula_within_a_paragraph_is_no_title() -> None:
    lines = articles(1).split("\n")
    lines.insert(4, " = v / t = ")
    found = list(read_articles(iter(lines)))
    assert found == [read(0).replace("kg.\n", "kg.\n= v / t =\n")]


def test_files_without_blank_lines_have_articles_too() -> None:
    lines = [line for line in articles(3).split("\n") if line.strip()]
    assert list(read_articles(iter(lines))) == [read(n) for n in range(3)]


def test_text_before_the_first_title_is_a_document() -> None:
    assert list(read_articles(iter(["Before , it .", *articles(1).split("\n")]))) == ["Before, it.", read(0)]


def test_a_stated_form_that_finds_no_title_is_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for n in range(8):
        (tmp_path / f"{n}.txt").write_text(f"It is text {n}, 'so' it is. And more.\n\nAnother paragraph.\n")
    corpus = open_corpus(data(tmp_path, format="headings"))
    prepare_text(corpus, "en", 0.4, tmp_path / "cache")
    assert "! no line is the title of an article, such as ` = Title = `" in capsys.readouterr().out
    assert next(corpus.documents()) == "It is text 0, 'so' it is. And more.\nAnother paragraph."


def test_rows_file_and_hub_give_one_text(tmp_path: Path) -> None:
    rows = [{"text": line + "\n" if line.strip() else ""} for line in articles(5).split("\n")]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "file.tokens").write_text(articles(5))
    whole = [read(n) for n in range(5)]
    assert documents(tmp_path / "file.tokens") == documents(tmp_path / "rows.jsonl", format="headings") == whole
    assert list(open_corpus(hub(data_files=str(tmp_path / "rows.jsonl"))).documents()) == whole


def test_only_texts_with_headings_are_read_anew(tmp_path: Path) -> None:
    """The key of a cached text holds the rules of WikiText where they were used, and nothing new elsewhere."""
    (tmp_path / "wiki.tokens").write_text(articles(8))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "One. Two."}))
    rules = {"headings": 1}
    assert open_corpus(data(tmp_path / "wiki.tokens")).reading == rules
    assert open_corpus(data(tmp_path / "wiki.tokens", format="prose")).reading == {}
    assert open_corpus(data(tmp_path / "rows.jsonl", format="headings")).reading == rules
    assert open_corpus(data(tmp_path / "rows.jsonl")).reading == {}
    assert open_corpus(compose(["data=wikitext"]).data).reading == rules
    assert open_corpus(compose(["data=wiki_books"]).data).reading == {}
    text = prepare_text(open_corpus(data(tmp_path / "wiki.tokens")), "en", 0.4, tmp_path / "cache")
    assert text_info(text)["settings"]["headings"] == 1


@pytest.mark.parametrize("kind", ["unigram", "bpe", "wordpiece"])
def test_an_unknown_word_of_the_source_is_one_unknown_piece(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wiki.tokens").write_text(articles())
    corpus = tmp_path / "wiki.tokens"
    size = {"unigram": 90, "bpe": 90, "wordpiece": 140}[kind]
    config = compose(tiny_overrides(tmp_path, f"tokenizer={kind}", f"tokenizer.vocab_size={size}", corpus=corpus))
    found = prepare(config)
    assert "of the tokens are unknown" not in capsys.readouterr().out
    counted = sum(int((np.asarray(store.tokens) == UNK).sum()) for store in (found.train, found.valid))
    assert counted == 120
    encode = found.tokenizer.encode
    ((before,), (after,), (both,), (bare,)) = (
        encode([text]) for text in ("the second", "is", f"the second {UNKNOWN} is", f"the second {UNKNOWN}")
    )
    assert both == [*before, UNK, *after]
    assert bare == [*before, UNK]
    ((joined,), (comma,)) = encode([f"{UNKNOWN}, is"]), encode(["second, is"])
    assert joined[0] == UNK
    assert joined[1:] == comma[-len(joined) + 1 :]  # no word mark before the comma


def test_nothing_is_learnt_from_unknown_words(tmp_path: Path) -> None:
    (tmp_path / "wiki.tokens").write_text(articles())
    config = compose(tiny_overrides(tmp_path, "tokenizer.vocab_size=90", corpus=tmp_path / "wiki.tokens"))
    text = prepare_text(open_corpus(config.data), "en", 0.2, tmp_path / "cache")
    pieces = get_tokenizer(config.tokenizer, text, tmp_path / "cache").pieces
    vocabulary = "".join(pieces.id_to_piece(i) for i in range(pieces.get_piece_size()))
    assert UNKNOWN in (text / "train.txt").read_text()
    assert UNKNOWN not in vocabulary
    assert "@" not in vocabulary


# --- real articles -------------------------------------------------------------------------------

FOLDER = os.environ.get("ALBERT_ABLATE_DATA")


def _tokenised(paragraph: str) -> str:
    """As WikiText writes it, nearly: numbers, hyphens, apostrophes and every sign."""
    paragraph = re.sub(r"(?<=\d)([,.])(?=\d)", r" @\1@ ", paragraph)
    paragraph = re.sub(r"(?<=\w)-(?=\w)", " @-@ ", paragraph)
    paragraph = re.sub(r"(?<=[^\W\d_])'(?=[^\W\d_])", " '", paragraph)
    paragraph = re.sub(r"(?<!@)([,;:!?()\[\]\"%])(?!@)", r" \1 ", paragraph)
    return " ".join(re.sub(r"\.(\"|\)|\s*$)", r" . \1", re.sub(r"\.(?= \" )", " .", paragraph)).split())


@pytest.mark.data
@pytest.mark.skipif(not FOLDER, reason="ALBERT_ABLATE_DATA is not set")
def test_sixty_real_articles_come_back(tmp_path: Path) -> None:
    with lzma.open(Path(str(FOLDER)) / "corpus-small/wiki-small-valid.jsonl.xz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, 60)]
    blocks = [[" ".join(line.split()) for line in row["text"].split("\n") if line.strip()] for row in rows]
    text = ""
    for row, block in zip(rows, blocks, strict=True):
        first, *rest = [f" {_tokenised(line)} \n" for line in block]
        text += f" \n = {_tokenised(row['title'])} = \n \n{first} \n = = History = = \n \n{''.join(rest)}"
    (tmp_path / "wiki.tokens").write_text(text)
    found = documents(tmp_path / "wiki.tokens")
    assert len(found) == 60
    ours = [sentence for document in found for sentence in split_sentences(document, "en")]
    theirs = [sentence for block in blocks for line in block for sentence in split_sentences(line, "en")]
    assert not [sentence for sentence in ours if sentence.startswith(("@", "="))]
    assert len(ours) == pytest.approx(len(theirs), rel=0.005)
    words, wanted = " ".join(found).split(), " ".join(" ".join(block) for block in blocks).split()
    assert difflib.SequenceMatcher(None, wanted, words, autojunk=False).ratio() > 0.99

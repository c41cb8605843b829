"""Kinds of tokenizers: trained, taken from a file, exported; each with equal ids, or refused in words."""

import dataclasses
import io
import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any, Literal

import pytest
import sentencepiece
import yaml
from languages import WORDS, sentences
from runhelpers import run, tiny_config, write_corpus
from taskhelpers import write_sst2
from transformers import AutoTokenizer, BertTokenizer

from albert_ablate.commands.evaluate import main as evaluate
from albert_ablate.commands.export import main as export
from albert_ablate.commands.export_folder import tokenizer_settings
from albert_ablate.commands.finetune import main as finetune
from albert_ablate.commands.import_hf import main as import_model
from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.prepare import prepare
from albert_ablate.data.tokenizer import Tokenizer, clean
from albert_ablate.data.vocabulary import open_tokenizer
from albert_ablate.data.vocabulary_training import KEPT_AS, train
from albert_ablate.door.compose import compose
from albert_ablate.errors import ConfigError, DataError
from albert_ablate.interop.tokenizer_json import tokenizer_json

TEXT = [sentence for language in WORDS for sentence in sentences(language)]
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]
SIZES = {"unigram": 1500, "bpe": 1500, "wordpiece": 2200}


def settings(kind: str, *more: str) -> Any:
    return compose([f"tokenizer={kind}", f"tokenizer.vocab_size={SIZES[kind]}", *more])


def exported(file: Path, config: Any) -> Any:
    """The tokenizer as a user of transformers gets it."""
    (file.parent / "config.json").write_text('{"model_type": "albert"}')
    (file.parent / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings(config)))
    if config.tokenizer.name != "wordpiece":
        (file.parent / "tokenizer.json").write_text(json.dumps(tokenizer_json(file, config.tokenizer)))
    return AutoTokenizer.from_pretrained(file.parent)


def assert_equal_ids(own: Tokenizer, theirs: Any, forms: tuple[Form, ...] = ("NFC", "NFD")) -> None:
    for language in WORDS:
        lines = [unicodedata.normalize(form, s) for form in forms for s in sentences(language, 4, seed=1)]
        lines += [line.upper() for line in lines]
        assert theirs(lines, add_special_tokens=False)["input_ids"] == own.encode(lines), language


@pytest.mark.parametrize(("strip", "lowercase"), [("true", "true"), ("false", "false"), ("false", "true")])
@pytest.mark.parametrize("kind", SIZES)
def test_every_language_has_equal_ids_outside(kind: str, strip: str, lowercase: str, tmp_path: Path) -> None:
    config = settings(kind, f"tokenizer.strip_accents={strip}", f"tokenizer.lowercase={lowercase}")
    file = tmp_path / KEPT_AS[kind]
    file.write_bytes(train(config.tokenizer, lambda: iter(TEXT)))
    own, theirs = open_tokenizer(file, config.tokenizer), exported(file, config)
    assert_equal_ids(own, theirs)
    assert theirs("the house", "here")["token_type_ids"][-1] == 1


BASE: dict[str, Any] = {
    "pad_id": 0, "pad_piece": "<pad>", "unk_id": 1, "bos_id": -1, "eos_id": -1, "vocab_size": 1400, "minloglevel": 2,
    "hard_vocab_limit": False, "num_threads": 1, "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
}  # fmt: skip
TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "bytes": ("unigram", {"byte_fallback": True, "character_coverage": 0.98}),
    "bytes of bpe": ("bpe", {"byte_fallback": True, "character_coverage": 0.98, "model_type": "bpe"}),
    "char": ("unigram", {"model_type": "char"}),
    "no normaliser": ("unigram", {"normalization_rule_name": "identity"}),
    "case folding": ("unigram", {"normalization_rule_name": "nmt_nfkc_cf"}),
    "pieces of several words": ("bpe", {"split_by_whitespace": False, "model_type": "bpe"}),
    "symbols": ("bpe", {"user_defined_symbols": ["(", "é"], "model_type": "bpe"}),
}
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "suffix": ("unigram", {"treat_whitespace_as_suffix": True}, "treat_whitespace_as_suffix"),
    "word": ("unigram", {"model_type": "word"}, "a word model, but tokenizer.name=unigram"),
    "bpe as unigram": ("unigram", {"model_type": "bpe"}, "a bpe model, but tokenizer.name=unigram. Set tokenizer=bpe"),
    "unigram as bpe": ("bpe", {}, "a unigram model, but tokenizer.name=bpe. Set tokenizer=unigram"),
    "char as bpe": ("bpe", {"model_type": "char"}, "a char model, but tokenizer.name=bpe. Set tokenizer=unigram"),
    "no mark": ("unigram", {"add_dummy_prefix": False}, "add_dummy_prefix=false"),
    "long symbols": ("bpe", {"user_defined_symbols": ["<br>"], "model_type": "bpe"}, "<br>"),
}


def model_of(options: dict[str, Any], file: Path) -> Path:
    out = io.BytesIO()
    lines = (clean(s, lowercase=True, strip_accents=True) for s in TEXT[::3])
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=out, **BASE | options)
    file.write_bytes(out.getvalue())
    return file


@pytest.mark.parametrize("name", TAKEN)
def test_a_model_of_ones_own_is_taken_and_exported(name: str, tmp_path: Path) -> None:
    kind, options = TAKEN[name]
    file = model_of(options, tmp_path / "spiece.model")
    config = settings(kind)
    own = open_tokenizer(file, config.tokenizer)
    assert_equal_ids(own, exported(file, config), ("NFC",))
    lines = [clean(s, lowercase=True, strip_accents=True) for s in TEXT[::50]]
    assert [[i for i, _, _ in row] for row in own.encode_with_offsets(lines)] == own.encode(lines)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_is_refused_in_words(name: str, tmp_path: Path) -> None:
    kind, options, words = REFUSED[name]
    file = model_of(options, tmp_path / "spiece.model")
    with pytest.raises(DataError) as caught:
        open_tokenizer(file, settings(kind).tokenizer)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_training_gives_the_same_bytes_in_another_process(kind: str) -> None:
    """The tokenizers library numbers pieces by a hash table that differs from process to process."""
    code = (
        "import hashlib; from languages import sentences; from albert_ablate.door.compose import compose; "
        "from albert_ablate.data.vocabulary_training import train; text = [*sentences('de'), *sentences('ru')]; "
        f"config = compose(['tokenizer={kind}', 'tokenizer.vocab_size=180']); "
        "print(hashlib.sha256(train(config.tokenizer, lambda: iter(text))).hexdigest())"
    )
    here = Path(__file__).parent
    found = {
        subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(found) == 1


def test_another_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer.name='sentencepiece': .*'unigram', 'bpe' or 'wordpiece'"):
        compose(["tokenizer.name=sentencepiece"])


@pytest.mark.parametrize(
    ("size", "words"), [(100_000, r"Set it to \d+ or less"), (40, r"Set it to \d+ or more")], ids=["large", "small"]
)
def test_word_pieces_that_the_text_cannot_give_are_refused(size: int, words: str) -> None:
    chosen = dataclasses.replace(settings("wordpiece").tokenizer, vocab_size=size)
    with pytest.raises(DataError, match=f"tokenizer.vocab_size={size} cannot be trained on this corpus. {words}"):
        train(chosen, lambda: iter(TEXT[::5]))


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match=r"tokenizer.name=wordpiece: word pieces need tokenizers. Run `pip install"):
        train(settings("wordpiece").tokenizer, lambda: iter(TEXT))


def test_a_run_with_word_pieces_end_to_end(tmp_path: Path) -> None:
    """Trained, kept as vocab.txt, evaluated, fine-tuned, exported, and imported again."""
    folder = run(tiny_config(tmp_path, "tokenizer=wordpiece", "tokenizer.vocab_size=150")).path
    assert (folder / "vocab.txt").is_file()
    assert not (folder / "spiece.model").exists()
    corpus = write_corpus(tmp_path / "other.txt", documents=20, seed=3)
    assert evaluate([str(folder), "data=text", f"data.path={corpus}", f"paths.cache={tmp_path / 'cache'}"]) == 0
    write_sst2(tmp_path / "data")
    words = ["task=sst2", f"task.data_dir={tmp_path / 'data'}", "tasks.sst2.max_length=32", "tasks.sst2.steps=2"]
    assert finetune([str(folder), *words]) == 0
    (tmp_path / "out").mkdir()
    assert export([str(folder), str(tmp_path / "out")]) == 0, "into an empty folder"
    assert export([str(folder), str(tmp_path / "out")]) == 2, "but into no other"
    config = yaml.safe_load((folder / "config.yaml").read_text())["tokenizer"]
    own = open_tokenizer(folder / "vocab.txt", TokenizerConfig(**config))
    theirs = BertTokenizer.from_pretrained(tmp_path / "out")
    text = ["Bade fogo, kanse bade?"]
    assert theirs(text, add_special_tokens=False)["input_ids"] == own.encode(text)
    assert import_model([str(tmp_path / "out"), str(tmp_path / "back")]) == 0


def vocabulary(file: Path, change: Any = lambda pieces: pieces, end: str = "\n", mark: str = "") -> Path:
    letters = "abcdefghijklmnopqrstuvwxyz.,"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    file.write_bytes((mark + end.join([*change(pieces), ""])).encode())
    return file


@pytest.mark.parametrize(("end", "mark"), [("\r\n", ""), ("\n", "\ufeff")], ids=["CRLF", "BOM"])
def test_a_vocabulary_of_ones_own_from_windows(end: str, mark: str, tmp_path: Path) -> None:
    plain = vocabulary(tmp_path / "plain.txt")
    own = vocabulary(tmp_path / "vocab.txt", end=end, mark=mark)
    words = ("tokenizer=wordpiece", "tokenizer.vocab_size=61")
    folder = run(tiny_config(tmp_path, *words, f"tokenizer.model_path={own}")).path
    assert export([str(folder), str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == plain.read_bytes()


@pytest.mark.parametrize(
    ("change", "size", "words"),
    [
        (lambda p: p, 100, "Set tokenizer.vocab_size=61"),
        (lambda p: p, 40, "Set tokenizer.vocab_size=61"),
        (lambda p: [*p, "a"], 62, "line 62: 'a' occurs a second time"),
        (lambda p: p[:4] + p[5:], 60, "no [MASK] in it"),
    ],
    ids=["fewer", "more", "twice", "special"],
)
def test_a_vocabulary_that_does_not_fit_is_refused(change: Any, size: int, words: str, tmp_path: Path) -> None:
    file = vocabulary(tmp_path / "vocab.txt", change)
    config = tiny_config(
        tmp_path, "tokenizer=wordpiece", f"tokenizer.vocab_size={size}", f"tokenizer.model_path={file}"
    )
    with pytest.raises(DataError) as caught:
        prepare(config)
    assert words in str(caught.value)


def test_each_kind_of_file_names_the_other(tmp_path: Path) -> None:
    text = vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(DataError, match=r"not a readable SentencePiece model .*needs tokenizer=wordpiece"):
        open_tokenizer(text, settings("unigram").tokenizer)
    model = model_of({}, tmp_path / "spiece.model")
    with pytest.raises(DataError, match=r"a SentencePiece model needs tokenizer=unigram or tokenizer=bpe"):
        open_tokenizer(model, settings("wordpiece").tokenizer)

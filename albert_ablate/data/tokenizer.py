"""The SentencePiece tokenizer: cleaning, training, encoding, word starts (reference tokenization)."""

import gc
import io
import re
import string
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import numpy as np
import sentencepiece

from albert_ablate.config import TokenizerConfig
from albert_ablate.data.text import sentences_of, text_info
from albert_ablate.errors import DataError
from albert_ablate.files import building, digest, sha256_file
from albert_ablate.stopping import interruptible

PAD, UNK, CLS, SEP, MASK = range(5)
#: Ids below this are special: never masked, never drawn as random replacements.
FIRST_PIECE = 5
_SPECIALS = ("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
# As a list: in one comma-separated string SentencePiece's parser swallows the quote and what follows.
_USER_SYMBOLS = ["(", ")", '"', "-", ".", "–", "£", "€"]
# ASCII punctuation but for the four the reference's literal lacks.
_WORD_PUNCTUATION = frozenset(string.punctuation) - frozenset("'<=>")
#: A fixed count: training is reproducible for one count of threads, whatever the machine has.
_TRAINING_THREADS = 16


def clean(text: str, lowercase: bool, strip_accents: bool) -> str:
    """Collapse white space, decompose, drop combining marks, lower (before SentencePiece, always)."""
    if "  " in text or not text.isprintable() or text != text.strip():  # else there is nothing to collapse
        text = " ".join(text.split())
    if strip_accents and not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        if not combining_marks().isdisjoint(text):
            text = "".join(c for c in text if not unicodedata.combining(c))
    return text.lower() if lowercase else text


@cache
def combining_marks() -> frozenset[str]:
    """What ``strip_accents`` drops."""
    return frozenset(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.combining(c))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without it Python's collector looks through all of a block's lists again and again: a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def starts_word(piece: str) -> bool:
    """Whether a SentencePiece piece opens a word for whole-word masking (reference rule).

    True for pieces with the word mark, for a single punctuation sign, and for any piece with a
    character that is neither a letter a-z nor such punctuation (digits, apostrophes, accents).
    """
    if piece.startswith(("▁", "<")) or (len(piece) == 1 and piece in _WORD_PUNCTUATION):
        return True
    return any(not ("a" <= c.lower() <= "z") and c not in _WORD_PUNCTUATION for c in piece)


class Tokenizer:
    """A trained SentencePiece model with its cleaning rules."""

    def __init__(self, model: Path, config: TokenizerConfig) -> None:
        self.config = config
        self.path = model
        try:
            self.fingerprint = digest([sha256_file(model), _cleaning(config)])
            self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(model))
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"tokenizer.model_path={model}: not a readable SentencePiece model ({str(error).splitlines()[0]}). "
                "Give the path of a .model file, or leave it empty to train one."
            ) from error
        self.vocab_size: int = self.pieces.get_piece_size()
        found = tuple(self.pieces.id_to_piece(i) for i in range(FIRST_PIECE))
        if found != _SPECIALS:
            raise DataError(
                f"tokenizer.model_path={model}: ids 0 to 4 are {list(found)}, but {list(_SPECIALS)} are needed. "
                "Use a model trained with ALBERT's layout, or leave tokenizer.model_path empty to train one."
            )
        vocabulary = [self.pieces.id_to_piece(i) for i in range(self.vocab_size)]
        if not any(piece.startswith("▁") for piece in vocabulary):
            raise DataError(f"tokenizer.model_path={model}: no piece carries the word mark '▁', so words are unknown.")
        #: (V,) bool: pieces that open a word.
        self.word_starts = np.array([starts_word(piece) for piece in vocabulary])
        self._digit_comma = {i for i, p in enumerate(vocabulary) if re.search(r"\d,$", p)}

    def encode(self, sentences: list[str], threads: int = -1) -> list[list[int]]:
        """Ids of each cleaned sentence, without special tokens."""
        cleaned = [clean(s, self.config.lowercase, self.config.strip_accents) for s in sentences]
        with _no_collection():
            encoded: list[list[int]] = self.pieces.encode(cleaned, out_type=int, num_threads=threads)
        if self._digit_comma and self.config.split_digit_commas:
            for ids in encoded:
                if not self._digit_comma.isdisjoint(ids):
                    ids[:] = [new for old in ids for new in self._without_comma(old)]
        return encoded

    def encode_with_offsets(self, cleaned: list[str], threads: int = -1) -> list[list[tuple[int, int, int]]]:
        """(id, begin, end) of each piece, in characters of texts that are cleaned already.

        The ids are those of ``encode``; a piece that opens a word may begin at the space before it.
        """
        found = self.pieces.encode(cleaned, return_type="offset_mapping", num_threads=threads)
        rows = [[(i, *place) for i, place in zip(one["ids"], one["offsets"], strict=True)] for one in found]
        if self._digit_comma and self.config.split_digit_commas:
            return [[new for old in row for new in self._divided(*old)] for row in rows]
        return rows

    def _divided(self, piece_id: int, begin: int, end: int) -> list[tuple[int, int, int]]:
        ids = self._without_comma(piece_id)
        if len(ids) == 1:
            return [(piece_id, begin, end)]
        ends = end - np.cumsum([0, *(len(self.pieces.id_to_piece(i).replace("▁", "")) for i in reversed(ids))])
        return [(i, int(a), int(b)) for i, a, b in zip(ids, ends[:0:-1], ends[-2::-1], strict=True)]

    def _without_comma(self, piece_id: int) -> list[int]:
        """A piece such as ``3,`` becomes the pieces of ``3`` and ``,`` (inherited from XLNet)."""
        if piece_id not in self._digit_comma:
            return [piece_id]
        piece = self.pieces.id_to_piece(piece_id)
        inner = self.pieces.encode(piece[:-1].replace("▁", ""), out_type=str)
        if not piece.startswith("▁") and inner and inner[0].startswith("▁"):
            inner = inner[1:] if inner[0] == "▁" else [inner[0][1:], *inner[1:]]
        return [self.pieces.piece_to_id(p) for p in [*inner, ","]]


def _cleaning(config: TokenizerConfig) -> list[bool]:
    return [config.lowercase, config.strip_accents, config.split_digit_commas]


def get_tokenizer(config: TokenizerConfig, text: Path, cache: Path) -> Tokenizer:
    """One trained on the training side of ``text``, cached by content, or the configured model file."""
    from albert_ablate.data.vocabulary import open_tokenizer  # it builds on this module

    if config.model_path is not None:
        model = Path(config.model_path).expanduser()
    else:
        settings = {k: v for k, v in asdict(config).items() if k not in ("name", "model_path")}
        version = sentencepiece.__version__
        fingerprint = digest([settings, text_info(text)["fingerprint"], version, _TRAINING_THREADS])
        folder = cache / "tokenizers" / f"{config.name}-{config.vocab_size}-{fingerprint}"
        if not folder.is_dir():
            with building(folder) as temporary:
                model_bytes = _train(config, sentences_of(text / "train.txt"))
                (temporary / "spiece.model").write_bytes(model_bytes)
        model = folder / "spiece.model"
    tokenizer = open_tokenizer(model, config)
    if tokenizer.vocab_size != config.vocab_size:
        raise DataError(
            f"tokenizer.vocab_size={config.vocab_size}, but {model.name} has {tokenizer.vocab_size} pieces. "
            f"Set tokenizer.vocab_size={tokenizer.vocab_size}."
        )
    return tokenizer


def _train(config: TokenizerConfig, sentences: Iterable[str]) -> bytes:
    """The model file. Written to memory: a file's path would be stored in it and change its hash."""
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        train = partial(
            sentencepiece.SentencePieceTrainer.train,
            sentence_iterator=(clean(s, config.lowercase, config.strip_accents) for s in sentences),
            model_writer=model,
            vocab_size=config.vocab_size,
            model_type="unigram",
            character_coverage=config.character_coverage,
            input_sentence_size=config.training_sentences,
            shuffle_input_sentence=True,
            max_sentence_length=16384,
            pad_id=PAD,
            pad_piece="<pad>",
            unk_id=UNK,
            bos_id=-1,
            eos_id=-1,
            control_symbols=list(_SPECIALS[2:]),
            user_defined_symbols=_USER_SYMBOLS,
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
        interruptible(train)
    except (RuntimeError, OSError) as error:
        most = re.search(r"value <= (\d+)", str(error))
        least = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        advice = str(error)
        if most or least:
            advice = f"Set it to {most[1]} or less" if most else f"Set it to {least[1]} or more"  # type: ignore[index]
        if most and int(most[1]) < 32:  # the least that the setting takes
            advice = "The text has too few different words for any. Use more text, or tokenizer.model_path"
        raise DataError(
            f"tokenizer.vocab_size={config.vocab_size} cannot be trained on this corpus. {advice}."
        ) from error
    return model.getvalue()

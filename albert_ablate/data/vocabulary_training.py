"""Training vocabularies on a corpus: SentencePiece's Unigram and BPE, and BERT's WordPiece."""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import sentencepiece

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data import wordpiece
from albert_ablate.data.tokenizer import PAD, SPECIALS, UNK, clean
from albert_ablate.errors import DataError
from albert_ablate.files import digest
from albert_ablate.record.folder import TOKENIZER
from albert_ablate.stopping import interruptible

#: ``tokenizer.name`` -> file in a run folder.
KEPT_AS = {"unigram": TOKENIZER, "bpe": TOKENIZER, wordpiece.NAME: wordpiece.VOCABULARY}
# As a list: in one comma-separated string SentencePiece's parser swallows the quote and what follows.
_USER_SYMBOLS = ["(", ")", '"', "-", ".", "–", "£", "€"]
#: Fixed, because the trained model depends on the number of threads.
_TRAINING_THREADS = 16
#: Number of sentences normalised at once.
_BLOCK = 1000


def training_fingerprint(config: TokenizerConfig, text: str) -> str:
    """Fingerprint of everything that the trained file depends on; ``text`` is the fingerprint of the text."""
    unused = ("name", "model_path", "words")
    settings = {k: v for k, v in asdict(config).items() if k not in unused}
    parts = [settings, text, sentencepiece.__version__, _TRAINING_THREADS]
    if config.name == wordpiece.NAME:
        parts[2:] = [wordpiece.library().__version__]
    return digest(parts if config.name == "unigram" else [config.name, *parts])


def trained_with(config: TokenizerConfig) -> str:
    """Name and version of the library that trains the tokenizer; the result depends on both."""
    if config.name == wordpiece.NAME:
        return f"tokenizers {wordpiece.library().__version__}"
    return f"sentencepiece {sentencepiece.__version__}"


def train(config: TokenizerConfig, sentences: Callable[[], Iterable[str]]) -> bytes:
    """Content of the trained file; ``sentences`` may be called twice.

    Raises DataError if the corpus does not yield ``tokenizer.vocab_size`` pieces.
    """
    return (_word_pieces if config.name == wordpiece.NAME else _sentencepiece)(config, sentences)


def _sentencepiece(config: TokenizerConfig, sentences: Callable[[], Iterable[str]]) -> bytes:
    """Content of the model file. It is written to memory: a path would be stored in it and change its hash."""
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        run = partial(
            sentencepiece.SentencePieceTrainer.train,
            sentence_iterator=(clean(s, config.lowercase, config.strip_accents) for s in sentences()),
            model_writer=model,
            vocab_size=config.vocab_size,
            model_type=config.name,
            character_coverage=config.character_coverage,
            input_sentence_size=config.training_sentences,
            shuffle_input_sentence=True,
            max_sentence_length=16384,
            pad_id=PAD,
            pad_piece="<pad>",
            unk_id=UNK,
            bos_id=-1,
            eos_id=-1,
            control_symbols=list(SPECIALS[2:]),
            user_defined_symbols=_USER_SYMBOLS,
            num_threads=_TRAINING_THREADS,
            minloglevel=2,
        )
        interruptible(run)
    except (RuntimeError, OSError) as error:
        most = re.search(r"value <= (\d+)", str(error))
        least = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if most is None and least is None:
            raise _untrainable(config, str(error)) from error
        raise _untrainable(config, _advice(int(most[1]) if most else None, int(least[1]) if least else 0)) from error
    return model.getvalue()


def _untrainable(config: TokenizerConfig, advice: str) -> DataError:
    return DataError(f"tokenizer.vocab_size={config.vocab_size} cannot be trained on this corpus. {advice}.")


def _advice(most: int | None, least: int) -> str:
    if most is None:
        return f"Set it to {least} or more"
    if most < 32:  # the setting's minimum
        return "The text has too few different words for any. Use more text, or tokenizer.model_path"
    return f"Set it to {most} or less"


def _word_pieces(config: TokenizerConfig, sentences: Callable[[], Iterable[str]]) -> bytes:
    """Content of ``vocab.txt``: special pieces, the alphabet, the alphabet within words, and merged pieces.

    The library would number the pieces ``##x`` in hash-table order, which differs between processes. Passing them
    first fixes their order, and with it that of the merged pieces.
    """
    tokenizers = wordpiece.library()
    from tokenizers.trainers import WordPieceTrainer

    step = max(1, -(-sum(1 for _ in sentences()) // config.training_sentences))  # an even sample of a long text
    model: Any = wordpiece.pipeline(tokenizers.models.WordPiece(unk_token=wordpiece.SPECIALS[1]), config)
    alphabet = _alphabet(model, islice(sentences(), 0, None, step), config.character_coverage)
    first = [*wordpiece.SPECIALS, *alphabet, *(f"##{c}" for c in alphabet)]
    if len(first) > config.vocab_size:
        raise _untrainable(config, _advice(None, len(first)))
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=first,
        limit_alphabet=len(alphabet),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    interruptible(partial(model.train_from_iterator, islice(sentences(), 0, None, step), trainer))
    pieces = [piece for piece, _ in sorted(model.get_vocab().items(), key=lambda entry: entry[1])]
    if len(pieces) < config.vocab_size:
        raise _untrainable(config, _advice(len(pieces), 0))
    return "".join(f"{piece}\n" for piece in pieces).encode()


def _alphabet(model: Any, sentences: Iterator[str], coverage: float) -> list[str]:
    """The most frequent characters that cover the share ``coverage`` of the text, sorted by code point."""
    counts: Counter[str] = Counter()
    while block := list(islice(sentences, _BLOCK)):
        counts.update(model.normalizer.normalize_str(" ".join(block)))
    visible = {character: count for character, count in counts.items() if not character.isspace()}
    wanted, total, kept = coverage * sum(visible.values()), 0, []
    for character, count in sorted(visible.items(), key=lambda entry: (-entry[1], entry[0])):
        if total >= wanted:
            break
        kept.append(character)
        total += count
    return sorted(kept)

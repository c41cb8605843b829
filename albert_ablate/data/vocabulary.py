"""Opens or trains the tokenizer of a text, file or run folder: a SentencePiece model or a WordPiece vocabulary."""

import re
from collections.abc import Iterator
from pathlib import Path

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.text import sentences_of, side_of_text, text_info
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary_training import KEPT_AS, train, trained_with, training_fingerprint
from albert_ablate.data.wikitext import UNKNOWN
from albert_ablate.data.wordpiece import NAME, VOCABULARY, WordPiece, read_vocabulary
from albert_ablate.errors import DataError
from albert_ablate.files import building
from albert_ablate.record.folder import TOKENIZER


def open_tokenizer(path: Path, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer in ``path``, of the kind ``config.name``. Raises DataError if it cannot be used."""
    return (WordPiece if config.name == NAME else Tokenizer)(path, config)


def tokenizer_file(run: Path) -> Path:
    """Path of the tokenizer's file in a run folder; it may not exist."""
    vocabulary = run / VOCABULARY
    return vocabulary if vocabulary.is_file() else run / TOKENIZER


def named_pieces(run: Path, rows: int) -> int:
    """The number of pieces in a run's tokenizer; an imported model may have more ``rows`` than its vocabulary."""
    file = tokenizer_file(run)
    return len(read_vocabulary(file)) if file.name == VOCABULARY else rows


def get_tokenizer(config: TokenizerConfig, text: Path, cache: Path) -> Tokenizer:
    """The configured model file, or a tokenizer trained on the training side of ``text`` and cached by content."""
    model = _model(config, text, cache)
    if config.model_path is None and not model.parent.is_dir():
        source = _training_text(config, text, cache)
        with building(model.parent) as temporary:
            (temporary / model.name).write_bytes(train(config, lambda: _without_unknown(sentences_of(source))))
    return opened(model, config)


def _training_text(config: TokenizerConfig, text: Path, cache: Path) -> Path:
    """The training side of ``text``. Raises DataError if it is missing, and names the cached tokenizers."""
    try:
        return side_of_text(text, "train")
    except DataError as error:
        kept = sorted((cache / "tokenizers").glob(f"{config.name}-{config.vocab_size}-*/{KEPT_AS[config.name]}"))
        if not kept:
            raise
        raise DataError(
            f"No tokenizer in {cache} was trained on this text with these settings by {trained_with(config)}, which is "
            f"installed here, and the text to train one on is not there: {text}. Install the version of the library "
            "that the cached tokenizer was trained with, or take a cached one as it is: tokenizer.model_path="
            f"{' or '.join(map(str, kept))}."
        ) from error


def find_tokenizer(config: TokenizerConfig, text: Path, cache: Path) -> Tokenizer | None:
    """As ``get_tokenizer``, but None if the tokenizer is not trained yet. Raises DataError if it cannot be used."""
    model = _model(config, text, cache)
    return opened(model, config) if model.is_file() else None


def _model(config: TokenizerConfig, text: Path, cache: Path) -> Path:
    """Path of the configured model file, or of the cached tokenizer of ``text``."""
    if config.model_path is not None:
        return Path(config.model_path).expanduser()
    fingerprint = training_fingerprint(config, text_info(text)["fingerprint"])
    return cache / "tokenizers" / f"{config.name}-{config.vocab_size}-{fingerprint}" / KEPT_AS[config.name]


def opened(model: Path, config: TokenizerConfig) -> Tokenizer:
    """The tokenizer in ``model``. Raises DataError if its number of pieces is not ``config.vocab_size``."""
    tokenizer = open_tokenizer(model, config)
    if tokenizer.vocab_size != config.vocab_size:
        raise DataError(
            f"tokenizer.vocab_size={config.vocab_size}, but {model.name} has {tokenizer.vocab_size} pieces. "
            f"Set tokenizer.vocab_size={tokenizer.vocab_size}."
        )
    return tokenizer


def _without_unknown(sentences: Iterator[str]) -> Iterator[str]:
    """``sentences`` for training, without words that are or contain ``<unk>`` in the source."""
    return (re.sub(rf"\S*{UNKNOWN}\S*", "", sentence) if UNKNOWN in sentence else sentence for sentence in sentences)

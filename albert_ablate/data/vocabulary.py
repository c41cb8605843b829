"""The tokenizer that a file holds: a SentencePiece model or a WordPiece vocabulary."""

from pathlib import Path

from albert_ablate.config import TokenizerConfig
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.wordpiece import NAME, VOCABULARY, WordPiece
from albert_ablate.runs import TOKENIZER


def open_tokenizer(path: Path, config: TokenizerConfig) -> Tokenizer:
    """``path`` as ``config.name`` says. Raises DataError."""
    return (WordPiece if config.name == NAME else Tokenizer)(path, config)


def tokenizer_file(run: Path) -> Path:
    """The tokenizer that a run folder keeps; it need not be there."""
    vocabulary = run / VOCABULARY
    return vocabulary if vocabulary.is_file() else run / TOKENIZER

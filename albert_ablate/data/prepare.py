"""Preparing a corpus for a run: sentences, tokenizer and token stores, each cached by content and settings."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from albert_ablate import console
from albert_ablate.config.schema import RunConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.marks import dropped_marks
from albert_ablate.data.masked_share import settle
from albert_ablate.data.packed import Encoded, open_packed
from albert_ablate.data.reference import Reference
from albert_ablate.data.segments import needs_second_document
from albert_ablate.data.store import TokenStore, get_stores
from albert_ablate.data.text import prepare_text, text_info
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import get_tokenizer
from albert_ablate.data.wordpiece import NAME as WORDPIECE
from albert_ablate.data.wordpiece import require_whole
from albert_ablate.errors import DataError

#: Share of unknown tokens above which the user is warned.
_MANY_UNKNOWN = 0.01


@dataclass(frozen=True)
class Prepared:
    """The corpus as a run uses it."""

    train: TokenStore
    valid: TokenStore
    tokenizer: Tokenizer
    record: dict[str, Any]  # for the manifest
    held_out_by: float | None = None  # data.validation_fraction that split the text; None for a validation file
    reference: Reference | None = None  # optimal predictions, for a corpus drawn from a known distribution
    text: Path | None = None  # the folder of the prepared text; None if only its tokens are known

    @property
    def measured(self) -> TokenStore:
        """The side whose statistics are reported: training, or held-out if no document trains."""
        return self.train if self.train.document_count else self.valid

    def settled(self, config: RunConfig) -> RunConfig:
        """``config`` with ``masking.long_words=auto`` resolved for this text."""
        masking, _ = settle(config.masking, config.pairs, self.measured, self.tokenizer, Path(config.paths.cache))
        return replace(config, masking=masking)


def prepare(config: RunConfig) -> Prepared:
    """Corpus -> sentences -> tokenizer -> token stores, each cached by its content and settings.

    Raises DataError if the corpus does not suit the configuration.
    """
    prepared = prepare_data(config)
    require_documents(config, prepared)
    require_whole(prepared.tokenizer)
    return prepared


def encode(config: RunConfig, trains: bool = True) -> tuple[Encoded, Reference | None]:
    """The whole corpus as tokens, and its optimal predictions if it was drawn from a known distribution.

    A text that is only scored (not ``trains``) may be held out as a whole.
    """
    cache = Path(config.paths.cache)
    if config.data.source == "packed":
        assert config.data.path is not None  # validated with the configuration
        with console.stage("unpacking tokens"):
            return open_packed(Path(config.data.path).expanduser(), config.tokenizer, cache), None
    with console.stage("reading documents and splitting sentences"):
        corpus = open_corpus(config.data)
        text = prepare_text(corpus, config.data.language, config.data.validation_fraction, cache, trains)
        info = text_info(text)
    with console.stage("training the tokenizer"):
        tokenizer = get_tokenizer(config.tokenizer, text, cache)
        reference = corpus.reference(tokenizer) if corpus.reference is not None else None
    with console.stage("turning sentences into tokens"):
        train, valid = get_stores(text, tokenizer, cache)
    marks = dropped_marks(text, config.tokenizer, cache) if config.tokenizer.strip_accents else None
    held_out_by = None if config.data.validation_path else config.data.validation_fraction
    return Encoded(config.data.name, info, tokenizer, train, valid, marks, held_out_by, text), reference


def prepare_data(config: RunConfig, trains: bool = True) -> Prepared:
    """``prepare`` for any objective. A text that is only scored (not ``trains``) may be held out as a whole."""
    started = time.perf_counter()
    encoded, reference = encode(config, trains)
    info, tokenizer, valid = encoded.info, encoded.tokenizer, encoded.valid
    train = encoded.train.part(config.data.fraction)
    prepared = Prepared(train, valid, tokenizer, {}, encoded.held_out_by, text=encoded.text)
    unknown = prepared.measured.unknown_share()
    record = {
        "corpus": encoded.corpus,
        "source": info["source"],
        "text": {k: info[k] for k in ("fingerprint", "train", "valid", "duplicates_dropped")},
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size},
        "tokens": {"fingerprint": train.fingerprint, "train": len(train.tokens), "valid": len(valid.tokens)},
        "unknown_share": unknown,
    }
    seconds = time.perf_counter() - started
    sides = info["train"], info["valid"]
    console.say(
        f"data {encoded.corpus}: {sides[0]['documents']:,} documents, {sides[0]['words'] / 1e6:.2f} M words, "
        f"{len(train.tokens) / 1e6:.2f} M tokens of {tokenizer.vocab_size:,} pieces; "
        f"{sides[1]['documents']:,} documents held out ({console.duration(seconds)})"
    )
    stated = info["met"].get("unknown_words", 0) / (len(train.tokens) + len(valid.tokens))  # <unk> in the source
    if unknown - stated > _MANY_UNKNOWN:
        console.say(
            f"data {encoded.corpus}: ! {unknown:.1%} of the tokens are unknown: the vocabulary has no piece for "
            "them. Train a tokenizer on this text (tokenizer=unigram or bpe, without tokenizer.model_path), or raise "
            "tokenizer.character_coverage. WordPiece knows no word of more than 100 characters."
        )
    cache = Path(config.paths.cache)
    masking, share = settle(config.masking, config.pairs, prepared.measured, tokenizer, cache)
    if share is not None and not config.method.name.predicts_next:
        console.say(share.line(masking.long_words))
        record["masking"] = share.record(masking.long_words)
    if encoded.marks is not None:
        record["marks_dropped"] = encoded.marks.scripts
        warning = encoded.marks.warning(config.data.language, config.tokenizer.name == WORDPIECE)
        if warning is not None:
            console.say(warning)
    return replace(prepared, record=record, reference=reference)


def require_documents(config: RunConfig, prepared: Prepared) -> None:
    """Raise DataError if random second segments need a second document and there is none."""
    train, valid = prepared.train, prepared.valid
    released = config.pairs.single_sentence == "released"
    fewest = min(train.document_count, valid.document_count) if released else train.document_count
    if fewest < 2 and needs_second_document(config.objective.name, config.pairs):
        cause = "pairs.single_sentence=released" if released else f"objective={config.objective.name}"
        raise DataError(
            f"{cause} needs at least two documents, data={config.data.name} has {fewest}: a random second segment "
            "must come from another document. Use objective=sop with pairs.single_sentence=extend, or a corpus with "
            "more documents."
        )

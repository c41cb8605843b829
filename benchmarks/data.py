"""Pairs, masks and tokens: ``python -m benchmarks.data [--text FILE]``.

Training batches against the released algorithm in plain Python and transformers' whole-word collator, one
process each; a corpus into the token store against SentencePiece alone on the same sentences.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from albert_ablate.config.schema import TokenizerConfig
from albert_ablate.data.corpora import open_corpus
from albert_ablate.data.store import write_side
from albert_ablate.data.text import prepare_text
from albert_ablate.data.tokenizer import Tokenizer
from albert_ablate.data.vocabulary import get_tokenizer
from albert_ablate.door.compose import compose
from benchmarks.cases import Case, batches_of, examples_of, made_up_store, tokenizer_of, word_starts
from benchmarks.measure import first_line, report, take_turns
from benchmarks.plain_data import instances

CASES = [
    Case("64 x 64", h=128, layers=4, e=128, v=4000, b=64, t=64),
    Case("32 x 512", h=768, layers=12, e=128, v=30000, b=32, t=512),
]


def ours(case: Case) -> Callable[[], Any]:
    """A batch: pairs looked up, assembled and masked; an epoch's plan is built where one begins."""
    batches = batches_of(case)
    place = iter(range(10**9))
    return lambda: batches[next(place)]


def plain(case: Case) -> Callable[[], Any]:
    """The released algorithm for as many instances, padded into arrays."""
    store = made_up_store(case.v)
    sentences = [store.tokens[a:b].tolist() for a, b in zip(store.sentences[:-1], store.sentences[1:], strict=True)]
    documents = [sentences[a:b] for a, b in zip(store.documents[:-1], store.documents[1:], strict=True)]
    starts = word_starts(case.v).tolist()

    def endless() -> Any:
        for seed in range(10**9):
            yield from instances(documents, case.t, starts, seed)

    stream = endless()

    def step() -> np.ndarray:
        ids = np.zeros((case.b, case.t), np.int32)
        for row in range(case.b):
            found = next(stream)
            ids[row, : len(found[0])] = found[0]
        return ids

    return step


def collator(case: Case) -> Callable[[], Any]:
    """Transformers' whole-word masking of pairs that are there already."""
    from transformers import DataCollatorForLanguageModeling

    examples = examples_of(case)
    masks = DataCollatorForLanguageModeling(tokenizer_of(case.v), mlm_probability=0.15, whole_word_mask=True)
    chosen = [{k: v for k, v in e.items() if k != "label"} for e in examples]
    starts = word_starts(case.v)
    for example in chosen:  # what a fast tokenizer would have said of each piece
        missing = case.t - len(example["input_ids"])  # with offsets, transformers cannot pad
        padded = {k: [*v, *[int(k == "special_tokens_mask")] * missing] for k, v in example.items()}
        example |= padded
        example["offset_mapping"] = _offsets(example["input_ids"], starts)
    place = iter(range(10**9))

    def step() -> Any:
        at = next(place) * case.b
        return masks([dict(chosen[(at + i) % len(chosen)]) for i in range(case.b)])

    return step


def _offsets(ids: list[int], starts: np.ndarray) -> list[tuple[int, int]]:
    """As of text whose pieces are one character each: a word begins after a gap."""
    found, place = [], 0
    for i in ids:
        place += 1 + int(i < 5 or bool(starts[i]))
        found.append((place, place + 1))
    return found


def store(model: Path, settings: TokenizerConfig, source: Path) -> Callable[[], Any]:
    """A text file into a token store."""
    tokenizer = Tokenizer(model, settings)

    def step() -> None:
        with tempfile.TemporaryDirectory() as place:
            write_side(source, tokenizer, Path(place) / "side")

    return step


def sentencepiece_alone(model: Path, settings: TokenizerConfig, source: Path) -> Callable[[], Any]:
    """Ids of the same lines, held in memory."""
    pieces = Tokenizer(model, settings).pieces
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line]
    return lambda: pieces.encode(lines, out_type=int, num_threads=-1)


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=first_line(__doc__))
    parser.add_argument("--text", help="file or folder as for data.path; default: the embedded addresses")
    parser.add_argument("--seconds", type=float, default=6, help="for each contender of each row")
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args()
    rows = []
    for case in CASES:
        found = take_turns({f.__name__: partial(f, case) for f in (ours, plain, collator)}, options.seconds)
        mine = found["ours"].median
        for name, peer in (
            ("plain Python, pairs and masks", "plain"),
            ("transformers, whole-word masks only", "collator"),
        ):
            theirs = found[peer].median
            rows.append({
                "work": f"batch of {case.name}, tokens/s", "against": name, "ours": case.tokens / mine,
                "theirs": case.tokens / theirs, "ratio": theirs / mine,
            })  # fmt: skip
    words = ["data=text", f"data.path={options.text}"] if options.text else []
    config = compose([*words, "tokenizer.vocab_size=8000"])
    cache = Path(config.paths.cache)
    text = prepare_text(open_corpus(config.data), config.data.language, config.data.validation_fraction, cache)
    model, source = get_tokenizer(config.tokenizer, text, cache).path, text / "train.txt"
    found = take_turns(
        {f.__name__: partial(f, model, config.tokenizer, source) for f in (store, sentencepiece_alone)},
        options.seconds,
    )
    size = source.stat().st_size / 1e6
    mine, theirs = found["store"].median, found["sentencepiece_alone"].median
    rows.append({
        "work": f"token store, {size:.0f} MB of text, MB/s", "against": "SentencePiece alone",
        "ours": size / mine, "theirs": size / theirs, "ratio": theirs / mine,
    })  # fmt: skip
    report("data", "Data", rows, ["medians, in turn"], options.out)


if __name__ == "__main__":
    main()

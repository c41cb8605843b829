"""Pairs, masks and tokens: ``python -m benchmarks.data [--text FILE]``.

Training batches against the released algorithm in plain Python and against transformers' whole-word collator, each in a
separate process. Writing a corpus to the token store against SentencePiece alone on the same sentences.
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
    """Make a batch: look pairs up, assemble and mask them. The plan of an epoch is built when the epoch begins."""
    batches = batches_of(case)
    steps = iter(range(10**9))
    return lambda: batches[next(steps)]


def plain(case: Case) -> Callable[[], Any]:
    """The released algorithm for the same number of instances, padded into arrays."""
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
            instance, *_ = next(stream)
            ids[row, : len(instance)] = instance
        return ids

    return step


def collator(case: Case) -> Callable[[], Any]:
    """Transformers' whole-word masking of ready-made pairs."""
    from transformers import DataCollatorForLanguageModeling

    examples = examples_of(case)
    masks = DataCollatorForLanguageModeling(tokenizer_of(case.v), mlm_probability=0.15, whole_word_mask=True)
    chosen = [{k: v for k, v in e.items() if k != "label"} for e in examples]
    starts = word_starts(case.v)
    for example in chosen:  # add the offsets that a fast tokenizer gives
        missing = case.t - len(example["input_ids"])  # with offsets, transformers cannot pad
        padded = {k: [*v, *[int(k == "special_tokens_mask")] * missing] for k, v in example.items()}
        example |= padded
        example["offset_mapping"] = _offsets(example["input_ids"], starts)
    steps = iter(range(10**9))

    def step() -> Any:
        start = next(steps) * case.b
        return masks([dict(chosen[(start + i) % len(chosen)]) for i in range(case.b)])

    return step


def _offsets(ids: list[int], starts: np.ndarray) -> list[tuple[int, int]]:
    """Offsets in a text whose pieces have one character each; a word begins after a gap."""
    offsets, start = [], 0
    for i in ids:
        start += 1 + int(i < 5 or bool(starts[i]))
        offsets.append((start, start + 1))
    return offsets


def store(model: Path, settings: TokenizerConfig, source: Path) -> Callable[[], Any]:
    """Write a text file to a token store."""
    tokenizer = Tokenizer(model, settings)

    def step() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write_side(source, tokenizer, Path(folder) / "side")

    return step


def sentencepiece_alone(model: Path, settings: TokenizerConfig, source: Path) -> Callable[[], Any]:
    """Encode the same lines, held in memory."""
    pieces = Tokenizer(model, settings).pieces
    lines = [line for line in source.read_text(encoding="utf-8").splitlines() if line]
    return lambda: pieces.encode(lines, out_type=int, num_threads=-1)


def main() -> None:
    """Run all comparisons and report them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=first_line(__doc__))
    parser.add_argument("--text", help="file or folder, as data.path; default: the embedded corpus")
    parser.add_argument("--seconds", type=float, default=6, help="for each contender of each row")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args()
    rows = []
    for case in CASES:
        measured = take_turns({f.__name__: partial(f, case) for f in (ours, plain, collator)}, options.seconds)
        our_seconds = measured["ours"].median
        for name, peer in (
            ("plain Python, pairs and masks", "plain"),
            ("transformers, whole-word masks only", "collator"),
        ):
            peer_seconds = measured[peer].median
            rows.append({
                "work": f"batch of {case.name}, tokens/s", "against": name, "ours": case.tokens / our_seconds,
                "theirs": case.tokens / peer_seconds, "ratio": peer_seconds / our_seconds,
            })  # fmt: skip
    overrides = ["data=text", f"data.path={options.text}"] if options.text else []
    config = compose([*overrides, "tokenizer.vocab_size=8000"])
    cache = Path(config.paths.cache)
    text = prepare_text(open_corpus(config.data), config.data.language, config.data.validation_fraction, cache)
    model, source = get_tokenizer(config.tokenizer, text, cache).path, text / "train.txt"
    measured = take_turns(
        {f.__name__: partial(f, model, config.tokenizer, source) for f in (store, sentencepiece_alone)},
        options.seconds,
    )
    size = source.stat().st_size / 1e6
    our_seconds, peer_seconds = measured["store"].median, measured["sentencepiece_alone"].median
    rows.append({
        "work": f"token store, {size:.0f} MB of text, MB/s", "against": "SentencePiece alone",
        "ours": size / our_seconds, "theirs": size / peer_seconds, "ratio": peer_seconds / our_seconds,
    })  # fmt: skip
    report("data", "Data", rows, ["medians, in turn"], options.out)


if __name__ == "__main__":
    main()

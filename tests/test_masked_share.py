"""Every text is masked near the budget, whatever its words are like."""

import dataclasses
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from datahelpers import make_store, mask_settings
from languages import sentences
from runhelpers import make_trainer, tiny_config, write_corpus

from albert_ablate import streams
from albert_ablate.config.identity import identity
from albert_ablate.data.batches import Batch, PairBatches
from albert_ablate.data.masked_share import MaskedShare
from albert_ablate.data.masking import mask_batch, masking_budget
from albert_ablate.data.prepare import prepare
from albert_ablate.errors import DataError
from albert_ablate.evaluation.heldout import build_held_out
from albert_ablate.experiment import require_pairs
from albert_ablate.model.pretraining import PretrainingModel

_SHORT = ["abe", "ko", "tun", "li"]


def rows_of(words: list[int], rows: int, length: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Ids (a word's first piece is even), lengths and segment starts of rows filled with words of these lengths."""
    draw = random.Random(seed)
    ids, lengths, starts = np.zeros((rows, length), dtype=np.int32), [], []
    for row in range(rows):
        room = draw.choice([length, length, draw.randint(5, length)]) - 3
        pieces: list[int] = []
        while len(pieces) < room:
            pieces += [10] + [11] * (draw.choice(words) - 1)
        pieces = pieces[:room]
        half = draw.randint(1, room - 1)
        ids[row, : room + 3] = [2, *pieces[:half], 3, *pieces[half:], 3]
        lengths.append(room + 3)
        starts.append([1, half + 2])
    return ids, np.array(lengths), np.array(starts)


@pytest.mark.parametrize("length", [16, 64])
@pytest.mark.parametrize("words", [[1], [2], [3], [6], [7, 8], [12], [40], [1, 12], [2, 3, 20], [100]], ids=str)
def test_divided_words_reach_every_rows_budget(words: list[int], length: int) -> None:
    """Words of just over half the budget, longer than it, longer than the row, and short rows."""
    ids, lengths, starts = rows_of(words, 300, length)
    keys = streams.hashed(3, np.arange(300))
    chosen = mask_settings(long_words="pieces")
    found = mask_batch(ids, lengths, starts, np.arange(500) % 2 == 0, keys, chosen)
    counts = np.bincount(found.positions // length, minlength=300)
    assert counts.tolist() == np.minimum(masking_budget(lengths, chosen), lengths - 3).tolist()
    np.testing.assert_array_equal(found.targets, ids.reshape(-1)[found.positions])
    assert (found.targets >= 5).all()


def test_words_that_fit_stay_whole_where_long_ones_are_divided() -> None:
    ids, lengths, starts = rows_of([1, 1, 2, 3, 12], 200, 64)
    words = np.arange(500) % 2 == 0
    keys = streams.hashed(4, np.arange(200))
    chosen = np.zeros(ids.shape, dtype=bool)
    found = mask_batch(ids, lengths, starts, words, keys, mask_settings(long_words="pieces"))
    chosen.reshape(-1)[found.positions] = True
    broken = whole = 0
    for row in range(200):
        opening = (words[ids[row]] & (ids[row] >= 5)) | np.isin(np.arange(64), starts[row]) | (ids[row] == 3)
        groups = np.split(np.arange(lengths[row]), np.flatnonzero(opening[: lengths[row]]))[1:]
        for group in groups:
            if 1 < len(group) <= 3 and (ids[row, group] >= 5).all() and chosen[row, group].any():
                whole += chosen[row, group].all()
                broken += not chosen[row, group].all()
    assert whole > 20 * broken


def test_nothing_changes_where_whole_words_fill_the_budget() -> None:
    ids, lengths, starts = rows_of([1, 1, 1, 2], 300, 64)
    full = lengths > 40  # in shorter rows a word of two may exceed the budget
    keys = streams.hashed(5, np.arange(full.sum()))
    both = [
        mask_batch(
            ids[full], lengths[full], starts[full], np.arange(500) % 2 == 0, keys, mask_settings(long_words=rule)
        )
        for rule in ("whole", "pieces")
    ]
    np.testing.assert_array_equal(both[0].input_ids, both[1].input_ids)


def corpus_of(words: list[str], file: Path, documents: int = 30) -> Path:
    draw = random.Random(1)
    lines = ["\n".join(" ".join(draw.choices(words, k=6)) + "." for _ in range(8)) for _ in range(documents)]
    file.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return file


def share(config: object, prepared: object) -> tuple[float, int]:
    """Masked share of the budget over an epoch, and rows without a target."""
    settled = prepared.settled(config)  # type: ignore[attr-defined]
    batches = PairBatches(
        prepared.train, prepared.tokenizer.word_starts, settled.objective.name, settled.pairs, settled.masking, 64, 3,  # type: ignore[attr-defined]
    )  # fmt: skip
    masked = budget = without = 0
    for step in range(-(-batches.epoch_size // 64)):
        batch = batches[step]
        counts = np.bincount(batch.positions.numpy() // settled.pairs.max_length, minlength=len(batch))
        masked, without = masked + counts.sum(), without + (counts == 0).sum()
        budget += masking_budget(batch.mask.sum(1).numpy(), settled.masking).sum()
    return masked / budget, int(without)


LONG = ["".join(random.Random(i).choices("abdefgiklmnoprstuvz", k=24)) for i in range(60)]
ADDRESSES = [f"https://www.{w}.org/{v}?q={w}" for w, v in pairwise(LONG)]
TEXTS = {"long words": LONG, "long and short": LONG[:30] + _SHORT, "addresses": ADDRESSES}


@pytest.mark.parametrize("name", [*TEXTS, "tr", "ta", "bo", "ko", "zh", "th"])
def test_every_text_is_masked_near_the_budget(name: str, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    if name in TEXTS:
        corpus_of(TEXTS[name], corpus)
    else:
        space = "" if name in ("zh", "th") else " "
        parts = ["\n".join(s.replace(" ", space) for s in sentences(name, 8, seed)) for seed in range(30)]
        corpus.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    config = tiny_config(tmp_path, "data.format=sentences", "tokenizer.vocab_size=80", corpus=corpus)
    reached, without = share(config, prepare(config))
    assert reached == pytest.approx(1, abs=0.1)
    assert without == 0


def test_a_vocabulary_that_does_not_fit_the_text_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A vocabulary of English, and a text whose second half is Georgian."""
    english = write_corpus(tmp_path / "english.txt")
    prepare(tiny_config(tmp_path, corpus=english))
    (model,) = (tmp_path / "cache" / "tokenizers").glob("*/spiece.model")
    assert "are unknown" not in capsys.readouterr().out
    strange = "\n\n".join(
        "\n".join(f"აბგდ ეზთი {'ა' * n} კლმნ." for n in range(1, 9)) + "\nბ" + "ბ" * k for k in range(30)
    )
    (tmp_path / "mixed.txt").write_text(f"{english.read_text()}\n\n{strange}\n", encoding="utf-8")
    prepared = prepare(tiny_config(tmp_path, f"tokenizer.model_path={model}", corpus=tmp_path / "mixed.txt"))
    assert prepared.record["unknown_share"] > 0.05
    assert "of the tokens are unknown: the vocabulary has no piece for them" in capsys.readouterr().out


def test_what_is_measured_is_said_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, corpus=corpus_of(LONG, tmp_path / "corpus.txt"))
    record = prepare(config).record["masking"]
    said = capsys.readouterr().out
    assert "of tokens," in said
    assert "words per row of" in said
    assert "by piece (masking.long_words)" in said
    assert record["long_words"] == "pieces"
    assert record["share"] == pytest.approx(record["budget_share"])


def test_a_rule_enters_the_identity_only_where_it_is_in_effect(tmp_path: Path) -> None:
    long = tiny_config(tmp_path, corpus=corpus_of(LONG, tmp_path / "corpus.txt"))
    prepared = prepare(long)
    names = []
    for rule in ("auto", "pieces", "whole"):
        chosen = dataclasses.replace(long, masking=dataclasses.replace(long.masking, long_words=rule))
        names.append(identity(prepared.settled(chosen), prepared.train.fingerprint, "fp32"))
    assert names[0] == names[1] != names[2]
    assert names[2] == identity(long, prepared.train.fingerprint, "fp32"), "as it was before the setting"


def test_words_that_fit_are_left_whole() -> None:
    assert MaskedShare(100, 3000, 900, 450, 430, 0).enough()
    assert not MaskedShare(100, 3000, 900, 450, 427, 0).enough()
    assert not MaskedShare(100, 3000, 900, 450, 450, 1).enough()


@pytest.mark.parametrize("objective", ["sop", "none"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_batch_without_targets_is_no_divergence(objective: str, precision: str, tmp_path: Path) -> None:
    config = tiny_config(tmp_path, f"objective={objective}", "optimizer.skip_spikes=3")
    trainer, batches = make_trainer(config, precision=precision)
    batch = batches[0]
    empty = Batch(batch.input_ids, batch.type_ids, batch.mask, batch.positions[:0], batch.targets[:0], batch.labels)
    sums = trainer.update(0, empty)
    assert sums["mlm_loss"] == sums["mlm_accuracy"] == 0
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    hidden = torch.zeros(0, 32)
    assert isinstance(trainer.model, PretrainingModel)
    logits = trainer.model.mlm_head(hidden, trainer.model.encoder.embedding.word.weight)
    assert torch.nn.functional.cross_entropy(logits, empty.targets, reduction="sum") == 0  # off the CPU


def test_a_text_without_any_target_is_refused_in_words(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, "masking.long_words=whole")
    prepared = prepare(config)
    store = make_store([[40, 40, 40]] * 3)
    never = np.zeros(store.tokens.max() + 1, dtype=bool)
    held_out = build_held_out(config, store, store, never)
    with pytest.raises(DataError, match="masks nothing of the held-out pairs"):
        require_pairs(config, held_out)
    require_pairs(config, build_held_out(config, prepared.train, prepared.valid, prepared.tokenizer.word_starts))

"""Real text in the folder that ALBERT_ABLATE_DATA names; skipped without it."""

import os
from pathlib import Path

import numpy as np
import pytest
from runhelpers import tiny_overrides

from albert_ablate.axes import Objective
from albert_ablate.data.prepare import Prepared, prepare
from albert_ablate.data.segments import build_pairs
from albert_ablate.data.tokenizer import UNK
from albert_ablate.door.compose import compose

FOLDER = os.environ.get("ALBERT_ABLATE_DATA")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not FOLDER, reason="ALBERT_ABLATE_DATA is not set")]

#: file: documents and thousands of words as its source states them.
CORPORA = {
    "corpus-small/wiki-small-valid.jsonl.xz": (105, 100),
    "corpus-big/eltec-valid.jsonl.xz": (55, 160),
    "corpus-pd/novels.jsonl.xz": (118, 225),
}


@pytest.fixture(scope="module", params=list(CORPORA))
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Prepared]:
    place = tmp_path_factory.mktemp("real")
    corpus = Path(str(FOLDER)) / request.param
    overrides = tiny_overrides(place, "tokenizer.vocab_size=1000", corpus=corpus)
    return request.param, prepare(compose(overrides))


def test_counts_are_those_of_the_source(prepared: tuple[str, Prepared]) -> None:
    name, found = prepared
    documents, words = CORPORA[name]
    sides = [found.record["text"][side] for side in ("train", "valid")]
    assert sum(side["documents"] for side in sides) == documents
    assert sum(side["words"] for side in sides) / 1000 == pytest.approx(words, rel=0.05)
    assert 12 < sum(side["words"] for side in sides) / sum(side["sentences"] for side in sides) < 30


def test_the_tokenizer_knows_the_text(prepared: tuple[str, Prepared]) -> None:
    tokens = np.asarray(prepared[1].train.tokens)
    assert (tokens == UNK).mean() < 0.001
    assert np.bincount(tokens, minlength=1000).argmax() > UNK


def test_pairs_of_real_text(prepared: tuple[str, Prepared]) -> None:
    store = prepared[1].train
    settings = compose(["pairs.max_length=128"]).pairs
    sop = build_pairs(store, Objective.SOP, settings, seed=0, epoch=0)
    nsp = build_pairs(store, Objective.NSP, settings, seed=0, epoch=0)
    assert 0.45 < sop.label.mean() < 0.55
    assert 0.45 < nsp.label.mean() < 0.62
    assert len(nsp) > len(sop)
    assert (sop.a_length + sop.b_length > 100).mean() > 0.7  # most pairs fill their length

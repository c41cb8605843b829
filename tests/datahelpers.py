"""Small stores and settings for the data tests."""

import dataclasses
from typing import Any

import numpy as np

from albert_ablate.config.schema import MaskingConfig, PairsConfig
from albert_ablate.data.store import TokenStore


def make_store(documents: list[list[int]], first_id: int = 5) -> TokenStore:
    """A store whose documents have sentences of the given lengths; every token id is unique."""
    lengths = [n for document in documents for n in document]
    count = sum(lengths)
    return TokenStore(
        tokens=np.arange(first_id, first_id + count, dtype=np.uint32),
        sentences=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        documents=np.concatenate([[0], np.cumsum([len(d) for d in documents])]).astype(np.int64),
        fingerprint="made up",
    )


def random_store(seed: int = 0, documents: int = 60, longest: int = 15) -> TokenStore:
    draw = np.random.default_rng(seed)
    sizes = draw.integers(1, 25, documents)
    return make_store([draw.integers(1, longest + 1, size).tolist() for size in sizes])


def pair_settings(**other: Any) -> PairsConfig:
    plain = PairsConfig(
        max_length=32, short_probability=0.1, single_sentence="extend", nsp_tail="put_back", join_documents=False
    )
    return dataclasses.replace(plain, **other)


def mask_settings(**other: Any) -> MaskingConfig:
    plain = MaskingConfig(
        probability=0.15,
        max_ngram=3,
        max_predictions=None,
        copies=None,
        long_words="whole",
        fill="auto",
        draw="spans",
        smoothing=0.7,
    )
    return dataclasses.replace(plain, **other)

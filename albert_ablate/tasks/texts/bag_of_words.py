"""The baseline of sentence tasks: a linear model on a bag of words."""

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

from albert_ablate import streams
from albert_ablate.tasks.scripts import WORDS
from albert_ablate.tasks.texts.sets import Example, ExampleSets

#: Most training examples; a bag of words gains little from more.
_MOST = 100_000


def bag_of_words_predictions(sets: ExampleSets) -> dict[str, np.ndarray]:
    """Predictions of a linear model on TF-IDF counts of words and word pairs, for each dev set.

    Logistic regression for classes and labels, ridge regression for numbers, with scikit-learn's default
    settings. The two texts of a pair are counted separately. In scripts without spaces each character
    counts as a word.
    """
    draws = streams.uniform(streams.key(0, "bag of words"), np.arange(len(sets.train)))
    train = [sets.train[i] for i in np.sort(np.argsort(draws)[:_MOST])]
    sides = [False, True] if train[0].second is not None else [False]
    counters = [TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=WORDS) for _ in sides]
    for counter, side in zip(counters, sides, strict=True):
        counter.fit(_texts(train, side))

    def features(examples: list[Example]) -> sparse.csr_matrix:
        parts = [counter.transform(_texts(examples, side)) for counter, side in zip(counters, sides, strict=True)]
        return sparse.csr_matrix(sparse.hstack(parts))

    targets = np.array([e.target for e in train])
    if sets.kind == "values":
        model = Ridge().fit(features(train), targets)
    elif sets.kind == "labels":
        model = OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(features(train), targets)
    else:
        model = LogisticRegression(max_iter=1000).fit(features(train), targets)
    return {name: model.predict(features(examples)) for name, examples in sets.dev.items()}


def _texts(examples: list[Example], second: bool) -> list[str]:
    return [str(e.second) if second else e.first for e in examples]

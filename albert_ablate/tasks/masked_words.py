"""The most probable words at a masked place, by a run with a trained masked-LM head."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch

from albert_ablate.config.schema import RunConfig
from albert_ablate.data.tokenizer import CLS, FIRST_PIECE, MASK, SEP, SPECIALS, Tokenizer
from albert_ablate.data.vocabulary import open_tokenizer, tokenizer_file
from albert_ablate.errors import ConfigError, RunFolderError
from albert_ablate.methods import method_of
from albert_ablate.methods.method import Measure
from albert_ablate.methods.teacher import recorded_settings
from albert_ablate.record.folder import RunFolder
from albert_ablate.record.manifest import Manifest
from albert_ablate.tasks.augment import Word, only_letters
from albert_ablate.tasks.batches import in_order
from albert_ablate.tasks.task import FeatureSet, Sequences
from albert_ablate.training.checkpoint import load_weights, newest
from albert_ablate.training.machine import Machine


@dataclass(frozen=True)
class MaskedWord:
    """A word of a text that the model predicts from the rest of the text, and from the whole text beside it."""

    text: str
    word: Word


class MaskedLMRun:
    """The newest checkpoint of a run as a predictor of words, in fp32 and without dropout."""

    def __init__(self, folder: RunFolder, config: RunConfig, machine: Machine, tokenizer: Tokenizer | None) -> None:
        """``tokenizer``: for a run folder of an older version, which has no copy of its own."""
        file = tokenizer_file(folder.path)
        if file.is_file():
            tokenizer = open_tokenizer(file, config.tokenizer)
        if tokenizer is None:
            raise RunFolderError(f"{folder.path} has no copy of its tokenizer, so it cannot predict words.")
        self._tokenizer = tokenizer
        self._machine = replace(machine, precision="fp32")
        self._model = method_of(config).build({})
        load_weights(newest(folder.checkpoints), self._model)
        self._model.to(machine.device).eval()
        #: Most tokens of a sequence: later positions were never trained.
        self.room = min(config.pairs.max_length, config.model.max_positions)
        names = [_surface(tokenizer.piece(number)) for number in range(tokenizer.vocab_size)]
        starts = tokenizer.word_starts & (np.arange(tokenizer.vocab_size) >= FIRST_PIECE)
        whole = np.array([start and only_letters(name) for start, name in zip(starts, names, strict=True)])
        self._names = names
        self._words = torch.from_numpy(whole).to(machine.device)  # (V,) bool: pieces that are whole words

    def one_piece(self, words: Sequence[str]) -> list[bool]:
        """Whether each word is a single piece that opens a word."""
        pieces = self._tokenizer.encode(list(words))
        return [len(row) == 1 and bool(self._tokenizer.word_starts[row[0]]) for row in pieces]

    @torch.no_grad()
    def candidates(self, masked: Sequence[MaskedWord], most: int) -> list[list[str]]:
        """For each masked word, the ``most`` most probable whole words, best first, perhaps with the word itself.

        The input is [CLS] the masked text [SEP] the text [SEP], as in TinyBERT's released code. Both are cut at the
        length that the run was trained with; a word behind the cut has no candidates.
        """
        features, places = self._features(masked)
        most = min(most, int(self._words.sum()))
        found: list[list[str]] = [[] for _ in masked]
        if not most:
            return found
        for rows, on_cpu in in_order(features):
            batch = on_cpu.to(self._machine.device)
            width = batch.input_ids.shape[1]
            here = [(place, int(places[row])) for place, row in enumerate(rows.tolist()) if places[row] >= 0]
            if not here:
                continue
            grid = torch.tensor([place * width + column for place, column in here], device=batch.input_ids.device)
            states = self._model.encoder(batch.input_ids, batch.type_ids, batch.mask, rows=grid)
            logits = cast(Any, self._model).token_logits(states).float().masked_fill(~self._words, -torch.inf)
            for (place, _), best in zip(here, logits.topk(most).indices.tolist(), strict=True):
                found[int(rows[place])] = [self._names[piece] for piece in best]
        return found

    def _features(self, masked: Sequence[MaskedWord]) -> tuple[FeatureSet, np.ndarray]:
        """The sequences, and the position of the mask in each; -1 if it lies behind the cut."""
        hidden = [f"{m.text[: m.word.start]}{SPECIALS[MASK]}{m.text[m.word.end :]}" for m in masked]
        texts = list(dict.fromkeys(m.text for m in masked))
        whole = dict(zip(texts, self._tokenizer.encode(texts), strict=True))
        rows, second, places = [], [], []
        for pieces, m in zip(self._tokenizer.encode_masked(hidden), masked, strict=True):
            first = pieces[: self.room - 2]
            room = self.room - len(first) - 3
            rows.append([CLS, *first, SEP, *([*whole[m.text][:room], SEP] if room > 0 else [])])
            second.append(len(first) + 2)
            places.append(first.index(MASK) + 1 if MASK in first else -1)
        return FeatureSet(Sequences.of_rows(rows, second), np.zeros((len(rows), 0), np.float32)), np.array(places)


def masked_lm_settings(folder: RunFolder, config: RunConfig, field: str) -> RunConfig:
    """The settings of the run in ``folder``, which ``field`` names. Raises ConfigError if it predicts no masked words.

    ``config`` has the values of settings that the run is older than.
    """
    if not (folder.path / "config.yaml").is_file():
        raise ConfigError(f"{field}: no run folder. Name one, such as runs/e128-all-sop-nano-s0-...")
    if folder.state() != "finished":
        raise ConfigError(f"{field}: that run is {folder.state()}. A run that predicts words must be finished.")
    settings = recorded_settings(folder.path / "config.yaml", config)
    if not predicts_masked_words(settings, folder):
        raise ConfigError(f"{field}: that run has no trained masked-LM head. Name a run of method=mlm.")
    return settings


def predicts_masked_words(config: RunConfig, folder: RunFolder) -> bool:
    """Whether a run with the settings ``config`` has a trained masked-LM head. An imported one may lack it."""
    if Measure.MASKED_LM not in method_of(config).measures:
        return False
    if not (folder.path / "manifest.json").is_file():
        return True  # a run that is trained here
    return folder.load("manifest.json", Manifest).came_with_masked_lm_head


def _surface(piece: str) -> str:
    """A piece that opens a word as it stands in a text."""
    return piece.removeprefix("\u2581")

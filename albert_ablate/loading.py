"""A trained run in memory: its encoder, tokenizer, heads and fine-tunings, applied to texts.

Letters: N texts, T tokens of the longest text, H hidden width, L layers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from albert_ablate.commands.finetune import tokenizer_of
from albert_ablate.data.tokenizer import CLS, MASK, SEP, SPECIALS
from albert_ablate.door.compose import compose_for_run
from albert_ablate.errors import ConfigError, DataError, RunFolderError
from albert_ablate.evaluation.continuation import Sampler, Writer
from albert_ablate.methods import method_of
from albert_ablate.record.folder import RunFolder
from albert_ablate.tasks.answering import answerer_of
from albert_ablate.tasks.batches import in_order
from albert_ablate.tasks.masked_words import predicts_masked_words
from albert_ablate.tasks.reread import manifest_of, settings_of
from albert_ablate.tasks.task import Answer, AnswersTexts, FeatureSet, Sequences, TagsWords, TaskBatch
from albert_ablate.tasks.texts.task import trim
from albert_ablate.training.checkpoint import load_weights, newest
from albert_ablate.training.machine import Machine

#: One text, or a pair that the model reads as one sequence.
Text = str | tuple[str, str]


class LoadedRun:
    """The newest checkpoint of a run, in fp32 and without dropout.

    ``texts`` are strings or pairs of strings; ``[MASK]`` in a text is the mask piece. A text with more tokens than the
    model has positions is cut; of a pair, the longer text is cut first.
    """

    def __init__(self, folder: RunFolder, device: Literal["cpu", "cuda", "auto"] = "cpu") -> None:
        self.folder = folder.path
        self.config = compose_for_run(folder.path / "config.yaml", [])
        self.tokenizer = tokenizer_of(folder, self.config)
        self.model = method_of(self.config).build({})
        load_weights(newest(folder.checkpoints), self.model)
        runtime = replace(self.config.runtime, device=device, precision="fp32")
        self.machine = Machine.of(runtime)
        self.model.to(self.machine.device).eval()

    def encode(self, texts: Sequence[Text]) -> TaskBatch:
        """A padded batch: ``input_ids``, ``type_ids`` and ``mask``, each (N, T). Raises DataError without a text."""
        return self._features(texts).batch(np.arange(len(texts))).to(self.machine.device)

    @torch.no_grad()
    def hidden_states(self, texts: Sequence[Text]) -> list[Tensor]:
        """L + 1 tensors (N, T, H): the projected embedding, then each layer's output. ``encode`` gives the mask."""
        batch = self.encode(texts)
        return self.model.encoder.hidden_states(batch.input_ids, batch.type_ids, batch.mask)

    @torch.no_grad()
    def embed(self, texts: Sequence[Text], pool: Literal["cls", "mean"] = "cls") -> Tensor:
        """Vectors (N, H): the last layer at [CLS], or its mean over the text's tokens, [CLS] and [SEP] included.

        Raises ConfigError for another ``pool``.
        """
        if pool not in ("cls", "mean"):
            raise ConfigError(f"pool={pool}: say cls or mean.")
        if pool == "cls" and self.config.method.name.predicts_next:
            raise ConfigError("pool=cls: in this run [CLS] sees only itself. Say pool=mean.")
        features = self._features(texts)
        vectors = torch.empty(len(features), self.config.model.hidden, device=self.machine.device)
        for rows, on_cpu in in_order(features):
            batch = on_cpu.to(self.machine.device)
            last = self.model.encoder(batch.input_ids, batch.type_ids, batch.mask)  # (B, T, H)
            real = batch.mask[:, :, None]
            vectors[rows.tolist()] = last[:, 0] if pool == "cls" else (last * real).sum(1) / real.sum(1)
        return vectors

    @torch.no_grad()
    def fill_mask(self, text: Text, top: int = 5) -> list[list[tuple[str, float]]]:
        """For each ``[MASK]`` of ``text``, the ``top`` most probable pieces with their probabilities, best first.

        Raises DataError if there is no mask, or if the run has no masked-LM head.
        """
        if not predicts_masked_words(self.config, RunFolder(self.folder.parent, self.folder.name)):
            raise DataError(f"{self.folder} has no trained masked-LM head to fill a mask with.")
        batch = self.encode([text])
        rows = (batch.input_ids.flatten() == MASK).nonzero().flatten()
        if not len(rows):
            raise DataError(f"{text!r}: no {SPECIALS[MASK]} in it, or it stands after the model's last position.")
        states = self.model.encoder(batch.input_ids, batch.type_ids, batch.mask, rows=rows)  # (masks, H)
        best = cast(Any, self.model).token_logits(states).softmax(-1).topk(top)
        named = [[self.tokenizer.piece(number) for number in row] for row in best.indices.tolist()]
        return [list(zip(*row, strict=True)) for row in zip(named, best.values.tolist(), strict=True)]

    def generate(
        self, prompt: str, tokens: int = 50, seed: int = 0, temperature: float = 1.0, top_p: float = 1.0
    ) -> str:
        """How a model that predicts the next piece continues ``prompt``; see ``evaluation.continuation``.

        Raises ConfigError for a masked model or an invalid setting.
        """
        writer = Writer(self.model, self.config, self.tokenizer, self.machine.device)
        return writer.continued(prompt, Sampler(seed, temperature, top_p), tokens).text

    def predict(self, task: str, texts: Sequence[Text], *settings: str) -> list[Answer]:
        """Predictions of the run's fine-tuning on ``task`` for each text: a class, labels, numbers, or entities.

        ``task`` names a task, or a folder in ``RUN/tasks``. Of several fine-tunings of a task, the one with the lowest
        seed is used, with its best weights. One of an older version reads the task's files for its labels; if they were
        moved, ``settings`` say where they are (``task.data_dir=DATA``). Raises UserError.
        """
        unit = self._unit(task)
        manifest = manifest_of(unit)
        name = manifest["task"]
        config = compose_for_run(self.folder / "config.yaml", [*settings_of(manifest), *settings])
        given = {word.partition("=")[0].lstrip("+~") for word in settings}
        answerer = answerer_of(config, unit, given.__contains__, self.tokenizer, self.machine)
        task_of_unit = answerer.task
        if isinstance(task_of_unit, TagsWords):
            features = task_of_unit.of_texts(_singles(name, texts))
            return list(task_of_unit.entities(features, answerer.predict(features)))
        if not isinstance(task_of_unit, AnswersTexts):
            raise ConfigError(f"{name}: its examples are more than texts; its predictions on dev are in {unit.path}.")
        return task_of_unit.answers(answerer.predict(task_of_unit.unlabelled(_pairs(texts))))

    def _unit(self, task: str) -> RunFolder:
        """The finished fine-tuning that is used for ``task``. Raises RunFolderError."""
        folders = [RunFolder(file.parent.parent, file.parent.name) for file in self.folder.glob("tasks/*/results.json")]
        finished = {unit.name: manifest_of(unit) for unit in folders if unit.state() == "finished"}
        matches = [name for name, manifest in finished.items() if task in (name, manifest["task"])]
        if not matches:
            choice = f"There are: {', '.join(sorted(finished))}." if finished else "There is none."
            raise RunFolderError(f"{self.folder}: no finished fine-tuning {task}. {choice}")
        return RunFolder(self.folder / "tasks", min(matches, key=lambda name: (finished[name]["seed"], name)))

    def _features(self, texts: Sequence[Text]) -> FeatureSet:
        """The texts as token sequences, [CLS] A [SEP] or [CLS] A [SEP] B [SEP]."""
        pairs = _pairs(texts)
        pieces = iter(self.tokenizer.encode_masked([text for pair in pairs for text in pair if text is not None]))
        rows, starts = [], []
        for _, text in pairs:
            first, second = next(pieces), [] if text is None else next(pieces)
            trim(first, second, self.config.model.max_positions - (2 if text is None else 3))
            rows.append([CLS, *first, SEP, *([] if text is None else [*second, SEP])])
            starts.append(len(first) + 2)
        return FeatureSet(Sequences.of_rows(rows, starts), np.zeros((len(rows), 0), np.float32))


def _pairs(texts: Sequence[Text]) -> list[tuple[str, str | None]]:
    """Each text as (text, None), each pair as it is. Raises DataError if ``texts`` is empty or a single string."""
    if not texts or isinstance(texts, str):
        raise DataError('Give the texts as a list with at least one text, such as ["A text."].')
    return [(text, None) if isinstance(text, str) else text for text in texts]


def _singles(task: str, texts: Sequence[Text]) -> list[str]:
    """The texts of a task that reads one each. Raises DataError for pairs."""
    pairs = _pairs(texts)
    if any(second is not None for _, second in pairs):
        raise DataError(f"{task} takes single texts, not pairs.")
    return [text for text, _ in pairs]
